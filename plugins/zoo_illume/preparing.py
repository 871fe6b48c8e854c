"""Pictures of any size to the sizes that the model reads and draws, and edited ones back to their own.

Sizes are (height, width) in pixels. Pillow resizes, in 8 bits, as in the authors' code: the model has seen
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import PIL.Image
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.pixels import from_raw, to_bytes8
from zoo_illume.model_config import IllumeConfig
from zoo_illume.sizes import Size

#: Least and most pixels of a picture that is read, in pixel codes of the authors' models: 32^2 and 768^2.
FEWEST_CELLS, MOST_CELLS = 2 * 2, 48 * 48


def size_to_read(size: Size, factor: int) -> Size:
    """The size at which a picture is read to be understood: about its own, in multiples of `factor`.

    Pictures of more than `MOST_CELLS` or less than `FEWEST_CELLS` squares of that side are scaled, keeping
    their aspect as well as the multiples allow.
    """
    height, width = (round(side / factor) * factor for side in size)
    least, most = FEWEST_CELLS * factor**2, MOST_CELLS * factor**2
    if height * width > most:
        scale = math.sqrt(size[0] * size[1] / most)
        height, width = (math.floor(side / scale / factor) * factor for side in size)
    elif height * width < least:
        scale = math.sqrt(least / (size[0] * size[1]))
        height, width = (math.ceil(side * scale / factor) * factor for side in size)
    return max(height, factor), max(width, factor)


def drawn_sizes(config: IllumeConfig) -> tuple[Size, ...]:
    """The sizes of pictures that a model draws; raises `InvalidInput` for one that only reads them."""
    if not config.sizes:
        raise InvalidInput("this model draws no pictures", "It reads them: --task image-to-text.")
    return config.sizes


def size_to_draw(size: Size | None, config: IllumeConfig) -> Size:
    """The size of a picture that is drawn, the model's usual one where none is asked for.

    Raises `InvalidInput` for one that it does not draw.
    """
    sizes = drawn_sizes(config)
    if size is None:
        return sizes[0]
    if size not in sizes:
        known = ", ".join(f"{width}x{height}" for height, width in sizes)
        raise InvalidInput(
            f"this model draws no pictures of {size[1]}x{size[0]} (width x height)", f"It draws: {known}"
        )
    return size


def nearest_size(size: Size, sizes: Sequence[Size]) -> Size:
    """Of `sizes`, the one whose width over height is nearest to that of `size`; of several, the nearest.

    Of sizes of one shape only the first counts, which is the usual one.
    """
    by_shape: dict[float, Size] = {}
    for height, width in sizes:
        by_shape.setdefault(width / height, (height, width))
    shape = size[1] / size[0]

    def distance(ratio: float) -> tuple[float, int]:
        height, width = by_shape[ratio]
        return abs(ratio - shape), (size[0] - height) ** 2 + (size[1] - width) ** 2

    return by_shape[min(by_shape, key=distance)]


@dataclass(frozen=True)
class Fit:
    """Where a picture of the size `inner` stands in one of the size `outer`: as large as fits, centred."""

    inner: Size
    outer: Size

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, height, width) in pixels of `outer`."""
        # Whole numbers, so that the side that fills the size does so: a float times its inverse may be less.
        sides = zip(self.outer, self.inner, strict=True)
        outer, inner = min(sides, key=lambda pair: Fraction(*pair))
        height, width = (max(1, side * outer // inner) for side in self.inner)
        return (self.outer[0] - height) // 2, (self.outer[1] - width) // 2, height, width

    def put(self, pixels: Tensor) -> Tensor:
        """A picture [3, *inner] in [0, 1] as [3, *outer], white around it."""
        top, left, height, width = self.box
        whole = torch.ones(3, *self.outer)
        resized = resize(pixels, (height, width), PIL.Image.Resampling.LANCZOS)
        whole[:, top : top + height, left : left + width] = resized
        return whole

    def take(self, pixels: Tensor) -> Tensor:
        """The inverse: what stands at that place of a picture in [0, 1], [3, *inner].

        The picture may have another size than `outer`, in the same proportions.
        """
        top, left, height, width = Fit(self.inner, (pixels.shape[1], pixels.shape[2])).box
        inside = pixels[:, top : top + height, left : left + width]
        return resize(inside, self.inner, PIL.Image.Resampling.LANCZOS)


def to_read(pixels: Tensor, config: IllumeConfig) -> Tensor:
    """A picture [3, h, w] in [0, 1] as the model reads it to talk about it: [3, H, W] in [-1, 1].

    A model of a single size has seen no other: there the picture is put into that one, as for editing.
    """
    size = (pixels.shape[1], pixels.shape[2])
    if len(config.sizes) == 1:
        return signed(Fit(size, config.sizes[0]).put(pixels))
    return signed(resize(pixels, size_to_read(size, config.factor), PIL.Image.Resampling.BICUBIC))


def resize(pixels: Tensor, size: Size, resampling: PIL.Image.Resampling) -> Tensor:
    """A picture [3, h, w] in [0, 1] in another size, rounded to 8 bits; one of that size is only rounded."""
    picture = _picture(to_bytes8(pixels, "a picture"))
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), resampling)
    return from_raw(picture.tobytes(), *size, 3).div(255.0)


def signed(pixels: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1]."""
    return pixels * 2.0 - 1.0


def _picture(values: Tensor) -> PIL.Image.Image:
    """uint8 [h, w, 3] as Pillow has it; filled by torch itself, which needs no NumPy for it."""
    buffer = bytearray(values.numel())
    torch.frombuffer(buffer, dtype=torch.uint8).view(values.shape).copy_(values)
    return PIL.Image.frombytes("RGB", (values.shape[1], values.shape[0]), bytes(buffer))
