"""Layers that a network reads a text with, behind its text encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.spatial_attention import split_heads


class TextLayer(nn.Module):
    """A pre-norm transformer layer over the tokens of a text, whose output projections start at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        for linear in (self.out, self.down):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[n, tokens, width] -> the same shape; mask bool [n, 1, 1, tokens], None attends to everything."""
        queries, keys, values = split_heads(self.qkv(self.norm(x)), 3, self.heads)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        added: Tensor = self.down(F.gelu(self.up(self.feedforward_norm(x))))
        return x + added
