"""The contract between the core and samplers, and the plan that turns a request into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, overload

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.conditioning import class_id, class_of_prompt
from zoo.runtime.noise import Noise, NoiseSource

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact
    from zoo.io.inputs import InputImage
    from zoo.runtime.model import LoadedModel


class OnStep(Protocol):
    """Progress of one batch: `step` of `total` is done.

    `preview` is the batch's current estimate [n, c, h, w] in [-1, 1], detached and never written to again, or
    None. It never changes the result. An `OnStep` that has no use for some estimates has a method
    `wants_preview(step, total) -> bool`; samplers ask it through the function of this name.

    An `OnStep` that shows texts while they are made has a method `text(row, piece) -> None`: row `row` of the
    batch goes on with `piece`. Samplers that make texts call it through `tell_text`.
    """

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None: ...


def wants_preview(on_step: OnStep, step: int, total: int) -> bool:
    """Whether `on_step` has a use for the estimate after `step` of `total`.

    A sampler that has to compute or copy something for it asks before it does, so that previews cost nothing
    where nobody looks. A plain function gets every estimate.
    """
    asked = getattr(on_step, "wants_preview", None)
    return True if asked is None else bool(asked(step, total))


def tell_text(on_step: OnStep, row: int, piece: str) -> None:
    """Hand on a piece of the text of row `row` as it is made; the pieces of a row together are its text.

    An `OnStep` without a method `text` is told nothing.
    """
    told = getattr(on_step, "text", None)
    if told is not None:
        told(row, piece)


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
    """One sample to draw: `index` within the request, its own seed, what it shows and what it avoids.

    `part_prompts` say what each of its parts shows, such as the layers from back to front. `images` are the
    pictures that it is given, by role.
    """

    index: int
    seed: int
    prompt: str | None = None
    class_id: int | None = None
    negative: str | None = None
    part_prompts: tuple[str, ...] = ()
    images: Mapping[str, InputImage] = field(default_factory=dict, hash=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that a text encoder may be asked to read for it."""
        return tuple(text for text in (self.prompt, self.negative, *self.part_prompts) if text is not None)


@dataclass(frozen=True)
class Batch:
    """Samples that are drawn together. `size` is (height, width) where the request gives it."""

    items: tuple[Item, ...]
    size: tuple[int, int] | None = None

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
    def part_prompts(self) -> tuple[tuple[str, ...], ...]:
        """Each sample's part prompts; empty where it has none."""
        return tuple(item.part_prompts for item in self.items)

    def images_of(self, role: str) -> tuple[Tensor | None, ...]:
        """The pixels that each sample is given in a role, as `InputImage` holds them; None where it has none.

        Samples of one picture have the very same tensor, on the CPU. Sizes differ between samples.
        """
        found = (item.images.get(role) for item in self.items)
        return tuple(None if image is None else image.pixels for image in found)

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


@dataclass(frozen=True)
class Condition:
    """What the samples of one prompt or class have in common."""

    prompt: str | None = None
    class_id: int | None = None
    part_prompts: tuple[str, ...] = ()


class Plan(Sequence[Item]):
    """Every sample of a request. Items are made when asked for: a plan of millions takes no memory."""

    def __init__(self, request: Request, conditions: Sequence[Condition], class_count: int) -> None:
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
        condition = self._conditions[index // self._request.num]
        label, seed = condition.class_id, self._request.seed_of(index)
        if self._class_count and label is None:
            label = int(Noise([seed]).uniform("class", (1,)).item() * self._class_count)
        negative = self._request.negative_of(index)
        images = self._request.images_of(index)
        return Item(index, seed, condition.prompt, label, negative, condition.part_prompts, images)


def plan(
    request: Request,
    classes: Sequence[str],
    class_count: int,
    takes_text: bool,
    *,
    derive_parts: Callable[[str], tuple[str, ...]] | None = None,
) -> Plan:
    """Every sample of a request, with its seed and condition.

    `class_count` is 0 for a model without classes. `derive_parts` gives the part prompts of a prompt that has
    none of its own. Part prompts without a prompt or class go with the empty prompt. Raises `InvalidInput`
    for a prompt or class that the model does not know, and for negative and part prompts where it takes no
    text.
    """
    if request.negatives and not takes_text:
        raise _no_text("negative prompt", class_count, "Leave out --negative.")
    if request.part_prompts and not takes_text:
        raise _no_text("part prompts", class_count, "Leave out --layer-prompt.")
    conditions = [
        _with_parts(condition, request.parts_of(number * request.num), derive_parts)
        for number, condition in enumerate(_conditions(request, classes, class_count, takes_text))
    ]
    return Plan(request, conditions, class_count)


def _no_text(what: str, class_count: int, hint: str) -> InvalidInput:
    reads = "classes, not on text" if class_count else "nothing"
    return InvalidInput(f"this model takes no {what}: it is conditioned on {reads}", hint)


def _with_parts(
    condition: Condition, given: tuple[str, ...], derive: Callable[[str], tuple[str, ...]] | None
) -> Condition:
    if given:
        alone = condition.prompt is None and condition.class_id is None
        return replace(condition, part_prompts=given, prompt="" if alone else condition.prompt)
    if derive is not None and condition.prompt is not None:
        return replace(condition, part_prompts=derive(condition.prompt))
    return condition


def _conditions(
    request: Request, classes: Sequence[str], class_count: int, takes_text: bool
) -> list[Condition]:
    if request.classes:
        if not class_count:
            raise InvalidInput("this model has no classes", "Leave out --class.")
        return [Condition(class_id=class_id(value, classes, class_count)) for value in request.classes]
    if request.prompts and not takes_text:
        if not class_count:
            raise InvalidInput("this model is unconditional: it takes no prompt", "Leave out --prompt.")
        if not classes:
            raise InvalidInput(
                f"the classes of this model have no names: a prompt cannot name one of its {class_count}",
                f"Use --class with a number from 0 to {class_count - 1}.",
            )
        return [Condition(prompt, class_of_prompt(prompt, classes)) for prompt in request.prompts]
    return [Condition(prompt) for prompt in request.prompts] or [Condition()] * request.conditions


def batches(items: Sequence[Item], size: int, request: Request) -> Iterator[Batch]:
    """Consecutive batches of at most `size` samples."""
    for start in range(0, len(items), size):
        yield Batch(tuple(items[start : start + size]), request.size)
