"""From float pixels to bytes and from bytes to float pixels: one rule for every kind of artifact."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ZooError


def to_bytes8(pixels: Tensor, what: str = "the picture") -> Tensor:
    """Return uint8 [h, w, c], contiguous, of float [c, h, w]: floor(255 x + 0.5), clamped to [0, 255].

    Raises ZooError that names `what` when a value is not finite, because such a pixel has no colour.
    """
    pixels = pixels.detach()
    if not bool(pixels.isfinite().all()):
        count = int((~pixels.isfinite()).sum())
        raise ZooError(
            f"{what} has {count} of {pixels.numel()} values that are not finite",
            hint="The model overflowed; float32 has a wider range than half precision.",
        )
    scaled = pixels.permute(1, 2, 0).mul(255.0).add_(0.5).clamp_(0.0, 255.0)
    return scaled.to(torch.uint8).contiguous()


def from_raw(data: bytes, height: int, width: int, channels: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Return float32 [channels, h, w] with the raw values of `data`, in which each pixel's are together."""
    # A bytearray, because torch warns about buffers that cannot be written to.
    values = torch.frombuffer(bytearray(data), dtype=dtype).view(height, width, channels)
    return values.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
