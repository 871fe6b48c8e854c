"""Inter-layer attention: how the layers of a picture see each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_layerdiff.config import Exchange


@dataclass(frozen=True)
class Stack:
    """How rows of features make pictures: `layers` rows after each other are one, background first.

    present: bool [pictures, layers], False for rows that only fill up a picture of fewer layers; None is all.
    exchange: False keeps the layers from seeing each other.
    """

    layers: int
    present: Tensor | None = None
    exchange: bool = True


class InterLayerAttention(nn.Module):
    """Attention between the layers of a picture, at equal positions ("column") or at all of them ("joint").

    A learned vector for each layer tells queries and keys which layer they are of. The output projection
    starts at zero: a fresh network treats every layer by itself.
    """

    def __init__(self, channels: int, heads: int, kind: Exchange, most_layers: int, embedded: bool) -> None:
        super().__init__()
        self.heads = heads
        self.joint = kind == "joint"
        self.norm = nn.LayerNorm(channels)
        self.layer = nn.Embedding(most_layers, channels) if embedded else None
        self.qk = nn.Linear(channels, 2 * channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        if self.layer is not None:
            nn.init.normal_(self.layer.weight, std=0.02)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, stack: Stack) -> Tensor:
        """What is added to x [pictures * layers, tokens, channels]."""
        rows, tokens, channels = x.shape
        pictures, layers = rows // stack.layers, stack.layers
        normed = self.norm(x).view(pictures, layers, tokens, channels)
        named = normed if self.layer is None else normed + self.layer.weight[:layers, None]
        queries, keys = self.qk(named).chunk(2, dim=-1)
        attended = self._attended(queries, keys, self.v(normed), stack.present)
        added: Tensor = self.out(attended)
        return added.view(rows, tokens, channels)

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        """[pictures, layers, tokens, channels] each, and so is the result."""
        pictures, layers, tokens, channels = queries.shape
        split = (pictures, layers, tokens, self.heads, channels // self.heads)
        if self.joint:
            parts = [part.view(split).flatten(1, 2).transpose(1, 2) for part in (queries, keys, values)]
            mask = None
            if present is not None:
                mask = present[:, :, None].expand(-1, -1, tokens).reshape(pictures, 1, 1, layers * tokens)
            attended = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask)
            return attended.transpose(1, 2).reshape(pictures, layers, tokens, channels)
        parts = [part.view(split).permute(0, 2, 3, 1, 4) for part in (queries, keys, values)]
        mask = None if present is None else present[:, None, None, None, :]
        attended = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask)
        return attended.permute(0, 3, 1, 2, 4).reshape(pictures, layers, tokens, channels)


def filled(counts: Tensor, layers: int) -> Tensor | None:
    """`Stack.present` for pictures of `counts` [pictures] layers; None where all have so many."""
    if bool((counts == layers).all()):
        return None
    return torch.arange(layers, device=counts.device) < counts[:, None]
