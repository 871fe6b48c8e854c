"""Layered images: RGBA layers from back to front on one canvas, an artifact like any other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image, Provenance
from zoo.io.grid import grid
from zoo.io.pixels import to_bytes8

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GAP = 2
_SQUARE = 4
_LIGHT_GREY = 0.85

#: Up to this side a checkerboard has its smallest squares; they grow with the picture from there on.
_SMALL_SIDE = 128


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    pixels: float32 [4, h, w] on the CPU, RGB and straight (not multiplied) alpha, nominally in [0, 1]; what
    lies outside is clamped when it is shown or written.
    name: what programs list it as.
    x, y: where its top left corner stands on the canvas, in pixels; it may reach beyond the canvas.
    visible: whether the composite shows it.
    opacity: in [0, 1], multiplies its alpha.
    encoded: the PNG file that `pixels` were read from, which is written again unchanged.

    Raises ValueError for a value of another type or out of its range.
    """

    pixels: Tensor
    name: str = ""
    x: int = 0
    y: int = 0
    visible: bool = True
    opacity: float = 1.0
    encoded: bytes | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dim() != 3 or pixels.shape[0] != 4 or 0 in pixels.shape:
            raise ValueError(f"layer pixels: expected shape [4, h, w], got {list(pixels.shape)}")
        if pixels.dtype != torch.float32 or pixels.device.type != "cpu":
            raise ValueError(f"layer pixels: expected float32 on cpu, got {pixels.dtype} on {pixels.device}")
        if type(self.x) is not int or type(self.y) is not int:
            raise ValueError(f"layer position: expected two integers, got {self.x!r} and {self.y!r}")
        if type(self.opacity) not in (int, float) or not 0.0 <= self.opacity <= 1.0:
            raise ValueError(f"layer opacity: expected a number in [0, 1], got {self.opacity!r}")
        if self.encoded is not None and not self.encoded.startswith(PNG_SIGNATURE):
            raise ValueError("layer file: expected the bytes of a PNG file")

    def to_bytes8(self) -> Tensor:
        """Return uint8 [h, w, 4], contiguous: floor(255 x + 0.5), clamped to [0, 255].

        Raises ZooError when a value is not finite.
        """
        return to_bytes8(self.pixels, f"layer '{self.name}'" if self.name else "a layer")


@dataclass(frozen=True, eq=False)
class LayeredImage:
    """A picture in layers.

    size: (height, width) of the canvas in pixels.
    layers: back to front, at least one.
    drawn: float32 [n, 3, h, w] in [0, 1], each layer's picture as the model drew it over its neutral colour,
    before its mask was applied; in memory only, and None where that is not known.

    Raises ValueError for a size that is not two positive integers, for no layers, or for another number of
    pictures in `drawn` than there are layers.
    """

    size: tuple[int, int]
    layers: tuple[Layer, ...]
    provenance: Provenance | None = None
    drawn: Tensor | None = None

    kind: ClassVar[str] = "layers"
    formats: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ora": (".ora",),
        "folder": ("",),
        "psd": (".psd",),
    }
    extras: ClassVar[Mapping[str, tuple[str, str]]] = {"psd": ("psd_tools", "psd")}

    def __post_init__(self) -> None:
        size: Any = self.size
        if not isinstance(size, tuple) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
            raise ValueError(f"size of the canvas: expected two positive integers, got {size!r}")
        if not self.layers:
            raise ValueError("a layered image needs at least one layer, got none")
        drawn = self.drawn
        if drawn is not None and (drawn.dim() != 4 or drawn.shape[:2] != (len(self.layers), 3)):
            raise ValueError(
                f"drawn pictures: expected shape [{len(self.layers)}, 3, h, w], got {list(drawn.shape)}"
            )

    def composite(self) -> Image:
        """Return the visible layers over each other, RGB; white shows where they do not cover.

        It is computed from the 8-bit values that files hold, and rounded once, at the end; programs that
        round after every layer differ from it by a grey level here and there. Raises ZooError when a value of
        a visible layer is not finite.
        """
        canvas = torch.ones(3, *self.size)
        for layer in self.layers:
            if layer.visible:
                _put_over(canvas, layer, layer.opacity)
        return Image(canvas, self.provenance)

    def picture(self) -> Image:
        """Return the composite and then every layer, back to front, side by side in one row.

        A layer stands in its place over a light checkerboard, cut at the canvas. Its own content is shown,
        whether or not the composite shows it: hidden layers too, and each as if its opacity were 1.
        """
        cells = [self.composite()]
        for layer in self.layers:
            cell = _checkerboard(self.size)
            _put_over(cell, layer, opacity=1.0)
            cells.append(Image(cell))
        return Image(grid(cells, columns=len(cells), gap=_GAP).pixels, self.provenance)

    def with_layer(self, index: int, **changes: Any) -> LayeredImage:
        """Return a copy in which layer `index` (0 is the backmost) has other values of the fields of `Layer`.

        Every other layer stays the very same object. New pixels drop the layer's `encoded` file and the
        picture's `drawn`, which no longer belong to them. Raises InvalidInput when there is no such layer.
        """
        if "pixels" in changes:
            changes = {"encoded": None, **changes}
        layers = list(self.layers)
        layers[index] = dataclasses.replace(self._layer(index), **changes)
        drawn = None if "pixels" in changes else self.drawn
        return dataclasses.replace(self, layers=tuple(layers), drawn=drawn)

    def moved(self, index: int, dx: int, dy: int) -> LayeredImage:
        """Return a copy in which layer `index` stands `dx` pixels further right and `dy` further down.

        Raises InvalidInput when there is no such layer.
        """
        layer = self._layer(index)
        return self.with_layer(index, x=layer.x + dx, y=layer.y + dy)

    def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,
        metadata: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Write an OpenRaster file, a folder or a PSD file; see `zoo.io.layer_files.save_layers`."""
        # Imported here because Pillow is only needed by those who write a file.
        from zoo.io.layer_files import save_layers

        return save_layers(self, path, format=format, metadata=metadata, overwrite=overwrite)

    def _layer(self, index: int) -> Layer:
        if not 0 <= index < len(self.layers):
            raise InvalidInput(
                f"there is no layer {index}, expected 0 to {len(self.layers) - 1}",
                "Layers are counted from the back, and the backmost is 0.",
            )
        return self.layers[index]


def on_canvas(layer: Layer, size: tuple[int, int]) -> Tensor:
    """A layer as it lies on a canvas of (height, width), cut there and transparent around: [4, h, w]."""
    canvas = torch.zeros(4, *size)
    rows = _overlap(layer.y, layer.pixels.shape[1], size[0])
    columns = _overlap(layer.x, layer.pixels.shape[2], size[1])
    if rows is not None and columns is not None:
        canvas[:, rows[0], columns[0]] = layer.pixels[:, rows[1], columns[1]]
    return canvas


def read_layers(path: str | PathLike[str]) -> LayeredImage:
    """Read an OpenRaster file, a folder of layers or a PSD file; see `zoo.io.layer_files.load_layers`."""
    from zoo.io.layer_files import load_layers

    return load_layers(path)


def _put_over(canvas: Tensor, layer: Layer, opacity: float) -> None:
    """Blend the 8-bit values of a layer over the opaque `canvas` [3, h, w], in place."""
    rows = _overlap(layer.y, layer.pixels.shape[1], canvas.shape[1])
    columns = _overlap(layer.x, layer.pixels.shape[2], canvas.shape[2])
    if rows is None or columns is None:
        return
    values = layer.to_bytes8()[rows[1], columns[1]].permute(2, 0, 1).to(torch.float32).div_(255.0)
    alpha = values[3:] * opacity
    covered = canvas[:, rows[0], columns[0]]
    covered.mul_(1.0 - alpha).add_(values[:3] * alpha)


def _overlap(start: int, length: int, limit: int) -> tuple[slice, slice] | None:
    """Where a layer of `length` at `start` meets a canvas of `limit`, on the canvas and in the layer."""
    first, end = max(start, 0), min(start + length, limit)
    return None if first >= end else (slice(first, end), slice(first - start, end - start))


def _checkerboard(size: tuple[int, int]) -> Tensor:
    """White and light grey squares, float32 [3, h, w]."""
    side = _SQUARE * max(1, math.ceil(max(size) / _SMALL_SIDE))
    rows, columns = (torch.arange(length).div(side, rounding_mode="floor") for length in size)
    grey = (rows[:, None] + columns[None, :]) % 2 == 1
    return torch.where(grey, _LIGHT_GREY, 1.0).to(torch.float32).expand(3, -1, -1).clone()
