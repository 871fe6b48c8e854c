"""A request: everything a user can ask of a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

#: Seeds are non-negative and fit 63 bits, so that every format and generator can hold them.
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """What to sample.

    Every prompt or class is sampled `num` times; sample `i` of the whole request uses seed `seed + i`. With
    neither, a class-conditional model draws each sample's class from its noise. `size` is (height, width) in
    pixels. `steps` and `guidance` are short for the sampler options of these names. `batch_size` limits how
    many samples are computed at once; it never changes a picture.
    """

    prompts: Sequence[str] = ()
    classes: Sequence[str | int] = ()
    images: Mapping[str, Tensor] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    num: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str):
            object.__setattr__(self, "prompts", (self.prompts,))
        if isinstance(self.classes, (str, int)):
            object.__setattr__(self, "classes", (self.classes,))
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.prompts and self.classes:
            raise InvalidInput("both prompts and classes were given, expected one of them")
        _at_least("num", self.num, 1)
        _at_least("steps", self.steps, 1)
        _at_least("batch_size", self.batch_size, 1)
        if self.size is not None and min(self.size) < 1:
            raise InvalidInput(f"size is {self.size[1]}x{self.size[0]}, expected at least 1x1")
        if not 0 <= self.seed <= MAX_SEED - self.total:
            raise InvalidInput(f"seed is {self.seed}, expected 0 to {MAX_SEED - self.total}")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise InvalidInput(f"guidance is {self.guidance}, expected a number of at least 0")

    @property
    def total(self) -> int:
        """How many samples the request asks for."""
        return max(1, len(self.prompts), len(self.classes)) * self.num


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise InvalidInput(f"{name} is {value}, expected at least {least}")
