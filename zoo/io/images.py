"""Reading a picture file into a tensor."""

from __future__ import annotations

from os import PathLike

import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.opening import BROKEN, open_picture
from zoo.io.pixels import from_raw

# Named one by one: Pillow also opens formats that start other programs (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def read_image(path: str | PathLike[str]) -> Tensor:
    """Return the picture at `path` as float32 [3, h, w] RGB in [0, 1] on the CPU.

    It is turned upright as its EXIF orientation says, transparent parts show white, and of an animation it is
    the first frame. Colour profiles are not applied. Raises InvalidInput when the file is missing, is not a
    PNG, JPEG, WebP, BMP, GIF, TIFF or PPM picture, is damaged, or has 32-bit pixels, whose range is unknown.
    """
    with open_picture(path, FORMATS) as picture:
        if picture.mode in ("I", "F"):
            raise InvalidInput(
                f"{path} has 32-bit pixels (mode {picture.mode}), whose range is unknown",
                hint="Convert it to 8 or 16 bits per channel.",
            )
        return _pixels(_upright(picture))


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(picture)
    except BROKEN:
        # Unreadable EXIF tells no orientation; the pixels are fine.
        return picture


def _pixels(picture: PIL.Image.Image) -> Tensor:
    if picture.mode.startswith("I;16"):
        # Converting 16-bit grey to RGB directly clips every value above 255.
        return _to_tensor(picture.convert("I"), torch.int32, 1).div(65535.0).expand(3, -1, -1).contiguous()
    if picture.has_transparency_data:
        values = _to_tensor(picture.convert("RGBA"), torch.uint8, 4).div(255.0)
        alpha = values[3:]
        return values[:3] * alpha + (1.0 - alpha)
    return _to_tensor(picture.convert("RGB"), torch.uint8, 3).div(255.0)


def _to_tensor(picture: PIL.Image.Image, dtype: torch.dtype, channels: int) -> Tensor:
    """Return float32 [channels, h, w] with the raw values."""
    return from_raw(picture.tobytes(), picture.height, picture.width, channels, dtype)
