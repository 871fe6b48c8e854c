"""Pre-norm causal transformer layers that run over a whole sequence or one token at a time.

One-token steps read and write a `KVCache` that is allocated once for a whole generation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Up to this many tokens, training on a CPU multiplies the attention matrix out: the fused kernel's backward
#: pass costs more there than all the other work of a layer (1.6 times the whole step at 64 tokens).
SHORT_SEQUENCE = 256


def _explicit_causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    weights = logits.masked_fill(future, float("-inf")).softmax(-1)
    return torch.matmul(weights.to(v.dtype), v)


@dataclass(frozen=True)
class KVCache:
    """Keys and values of one layer, [batch, heads, capacity, head_dim] each."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, capacity: int, head_dim: int, like: Tensor) -> KVCache:
        """Allocate on the device and in the dtype of `like`; the content is undefined until written."""
        shape = (batch, heads, capacity, head_dim)
        return cls(like.new_empty(shape), like.new_empty(shape))


class CausalSelfAttention(nn.Module):
    """Norm, fused query/key/value projection, softmax(q k / sqrt(head_dim)) v, output projection.

    Rows of `qkv` are all queries, all keys, all values, each head after head.
    """

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"channels ({channels}) must be a multiple of head_dim ({head_dim})")
        self.heads = channels // head_dim
        self.head_dim = head_dim
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(n, t, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _merge(self, attended: Tensor) -> Tensor:
        merged: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return merged

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, channels] -> the same shape; token i sees tokens 0..i."""
        q, k, v = self._heads(x)
        if torch.is_grad_enabled() and x.device.type == "cpu" and x.shape[1] <= SHORT_SEQUENCE:
            return self._merge(_explicit_causal_attention(q, k, v))
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, x: Tensor, cache: KVCache, position: int, query_scale: Tensor | None) -> Tensor:
        """One token [n, 1, channels] at `position`; its key and value are written to the cache.

        `query_scale` [n, 1, 1, 1] multiplies the attention logits of each row (the inverse temperature).
        """
        q, k, v = self._heads(x)
        if query_scale is not None:
            q = q * query_scale
        cache.keys[:, :, position : position + 1] = k
        cache.values[:, :, position : position + 1] = v
        keys, values = cache.keys[:, :, : position + 1], cache.values[:, :, : position + 1]
        return self._merge(F.scaled_dot_product_attention(q, keys, values))


class FeedForward(nn.Module):
    """Norm, expansion, exact GELU, contraction."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, channels * expansion)
        self.down = nn.Linear(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.down(F.gelu(self.up(self.norm(x))))
        return contracted


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each added to the residual stream."""

    def __init__(self, channels: int, head_dim: int, expansion: int) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(channels, head_dim)
        self.feedforward = FeedForward(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return torch.add(x, self.feedforward(x))

    def step(self, x: Tensor, cache: KVCache, position: int, query_scale: Tensor | None = None) -> Tensor:
        """One token, see `CausalSelfAttention.step`."""
        x = x + self.attention.step(x, cache, position, query_scale)
        return torch.add(x, self.feedforward(x))
