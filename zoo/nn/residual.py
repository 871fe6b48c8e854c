"""Convolutional residual blocks that a vector modulates, and changes of resolution, for UNets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, added to the input; the second norm is scaled and shifted.

    The scale (minus 1) and the shift are the two halves of a projection of the embedding (arXiv 2105.05233,
    section 3). The last convolution starts at zero, so that a fresh block passes its input on.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, groups: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = nn.GroupNorm(groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        nn.init.zeros_(self.conv_out.weight)
        if self.conv_out.bias is not None:
            nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [n, in_channels, h, w] and embedding [n, e] -> [n, out_channels, h, w].

        `embedding` is already activated: its SiLU is the same for every block of a network.
        """
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv_in(activated(self.norm_in(x)))
        hidden = activated(torch.addcmul(shift, self.norm_out(hidden), 1.0 + scale))
        hidden = self.conv_out(self.dropout(hidden))
        return torch.add(hidden, x if self.shortcut is None else self.shortcut(x))


def activated(fresh: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else uses: in its own memory where no gradient needs the argument."""
    return F.silu(fresh, inplace=not torch.is_grad_enabled())


class Downsample(nn.Module):
    """Half the resolution: a 3x3 convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, ceil(h/2), ceil(w/2)]."""
        halved: Tensor = self.conv(x)
        return halved


class Upsample(nn.Module):
    """Twice the resolution: every pixel four times, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, 2h, 2w]."""
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled
