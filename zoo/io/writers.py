"""Picture files: PNG, WebP and JPEG, with the provenance inside or without any trace of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.files import write_file
from zoo.io.kinds import chosen_format
from zoo.io.metadata import exif_metadata, png_metadata


@dataclass(frozen=True)
class Format:
    """A file format: its suffixes, Pillow's name and options for it, and its longest side in pixels."""

    suffixes: tuple[str, ...]
    pillow: str
    options: Mapping[str, Any]
    max_side: int


FORMATS: Mapping[str, Format] = {
    "png": Format(Image.formats["png"], "PNG", {}, max_side=2**31 - 1),
    "webp": Format(Image.formats["webp"], "WEBP", {"lossless": True}, max_side=16_383),
    "jpeg": Format(Image.formats["jpeg"], "JPEG", {"quality": 95, "subsampling": "4:4:4"}, max_side=65_500),
}

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# A JPEG segment's length is 16 bits wide and counts its own two bytes.
_MAX_JPEG_EXIF = 65_533


def save_image(
    image: Image,
    path: str | PathLike[str],
    format: str | None = None,
    metadata: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write `image` to `path` in one step and return the path.

    format: a name in FORMATS, or one of their suffixes; None takes it from the suffix of `path`.
    metadata: whether the provenance is written: PNG as iTXt text under "zoo", WebP and JPEG as JSON in the
    EXIF UserComment. False leaves no trace of it.

    PNG and WebP keep every 8-bit pixel; JPEG is lossy (quality 95, no chroma subsampling). Raises
    InvalidInput for an unknown format or what the format cannot hold, OutputExists for an existing file
    unless `overwrite`, and OutputNotWritable when the folder or the disk refuses.
    """
    name = format_name(path, format)
    _check_side(image, name)
    document = image.metadata() if metadata else None
    return write_file(path, encode(to_pillow(image.to_bytes8()), name, document), overwrite=overwrite)


def format_name(path: str | PathLike[str], format: str | None = None) -> str:
    """Return the key of FORMATS that `format` names, or else the suffix of `path`; InvalidInput if none."""
    return chosen_format(Image.formats, path, format, "picture")


def to_pillow(pixels: Tensor) -> PIL.Image.Image:
    """Return the Pillow image of uint8 [h, w, c], c = 4 (RGB and straight alpha), 3 (RGB) or 1 (grey)."""
    height, width, channels = pixels.shape
    # Filled by torch itself: tensor.numpy() needs NumPy, and reading a storage byte by byte takes seconds.
    buffer = bytearray(pixels.numel())
    torch.frombuffer(buffer, dtype=torch.uint8).view(pixels.shape).copy_(pixels)
    return PIL.Image.frombytes(_MODES[channels], (width, height), bytes(buffer))


def encode(picture: PIL.Image.Image, name: str, document: dict[str, Any] | None = None) -> bytes:
    """Return the file of a Pillow image in the format `name` of FORMATS, with a metadata document inside.

    The same pixels and document make the same bytes. Raises InvalidInput when the format cannot hold it.
    """
    output = io.BytesIO()
    options = dict(FORMATS[name].options)
    if document is not None:
        options.update(_metadata_options(name, document))
    picture.save(output, format=FORMATS[name].pillow, **options)
    return output.getvalue()


def _metadata_options(name: str, document: dict[str, Any]) -> dict[str, Any]:
    if name == "png":
        return {"pnginfo": png_metadata(document)}
    exif = exif_metadata(document)
    if name == "jpeg" and len(exif) > _MAX_JPEG_EXIF:
        raise InvalidInput(
            f"the metadata takes {len(exif)} bytes, and a JPEG file holds at most {_MAX_JPEG_EXIF}",
            hint="Write PNG or WebP, or leave the metadata out.",
        )
    return {"exif": exif}


def _check_side(image: Image, name: str) -> None:
    _, height, width = image.pixels.shape
    limit = FORMATS[name].max_side
    if max(height, width) > limit:
        raise InvalidInput(
            f"the picture is {width}x{height}, and {name} holds at most {limit} pixels a side",
            hint="Write PNG.",
        )
