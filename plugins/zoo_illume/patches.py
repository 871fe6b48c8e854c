"""Pictures as the vision transformer reads them: resized, normalised, cut into rows of patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Mean and standard deviation of CLIP's training pictures in [0, 1], by channel.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def normalised(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [n, 3, h, w] in [-1, 1] to float32 [n, 3, *size], bicubic with antialias, in CLIP's units."""
    pixels = (images.float() + 1.0) * 0.5
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (pixels.clamp(0.0, 1.0) - mean) / deviation


def patch_rows(images: Tensor, patch: int, merge: int, frames: int) -> Tensor:
    """Images [n, c, h, w] to rows [n, (h/patch)(w/patch), c * frames * patch * patch].

    Rows run block after block of merge x merge patches, and inside a block patch after patch, both left to
    right, top to bottom. Features run channel, frame, row, column, all frames being the picture.
    """
    n, channels, height, width = images.shape
    across, down = width // (merge * patch), height // (merge * patch)
    cut = images.reshape(n, channels, down, merge, patch, across, merge, patch)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)
    repeated = cut.unsqueeze(6).expand(*cut.shape[:6], frames, patch, patch)
    return repeated.reshape(n, down * across * merge**2, channels * frames * patch**2)


def block_positions(rows: int, columns: int, merge: int, device: torch.device | None = None) -> Tensor:
    """(row, column) of every patch in the order of `patch_rows`: int64 [rows * columns, 2].

    With `merge` 1 the order is plain: left to right, top to bottom.
    """
    grid = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
    blocks = grid.reshape(rows // merge, merge, columns // merge, merge, 2)
    return blocks.transpose(1, 2).reshape(rows * columns, 2)
