"""The vision transformer of Qwen2-VL (arXiv 2409.12191), and the blocks that it shares with the tokenizer.

A batch holds pictures of one size, so attention within each picture is attention within each row: no mask.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InvalidInput
from zoo.nn.rotary import rotary_angles, rotate
from zoo.nn.spatial_attention import split_heads
from zoo_illume.config import VisionConfig
from zoo_illume.patches import block_positions, normalised, patch_rows
from zoo_illume.sizes import semantic_size

#: Cosines and signed sines of the angles by which queries and keys are turned, as `zoo.nn.rotary` has them.
Rotation = tuple[Tensor, Tensor]


def rotation(positions: Tensor, head_dim: int, base: float = 10000.0) -> Rotation:
    """Rotary angles of (row, column) positions [tokens, 2]: the first half of a head's angles is the row's.

    Frequencies fall from 1 towards 1 / base, the same for rows and columns.
    """
    cosines, sines = rotary_angles(positions, head_dim // 2, base)
    return cosines.transpose(1, 2).flatten(2), sines.transpose(1, 2).flatten(2)


def rotated(x: Tensor, by: Rotation) -> Tensor:
    """Heads [n, heads, tokens, head_dim], turned in float32."""
    return rotate(x.float(), *by).to(x.dtype)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return x * (1.702 * x).sigmoid()


def check_pictures(images: Tensor) -> None:
    """Raise `InvalidInput` for what is not [n, 3, height, width] of floating-point numbers."""
    if images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InvalidInput(f"pictures have shape {list(images.shape)}, expected [n, 3, height, width]")
    if not images.is_floating_point():
        raise InvalidInput(f"pictures are {images.dtype}, expected floating-point numbers in [-1, 1]")


def widest_looking(config: VisionConfig, pixels: int) -> int:
    """Numbers that the transformer holds at its widest place while it looks at so many pixels."""
    # A block's input, its norm, and what is three or `expansion` times as wide, with its activation.
    return pixels // config.patch**2 * config.width * (2 + 2 * max(config.expansion, 3))


class Block(nn.Module):
    """Pre-norm attention with rotary positions and a feed-forward."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor, positions: Rotation) -> Tensor:
        """[n, tokens, width] -> the same shape; every token of a row sees all of its row."""
        queries, keys, values = split_heads(self.qkv(self.attention_norm(x)), 3, self.heads)
        queries, keys = rotated(queries, positions), rotated(keys, positions)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        added: Tensor = self.down(quick_gelu(self.up(self.feedforward_norm(x))))
        return x + added


class Merger(nn.Module):
    """The features of each block of patches, one after the other, to a single one."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        joined = config.width * config.merge**2
        self.joined = joined
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.up = nn.Linear(joined, joined)
        self.down = nn.Linear(joined, config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, patches, width] -> [n, patches / merge^2, out_channels]."""
        merged: Tensor = self.down(F.gelu(self.up(self.norm(x).reshape(len(x), -1, self.joined))))
        return merged


class VisionTransformer(nn.Module):
    """Pictures to a feature for each cell of merge x merge patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(3 * config.frames * config.patch**2, config.width, bias=False)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.expansion) for _ in range(config.depth)
        )
        self.merger = Merger(config)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the features of a picture of this size."""
        rows, columns = semantic_size(height, width, self.config.cell)
        return rows // self.config.cell, columns // self.config.cell

    def patches(self, images: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [-1, 1] of any size to the rows that the first layer reads, float32.

        `zoo_illume.patches.patch_rows` gives their shape and order; pictures are resized to whole cells.
        """
        config = self.config
        pixels = normalised(images, semantic_size(images.shape[-2], images.shape[-1], config.cell))
        return patch_rows(pixels, config.patch, config.merge, config.frames)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [-1, 1] -> features [n, rows * columns, out_channels] of their `grid`.

        Features run left to right, top to bottom.
        """
        config = self.config
        rows, columns = self.grid(images.shape[-2], images.shape[-1])
        x: Tensor = self.embed(self.patches(images).to(self.embed.weight.dtype))
        order = block_positions(rows * config.merge, columns * config.merge, config.merge, images.device)
        positions = rotation(order, config.width // config.heads)
        for block in self.blocks:
            x = block(x, positions)
        merged: Tensor = self.merger(x)
        return merged
