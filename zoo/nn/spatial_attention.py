"""Attention of an image's positions to each other and to a text, for UNets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Keys and values of a text, each [n, heads, tokens, head_dim].
KeysValues = tuple[Tensor, Tensor]


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[n, tokens, parts * channels] to `parts` tensors [n, heads, tokens, channels / heads].

    Channels run part after part, and within a part head after head.
    """
    n, tokens, _ = x.shape
    return x.view(n, tokens, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class SpatialAttention(nn.Module):
    """Self-attention and, where there is a text, cross-attention to it, then an optional feed-forward.

    Both attentions share the queries. They are two softmaxes whose results are added before the output
    projection, so that the text cannot be drowned by a large image. Output projections start at zero.
    """

    def __init__(
        self, channels: int, heads: int = 8, groups: int = 32, text_dim: int = 0, expansion: int = 0
    ) -> None:
        """`text_dim` is the width of the text's features, 0 for none; `expansion` 0 leaves out the
        feed-forward.
        """
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.text_norm = nn.LayerNorm(text_dim) if text_dim else None
        self.text_kv = nn.Linear(text_dim, 2 * channels) if text_dim else None
        self.out = nn.Linear(channels, channels)
        self.feedforward = PositionwiseFeedForward(channels, groups, expansion) if expansion else None
        _start_at_zero(self.out)

    def keys_values(self, text: Tensor) -> KeysValues | None:
        """The text's keys and values from its features [n, tokens, text_dim]; None for a layer without text.

        They depend neither on the image nor on time: compute them once for a whole run.
        """
        if self.text_norm is None or self.text_kv is None:
            return None
        keys, values = split_heads(self.text_kv(self.text_norm(text)), 2, self.heads)
        return keys, values

    def forward(self, x: Tensor, text: KeysValues | None = None, mask: Tensor | None = None) -> Tensor:
        """x [n, channels, h, w] to the same shape.

        text: what `keys_values` returned.
        mask: bool, of a shape that extends to [n, heads, h * w, text tokens]; False positions of the text
            are not attended.
        """
        queries, keys, values = split_heads(self.qkv(_positions(self.norm(x))), 3, self.heads)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        if text is not None:
            attended = attended + F.scaled_dot_product_attention(queries, *text, attn_mask=mask)
        merged = self.out(attended.transpose(1, 2).flatten(2))
        x = x + _image(merged, x)
        return x if self.feedforward is None else x + self.feedforward(x)


class PositionwiseFeedForward(nn.Module):
    """Group norm, expansion, exact GELU, contraction, at every position of an image alone."""

    def __init__(self, channels: int, groups: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.up = nn.Linear(channels, expansion * channels)
        self.down = nn.Linear(expansion * channels, channels)
        _start_at_zero(self.down)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> the same shape."""
        return _image(self.down(F.gelu(self.up(_positions(self.norm(x))))), x)


def _positions(image: Tensor) -> Tensor:
    """[n, c, h, w] -> [n, h * w, c]; a view, and contiguous for an image in channels-last layout."""
    return image.flatten(2).transpose(1, 2)


def _image(positions: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_positions`."""
    return positions.transpose(1, 2).reshape(*like.shape[:1], -1, *like.shape[2:])


def _start_at_zero(linear: nn.Linear) -> None:
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
