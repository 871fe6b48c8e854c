"""Parts of the pixel branch's encoder and decoder; in the decoder every norm also reads the codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.residual import activated


class Norm(nn.GroupNorm):
    """A group norm, called as a `SpatialNorm` is."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """[n, channels, h, w] -> the same shape, in memory of its own."""
        return super().forward(x)


class SpatialNorm(nn.Module):
    """A group norm, scaled and shifted at each position by what the codes say there (arXiv 2209.09002).

    Codes stand for squares of positions. The maps of scale and shift are made once for a square and spread
    as they are applied: a 1x1 convolution and repetition commute.
    """

    def __init__(self, channels: int, groups: int, code_channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels, groups)
        self.scale = nn.Conv2d(code_channels, channels, 1)
        self.shift = nn.Conv2d(code_channels, channels, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """x [n, channels, s * h, s * w] and codes [n, code_channels, h, w] -> the shape of x."""
        rows, columns = codes.shape[-2:]
        side = x.shape[-1] // columns
        scale, shift = (made(codes)[:, :, :, None, :, None] for made in (self.scale, self.shift))
        squares = self.norm(x).unflatten(3, (columns, side)).unflatten(2, (rows, side))
        return torch.addcmul(shift, squares, scale).reshape(x.shape)


def norm_of(channels: int, groups: int, code_channels: int) -> Norm | SpatialNorm:
    """A plain norm where no codes are read."""
    return SpatialNorm(channels, groups, code_channels) if code_channels else Norm(channels, groups)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, added to the input."""

    def __init__(self, inputs: int, outputs: int, groups: int, code_channels: int) -> None:
        super().__init__()
        self.norm_in = norm_of(inputs, groups, code_channels)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm_out = norm_of(outputs, groups, code_channels)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, codes: Tensor | None) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h, w]."""
        hidden = self.conv_in(activated(self.norm_in(x, codes)))
        hidden = self.conv_out(activated(self.norm_out(hidden, codes)))
        return torch.add(hidden, x if self.shortcut is None else self.shortcut(x))


class Attention(nn.Module):
    """Attention of all positions to each other with a single head, added to the input."""

    def __init__(self, channels: int, groups: int, code_channels: int) -> None:
        super().__init__()
        self.norm = norm_of(channels, groups, code_channels)
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, codes: Tensor | None) -> Tensor:
        """[n, channels, h, w] -> the same shape."""
        positions = self.norm(x, codes).flatten(2).transpose(1, 2)
        queries, keys, values = (part(positions).unsqueeze(1) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(queries, keys, values).squeeze(1)
        return torch.add(x, self.out(attended).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half the resolution: squares of four positions, convolved, become channels; their mean is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, 2h, 2w] -> [n, c, h, w]."""
        return torch.add(F.pixel_unshuffle(self.conv(x), 2), F.avg_pool2d(x, 2))


class Upsample(nn.Module):
    """Twice the resolution: convolved channels become squares of four positions; the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, 2h, 2w]."""
        return torch.add(F.pixel_shuffle(self.conv(x), 2), F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, with attention behind each or none, and a change of resolution."""

    def __init__(
        self,
        inputs: list[int],
        width: int,
        groups: int,
        code_channels: int = 0,
        attends: bool = False,
        resample: Downsample | Upsample | None = None,
    ) -> None:
        """`inputs` are the widths that the blocks read; no `code_channels` are plain norms."""
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(read, width, groups, code_channels) for read in inputs)
        self.attention = nn.ModuleList(
            Attention(width, groups, code_channels) for _ in range(len(inputs) if attends else 0)
        )
        self.resample = resample

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """[n, first input, h, w] -> [n, width, h', w']."""
        for index, block in enumerate(self.blocks):
            x = block(x, codes)
            if self.attention:
                x = self.attention[index](x, codes)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Module):
    """The coarsest resolution: residual block, attention, residual block."""

    def __init__(self, width: int, groups: int, code_channels: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, width, groups, code_channels) for _ in range(2))
        self.attention = nn.ModuleList([Attention(width, groups, code_channels)])

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """[n, width, h, w] -> the same shape."""
        x = self.attention[0](self.blocks[0](x, codes), codes)
        through: Tensor = self.blocks[1](x, codes)
        return through
