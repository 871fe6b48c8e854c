"""Pictures while they are written: codes as they come, progress, and what can be seen of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.runtime.sampling import OnStep, wants_preview
from zoo_illume.processor import Grid, InterleavedTokens

#: Semantic and pixel codes of pictures of one size, int64 [n, rows, columns] each.
Maps = tuple[Tensor, Tensor]


@dataclass
class Sketch:
    """The codes of one picture, level by level, as far as they are written."""

    tokens: InterleavedTokens
    grids: tuple[Grid, Grid]
    codes: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def read(self, token: int) -> None:
        """The next token."""
        for (first, end), codes in zip(self.tokens.codes, self.codes, strict=True):
            if first <= token < end:
                codes.append(token - first)

    def maps(self) -> Maps:
        """The codes in their places; what is not written yet is the last one that is, or the first code."""
        semantic, pixel = (_as_map(codes, grid) for codes, grid in zip(self.codes, self.grids, strict=True))
        return semantic, pixel


def maps_of(sketches: Sequence[Sketch]) -> Maps:
    """The codes of pictures of one size; see `Sketch.maps`."""
    semantic, pixel = zip(*(sketch.maps() for sketch in sketches), strict=True)
    return torch.cat(semantic), torch.cat(pixel)


def _as_map(codes: Sequence[int], grid: Grid) -> Tensor:
    rows, columns = grid
    filling = [codes[-1] if codes else 0] * (rows * columns - len(codes))
    return torch.tensor([*codes, *filling]).view(1, rows, columns)


class Watch:
    """Tells `on_step` of every token, and shows what is there whenever a line of pixel codes is done.

    decode: codes to pictures [n, 3, h, w]. total: all steps of the run.

    Pictures of different sizes cannot be shown together: then there are no previews.
    """

    def __init__(
        self, on_step: OnStep, total: int, sketches: Sequence[Sketch], decode: Callable[[Maps], Tensor]
    ) -> None:
        self._on_step, self._total = on_step, total
        self._sketches, self._decode = sketches, decode
        self._alike = all(sketch.grids == sketches[0].grids for sketch in sketches)
        self._done, self._line = 0, False

    def __call__(self, row: int, index: int, token: int) -> None:
        """See `zoo.runtime.tokens.engine.OnToken`."""
        # All tokens of a step come one after the other: with the first of the next, the step is done.
        if index > self._done:
            self._tell(index)
        self._sketches[row].read(token)
        self._line |= token == self._sketches[row].tokens.end_of_line and bool(self._sketches[row].codes[1])

    def _tell(self, step: int) -> None:
        self._done = step
        seen = self._line and self._alike and wants_preview(self._on_step, step, self._total)
        self._line = False
        self._on_step(step, self._total, self._decode(maps_of(self._sketches)) if seen else None)
