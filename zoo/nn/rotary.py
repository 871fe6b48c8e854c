"""Rotary positions: pairs of features turned by angles that grow with the position (arXiv 2104.09864).

Feature i of a head is paired with feature i + head_dim / 2, as in the checkpoints of the Llama family.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines [..., 1, head_dim / 2] and signed sines [..., 2, head_dim / 2] of positions [...], float32.

    The signs are those that `rotate` needs for the two halves.
    """
    index = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions.to(torch.float32)[..., None] * theta ** (-index / head_dim)
    sines = angles.sin()
    return angles.cos().unsqueeze(-2), torch.stack([-sines, sines], dim=-2)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x [..., head_dim], each pair of features turned; the angles broadcast as `rotary_angles` has them."""
    halves = x.view(*x.shape[:-1], 2, x.shape[-1] // 2)
    return torch.addcmul(halves * cosines, halves.flip(-2), sines).flatten(-2)
