"""TarFlow's sampler as one writes it first: the baseline of `tarflow_sampling.py`, and a truth for tests.

Every layer keeps a list of keys and one of values and concatenates each at every token. Guidance is a second
pass per token, with lists of its own. Modules are called as they are, and nothing is prepared per run but the
class vectors. Arithmetic is done in whatever dtype the network returns, so that under
`torch.autocast(..., torch.bfloat16)` the error is that of the authors' way to sample (arXiv 2412.06329): a
residual stream in float32 between products in bfloat16, and guidance and scales in bfloat16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.nn.transformer import CausalSelfAttention
from zoo_tarflow.model import FlowBlock, TarFlow
from zoo_tarflow.sampler import TarFlowOptions

#: What one layer has seen: keys and values [n, heads, 1, head_dim], one for each token.
LayerCache = tuple[list[Tensor], list[Tensor]]


class Branch:
    """One of guidance's two views of a block: its class vector, its attention temperature and its cache."""

    def __init__(self, block: FlowBlock, labels: Tensor | None, temperature: float = 1.0) -> None:
        self.block = block
        self.vector = block.class_vector(labels)
        self.temperature = temperature
        self.caches: list[LayerCache] = [([], []) for _ in block.layers]

    def __call__(self, token: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Read the next token [n, 1, features], its position [1, width]: the (alpha, mu) of the one after."""
        hidden = self.block.project_in(token) + position
        if self.vector is not None:
            hidden = hidden + self.vector[:, None]
        for layer, cache in zip(self.block.layers, self.caches, strict=True):
            hidden = hidden + attend(layer.attention, hidden, cache, self.temperature)
            hidden = hidden + layer.feedforward(hidden)
        projected = self.block.project_out(hidden)
        if not self.block.nvp:
            return torch.zeros_like(projected), projected
        alpha, mu = projected.chunk(2, dim=-1)
        return alpha, mu


def attend(attention: CausalSelfAttention, hidden: Tensor, cache: LayerCache, temperature: float) -> Tensor:
    """Attention of the newest token [n, 1, width] to all so far; the logits are divided by `temperature`."""
    n, _, width = hidden.shape
    qkv = attention.qkv(attention.norm(hidden)).view(n, 3, attention.heads, 1, attention.head_dim)
    query, key, value = qkv.unbind(1)
    keys, values = cache
    keys.append(key)
    values.append(value)
    scale = attention.head_dim**-0.5 / temperature
    attended = F.scaled_dot_product_attention(
        query, torch.cat(keys, dim=2), torch.cat(values, dim=2), scale=scale
    )
    merged: Tensor = attention.out(attended.transpose(1, 2).reshape(n, 1, width))
    return merged


def invert_block(block: FlowBlock, z: Tensor, labels: Tensor | None, options: TarFlowOptions) -> Tensor:
    """Undo one block: z [n, tokens, features] -> x of the same shape."""
    x = block.in_order(z).clone()
    positions = block.in_order(block.position, 0)
    last = x.shape[1] - 1
    conditional, unconditional = Branch(block, labels), None
    if options.guidance > 0 and options.guide:
        unconditional = Branch(block, None, options.attention_temperature)
    for i in range(last):
        token, position = x[:, i : i + 1], positions[i : i + 1]
        alpha, mu = conditional(token, position)
        if unconditional is not None:
            weight = options.guidance * ((i + 1) / last if options.anneal else 1.0)
            null_alpha, null_mu = unconditional(token, position)
            if "a" in options.guide:
                alpha = alpha + weight * (alpha - null_alpha)
            if "b" in options.guide:
                mu = mu + weight * (mu - null_mu)
        scale = alpha.float().exp().to(alpha.dtype)
        x[:, i + 1] = x[:, i + 1] * scale[:, 0] + mu[:, 0]
    return block.in_order(x)


@torch.no_grad()
def invert(model: TarFlow, latents: Tensor, labels: Tensor | None, options: TarFlowOptions) -> Tensor:
    """Noise [n, tokens, features] and labels [n], or None, to images [n, c, h, w].

    The noise is left as it is. Of the options, guidance, guide, anneal and attention_temperature are heeded.
    """
    x = latents * model.prior_variance.sqrt()
    for block in reversed(model.blocks):
        x = invert_block(block, x, labels, options)
    return model.unpatchify(x)
