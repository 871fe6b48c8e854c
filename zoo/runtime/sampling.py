"""The contract between the core and samplers, and the plan that turns a request into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, overload

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.conditioning import class_id, class_of_prompt
from zoo.runtime.noise import Noise, NoiseSource

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact
    from zoo.runtime.model import LoadedModel


class OnStep(Protocol):
    """Progress of one batch: `step` of `total` is done.

    `preview` is the batch's current estimate [n, c, h, w] in [-1, 1], detached and never written to again, or
    None. It never changes the result. An `OnStep` that has no use for some estimates has a method
    `wants_preview(step, total) -> bool`; samplers ask it through the function of this name.
    """

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None: ...


def wants_preview(on_step: OnStep, step: int, total: int) -> bool:
    """Whether `on_step` has a use for the estimate after `step` of `total`.

    A sampler that has to compute or copy something for it asks before it does, so that previews cost nothing
    where nobody looks. A plain function gets every estimate.
    """
    asked = getattr(on_step, "wants_preview", None)
    return True if asked is None else bool(asked(step, total))


class Unwatched:
    """An `OnStep` for runs that nobody watches."""

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None:
        return None

    def wants_preview(self, step: int, total: int) -> bool:
        return False


class SampleFunction(Protocol):
    """A sampler: pure. No global random numbers, no printing, no choice of device, no files."""

    def __call__(
        self, loaded: LoadedModel, batch: Batch, options: Any, noise: NoiseSource, on_step: OnStep
    ) -> Sequence[Artifact]:
        """One artifact for each sample of the batch, in order, without provenance."""
        ...


@dataclass(frozen=True)
class Item:
    """One sample to draw: `index` within the request, its own seed, what it shows and what it avoids."""

    index: int
    seed: int
    prompt: str | None = None
    class_id: int | None = None
    negative: str | None = None


@dataclass(frozen=True)
class Batch:
    """Samples that are drawn together. `size` is (height, width) where the request gives it."""

    items: tuple[Item, ...]
    size: tuple[int, int] | None = None
    images: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def prompts(self) -> tuple[str | None, ...]:
        """Each sample's prompt."""
        return tuple(item.prompt for item in self.items)

    @property
    def negatives(self) -> tuple[str | None, ...]:
        """Each sample's negative prompt; None, unlike the empty text, where none was given."""
        return tuple(item.negative for item in self.items)

    @property
    def labels(self) -> Tensor | None:
        """Class ids [n], -1 for "no class"; None where no sample has one."""
        ids = [item.class_id for item in self.items]
        if all(i is None for i in ids):
            return None
        return torch.tensor([-1 if i is None else i for i in ids])

    def noise(self) -> Noise:
        """The random numbers of exactly these samples."""
        return Noise([item.seed for item in self.items])


class Plan(Sequence[Item]):
    """Every sample of a request. Items are made when asked for: a plan of millions takes no memory."""

    def __init__(
        self, request: Request, conditions: Sequence[tuple[str | None, int | None]], class_count: int
    ) -> None:
        self._request = request
        self._conditions = tuple(conditions)
        self._class_count = class_count

    def __len__(self) -> int:
        return len(self._conditions) * self._request.num

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, slice):
            return tuple(self._item(i) for i in range(*index.indices(len(self))))
        return self._item(range(len(self))[index])

    def _item(self, index: int) -> Item:
        prompt, label = self._conditions[index // self._request.num]
        seed = self._request.seed_of(index)
        if self._class_count and label is None:
            label = int(Noise([seed]).uniform("class", (1,)).item() * self._class_count)
        return Item(index, seed, prompt, label, self._request.negative_of(index))


def plan(request: Request, classes: Sequence[str], class_count: int, takes_text: bool) -> Plan:
    """Every sample of a request, with its seed and condition.

    `class_count` is 0 for a model without classes. Raises `InvalidInput` for a prompt or class that the model
    does not know, and for a negative prompt where it takes no text.
    """
    if request.negatives and not takes_text:
        raise InvalidInput(
            "this model takes no negative prompt: it is conditioned on "
            + ("classes, not on text" if class_count else "nothing"),
            "Leave out --negative.",
        )
    return Plan(request, _conditions(request, classes, class_count, takes_text), class_count)


def _conditions(
    request: Request, classes: Sequence[str], class_count: int, takes_text: bool
) -> list[tuple[str | None, int | None]]:
    if request.classes:
        if not class_count:
            raise InvalidInput("this model has no classes", "Leave out --class.")
        return [(None, class_id(value, classes, class_count)) for value in request.classes]
    if request.prompts and not takes_text:
        if not class_count:
            raise InvalidInput("this model is unconditional: it takes no prompt", "Leave out --prompt.")
        if not classes:
            raise InvalidInput(
                f"the classes of this model have no names: a prompt cannot name one of its {class_count}",
                f"Use --class with a number from 0 to {class_count - 1}.",
            )
        return [(prompt, class_of_prompt(prompt, classes)) for prompt in request.prompts]
    return [(prompt, None) for prompt in request.prompts] or [(None, None)]


def batches(items: Sequence[Item], size: int, request: Request) -> Iterator[Batch]:
    """Consecutive batches of at most `size` samples."""
    for start in range(0, len(items), size):
        yield Batch(tuple(items[start : start + size]), request.size, request.images)
