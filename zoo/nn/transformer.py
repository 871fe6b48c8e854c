"""Pre-norm causal transformer layers over whole sequences; `zoo.nn.decoding` runs them token by token."""

from __future__ import annotations

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
