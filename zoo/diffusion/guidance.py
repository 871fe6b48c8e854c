"""Classifier-free guidance (arXiv 2207.12598)."""

from __future__ import annotations

import torch
from torch import Tensor


def guided(doubled: Tensor, weight: float) -> Tensor:
    """u + weight (c - u) of a doubled batch [2n, ...], whose first half u is unconditional: [n, ...].

    A weight of 1 gives the conditional half itself, 0 the unconditional one.
    """
    unconditional, conditional = doubled.chunk(2)
    return torch.lerp(unconditional, conditional, weight)
