"""Contact sheets: several pictures in one, each with its own provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image

GRID_KEY = "zoo_grid"
"""Under this key a file holds the list of provenances of a grid."""


@dataclass(frozen=True, eq=False)
class ImageGrid(Image):
    """A contact sheet: `pixels` are the whole sheet, `images` its pictures in row-major order.

    No single sample made it, so `provenance` is None; its file holds the provenances of the pictures that
    have one.
    """

    images: tuple[Image, ...] = ()

    def metadata(self) -> dict[str, Any] | None:
        """Return {"zoo_grid": [provenance, ...]}, or None when no picture has a provenance."""
        samples = [image.provenance.to_dict() for image in self.images if image.provenance is not None]
        return {GRID_KEY: samples} if samples else None


def grid(
    images: Sequence[Image], columns: int | None = None, gap: int = 2, background: float = 1.0
) -> ImageGrid:
    """Return the contact sheet of `images` in row-major order.

    columns: pictures in a row; None makes the sheet near square: ceil(sqrt(n h / w)) for cells of h x w.
    gap: pixels between two cells; there is none around the sheet.
    background: grey level in [0, 1] of the gaps and of what a smaller picture leaves free.

    A cell is as high and as wide as the highest and the widest picture, and each picture stands in the middle
    of its own. The sheet is grey when all pictures are, RGB otherwise. Raises InvalidInput for no images, or
    an argument out of its range.
    """
    _check(images, columns, gap, background)
    height = max(image.pixels.shape[1] for image in images)
    width = max(image.pixels.shape[2] for image in images)
    columns = min(columns or math.ceil(math.sqrt(len(images) * height / width)), len(images))
    sheet = _empty_sheet(images, columns, gap, background, height, width)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        cell = sheet[:, row * (height + gap) :, column * (width + gap) :][:, :height, :width]
        _put_in_the_middle(cell, image.pixels)
    return ImageGrid(sheet, images=tuple(images))


def _empty_sheet(
    images: Sequence[Image], columns: int, gap: int, background: float, height: int, width: int
) -> Tensor:
    rows = math.ceil(len(images) / columns)
    channels = max(image.pixels.shape[0] for image in images)
    shape = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    return torch.full(shape, background, dtype=torch.float32)


def _put_in_the_middle(cell: Tensor, pixels: Tensor) -> None:
    _, height, width = pixels.shape
    top = (cell.shape[1] - height) // 2
    left = (cell.shape[2] - width) // 2
    # Copying broadcasts a grey picture to the three channels of an RGB sheet.
    cell[:, top : top + height, left : left + width].copy_(pixels.detach())


def _check(images: Sequence[Image], columns: int | None, gap: int, background: float) -> None:
    if not images:
        raise InvalidInput("a grid needs at least one picture, got none")
    if columns is not None and columns < 1:
        raise InvalidInput(f"a grid needs at least one column, got {columns}")
    if gap < 0:
        raise InvalidInput(f"the gap of a grid is 0 or more pixels, got {gap}")
    if not 0.0 <= background <= 1.0:
        raise InvalidInput(f"the background of a grid is in [0, 1], got {background}")
