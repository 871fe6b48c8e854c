"""A request: everything a user can ask of a sample."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from zoo.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.io.inputs import InputImage

#: Seeds are non-negative and fit 63 bits, so that every format and generator can hold them.
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """What to sample.

    Every prompt or class is sampled `num` times; sample `i` of the whole request uses seed `seed + i`, or
    `seeds[i]` where `seeds` holds one for each sample. With neither, a class-conditional model draws each
    sample's class from its noise. `negatives` say what to keep away from, for models that take text: one for
    all samples or one for each prompt. `part_prompts` say what each part of an artifact shows, such as the
    layers from back to front, for samplers that read them: one sequence of texts for all prompts, or a
    sequence of texts for each prompt, empty for a prompt without. Without a prompt, they go with the empty
    one.

    `images` are pictures for the sampler to read, by role, "image" being the usual one: one for all samples,
    or a sequence with one for each prompt or class. Without prompts and classes, each picture of a sequence
    is sampled `num` times. They are kept as tuples of `InputImage`.

    `task` names what to do, as the variant's card or its samplers call it, and `sampler` a sampler itself:
    one of them at most. `size` is (height, width) in pixels. `steps` and `guidance` are short for the sampler
    options of these names. `batch_size` limits how many samples are computed at once; it never changes a
    picture.
    """

    prompts: Sequence[str] = ()
    classes: Sequence[str | int] = ()
    negatives: Sequence[str] = ()
    part_prompts: Sequence[Sequence[str]] = ()
    images: Mapping[str, InputImage | Tensor | Sequence[InputImage | Tensor]] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    num: int = 1
    seed: int = 0
    seeds: Sequence[int] | None = None
    steps: int | None = None
    guidance: float | None = None
    task: str | None = None
    sampler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "classes", "negatives"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, (str, int)) else tuple(given))
        if self.prompts and self.classes:
            raise InvalidInput("both prompts and classes were given, expected one of them")
        if self.task is not None and self.sampler is not None:
            raise InvalidInput(
                "both a task and a sampler were given, expected one of them", "Leave out --task or --sampler."
            )
        _at_least("num", self.num, 1)
        _at_least("steps", self.steps, 1)
        _at_least("batch_size", self.batch_size, 1)
        if self.size is not None and min(self.size) < 1:
            raise InvalidInput(f"size is {self.size[1]}x{self.size[0]}, expected at least 1x1")
        object.__setattr__(self, "part_prompts", _part_prompts(self.part_prompts))
        object.__setattr__(self, "images", _images(self.images))
        self._check_images()
        self._check_negatives()
        self._check_part_prompts()
        self._check_seeds()
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise InvalidInput(f"guidance is {self.guidance}, expected a number of at least 0")

    @property
    def total(self) -> int:
        """How many samples the request asks for."""
        return self.conditions * self.num

    @property
    def conditions(self) -> int:
        """How many different things it asks for: prompts or classes, else pictures; 1 where it has none."""
        return len(self.prompts) or len(self.classes) or max([1, *map(len, self._pictures.values())])

    @property
    def _pictures(self) -> Mapping[str, tuple[InputImage, ...]]:
        """`images` as `__post_init__` leaves them."""
        return cast("Mapping[str, tuple[InputImage, ...]]", self.images)

    def seed_of(self, index: int) -> int:
        """The seed of sample `index`, 0 <= index < total."""
        return self.seed + index if self.seeds is None else self.seeds[index]

    def negative_of(self, index: int) -> str | None:
        """The negative prompt of sample `index`; None where none was given, which is not the empty text."""
        if len(self.negatives) <= 1:
            return self.negatives[0] if self.negatives else None
        return self.negatives[index // self.num]

    def parts_of(self, index: int) -> tuple[str, ...]:
        """The part prompts of sample `index`; empty where none were given."""
        if len(self.part_prompts) <= 1:
            return tuple(self.part_prompts[0]) if self.part_prompts else ()
        return tuple(self.part_prompts[index // self.num])

    def images_of(self, index: int) -> dict[str, InputImage]:
        """The pictures of sample `index` by role; empty where none were given."""
        number = index // self.num
        return {role: given[number if len(given) > 1 else 0] for role, given in self._pictures.items()}

    @property
    def _counted(self) -> str:
        """What `conditions` counts."""
        if self.classes:
            return "classes"
        return "pictures" if self.images and not self.prompts else "prompts"

    def _check_images(self) -> None:
        for role, given in self._pictures.items():
            if len(given) not in (1, self.conditions):
                raise InvalidInput(
                    f"{len(given)} pictures were given as '{role}', expected 1 or one for each of the "
                    f"{self.conditions} {self._counted}",
                    "Say for each picture what to do with it." if self.prompts else "",
                )

    def _check_negatives(self) -> None:
        expected = 1 if self.classes else self.conditions
        if len(self.negatives) not in (0, 1, expected):
            raise InvalidInput(
                f"{len(self.negatives)} negative prompts were given, expected 1 or one for each of the "
                f"{expected} {self._counted}"
            )

    def _check_part_prompts(self) -> None:
        if len(self.part_prompts) not in (0, 1, self.conditions):
            raise InvalidInput(
                f"{len(self.part_prompts)} sequences of part prompts were given, expected 1 or one for each "
                f"of the {self.conditions} {self._counted}"
            )

    def _check_seeds(self) -> None:
        if self.seeds is None:
            if not 0 <= self.seed <= MAX_SEED - self.total:
                raise InvalidInput(f"seed is {self.seed}, expected 0 to {MAX_SEED - self.total}")
            return
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if len(self.seeds) != self.total:
            raise InvalidInput(
                f"{len(self.seeds)} seeds were given, expected one for each sample: {self.total}"
            )
        wrong = next((seed for seed in self.seeds if not 0 <= seed < MAX_SEED), None)
        if wrong is not None:
            raise InvalidInput(f"seed is {wrong}, expected 0 to {MAX_SEED - 1}")


def read_size(text: str) -> tuple[int, int] | None:
    """`WxH` or one number for a square, in pixels, as (height, width); None where it is neither."""
    match = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", text.strip())
    height, width = (int(match[2] or match[1]), int(match[1])) if match else (0, 0)
    return (height, width) if height and width else None


def _images(given: Any) -> Mapping[str, tuple[InputImage, ...]]:
    if not given and isinstance(given, Mapping):
        return {}
    # Imported here: most requests have no picture, and those who only make one need no torch.
    from zoo.io.inputs import input_images

    return input_images(given)


def _part_prompts(given: Any) -> tuple[tuple[str, ...], ...]:
    """Part prompts as a sequence for each prompt, or one for all; empty where no sequence holds a text."""
    texts = (given,) if isinstance(given, str) else _tuple_of(given)
    if texts and all(isinstance(text, str) for text in texts):
        return (texts,)
    sequences = tuple(map(_tuple_of, texts))
    wrong = next((text for sequence in sequences for text in sequence if not isinstance(text, str)), None)
    if wrong is not None:
        raise InvalidInput(f"a part prompt is {wrong!r}, expected a text")
    return sequences if any(sequences) else ()


def _tuple_of(values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(
            f"part prompts: expected texts, or a sequence of texts for each prompt, got {values!r} among them"
        )
    return tuple(values)


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise InvalidInput(f"{name} is {value}, expected at least {least}")
