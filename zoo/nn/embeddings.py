"""Embeddings of numbers that a network is told, such as the time of a diffusion process."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(values: Tensor, width: int, max_period: float = 10000.0) -> Tensor:
    """Sines, then cosines, of each value at `width / 2` geometrically spaced frequencies.

    values: [n], any dtype. Returns float32 [n, width]. Frequencies run from 1 towards 1 / max_period, which
    itself is not reached (arXiv 1706.03762, section 3.5, with the two halves not interleaved).
    """
    if width % 2:
        raise ValueError(f"width is {width}, expected an even number")
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[:, None] * torch.exp(index * (-math.log(max_period) / half))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_sinusoids(rows: int, columns: int, width: int) -> Tensor:
    """`sinusoids` of the row, then of the column, of every place of a grid: float32 [rows * columns, width].

    Places run left to right, top to bottom. The slowest turn by about a quarter over the longer side.
    """
    if width % 4:
        raise ValueError(f"width is {width}, expected a multiple of 4")
    period = 4.0 * max(rows, columns) / (2.0 * math.pi)
    of_rows, of_columns = (sinusoids(torch.arange(n), width // 2, period) for n in (rows, columns))
    return torch.cat([of_rows.repeat_interleave(columns, 0), of_columns.repeat(rows, 1)], dim=1)


class EmbeddingMLP(nn.Module):
    """Linear, SiLU, linear: from features of a number to a vector that conditions a network."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """[n, features] of any floating dtype -> [n, width] in the dtype of the weights."""
        embedded: Tensor = self.second(F.silu(self.first(features.to(self.first.weight.dtype))))
        return embedded
