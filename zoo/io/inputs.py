"""Pictures that a request gives to a model: to be read, changed or continued."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InvalidInput

#: How far outside of [0, 1] rounding may take a value; it is clamped.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class InputImage:
    """A picture that goes into a model.

    pixels: float32 RGB [3, h, w] in [0, 1] on the CPU, or a stack of RGBA layers [layers, 4, h, w]; grey
        [1, h, w] becomes RGB.
    source: the path that it was read from, as it was given; None for what a program made.

    Raises InvalidInput for any other shape, number format or range.
    """

    pixels: Tensor = field(repr=False)
    source: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Tensor):
            raise InvalidInput(f"a picture is {self.pixels!r}, expected a tensor or an InputImage")
        object.__setattr__(self, "pixels", _checked(self.pixels.detach().cpu()))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> InputImage:
        """The picture in a file, as `zoo.io.images.read_image` reads it; raises InvalidInput as that does."""
        # Imported here because Pillow is only needed by those who read a file.
        from zoo.io.images import read_image

        return cls(read_image(path), fspath(path))

    @cached_property
    def digest(self) -> str:
        """sha256, in hexadecimal, over the shape and the values in 8 bits: what a PNG file of it keeps."""
        values = bytearray(self.pixels.numel())
        # Filled by torch itself: tensor.numpy() needs NumPy.
        torch.frombuffer(values, dtype=torch.uint8).copy_(self.pixels.mul(255.0).add_(0.5).flatten())
        shape = "x".join(map(str, self.pixels.shape))
        return hashlib.sha256(f"{shape}:".encode() + values).hexdigest()

    @property
    def facts(self) -> dict[str, str | None]:
        """What a provenance tells of it: "sha256", its digest, and "path", where it was read from."""
        return {"sha256": self.digest, "path": self.source}


def _checked(pixels: Tensor) -> Tensor:
    """Pixels as an `InputImage` holds them."""
    shape = list(pixels.shape)
    flat, stack = pixels.dim() == 3 and shape[0] in (1, 3), pixels.dim() == 4 and shape[1] == 4
    if not (flat or stack) or 0 in shape:
        raise InvalidInput(f"a picture has shape {shape}, expected [3, h, w] or layers [n, 4, h, w]")
    if pixels.dtype != torch.float32:
        raise InvalidInput(f"a picture has values of {pixels.dtype}, expected torch.float32 in [0, 1]")
    least, most = (float(value) for value in pixels.aminmax())
    # Written so that "not a number", which compares with nothing, is refused too.
    if not (least >= -_ROUNDING and most <= 1.0 + _ROUNDING):
        raise InvalidInput(f"a picture has values from {least:g} to {most:g}, expected 0 to 1")
    if least < 0.0 or most > 1.0:
        pixels = pixels.clamp(0.0, 1.0)
    return pixels.expand(3, -1, -1) if shape[0] == 1 and flat else pixels


def input_images(given: Any) -> dict[str, tuple[InputImage, ...]]:
    """Pictures by role, as a request takes them, each role's as a tuple.

    given: role -> a picture or a sequence of pictures; a picture is an `InputImage` or the tensor of one.
    Raises InvalidInput for a role without a picture and for what is no picture.
    """
    if not isinstance(given, Mapping):
        raise InvalidInput(f"images are {given!r}, expected a mapping from roles to pictures")
    return {_checked_role(role): _pictures(role, pictures) for role, pictures in given.items()}


def _checked_role(role: Any) -> str:
    if not isinstance(role, str) or not role:
        raise InvalidInput(f"the role of a picture is {role!r}, expected a name such as 'image'")
    return role


def _pictures(role: str, given: Any) -> tuple[InputImage, ...]:
    several = isinstance(given, Sequence) and not isinstance(given, str)
    pictures = tuple(map(_picture, given if several else (given,)))
    if not pictures:
        raise InvalidInput(f"no picture was given as '{role}', expected at least one")
    return pictures


def _picture(given: Any) -> InputImage:
    return given if isinstance(given, InputImage) else InputImage(given)
