"""The text side: the layers' prompts, what the global one adds to them, and what attention reads of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.spatial_attention import split_heads
from zoo.nn.text_layers import TextLayer
from zoo_layerdiff.blocks import BlockTexts, TextMasks
from zoo_layerdiff.config import LayerDiffConfig
from zoo_layerdiff.exchange import Stack

#: Gain of queries and of keys where the enhancer starts: with it most of a word's attention goes to its like.
SHARPNESS = 1.5


@dataclass(frozen=True)
class PromptFeatures:
    """What a text encoder made of the prompts of some pictures.

    shared: [pictures, tokens, text_dim] of the global prompts; own: [pictures, layers, tokens, text_dim] of
    the layers' prompts. shared_valid and own_valid: 1 for tokens and 0 for padding, without the last
    dimension; None is no padding. present: see `Stack`.
    """

    shared: Tensor
    own: Tensor
    shared_valid: Tensor | None = None
    own_valid: Tensor | None = None
    present: Tensor | None = None


@dataclass(frozen=True)
class Condition:
    """What the network knows of its prompts: made once, for all steps.

    vector: [rows, embedding], added to the time embedding; None where nothing is. blocks: the texts of every
    collaborative block in the order of the network. Rows are pictures times layers.
    """

    stack: Stack
    vector: Tensor | None
    blocks: tuple[BlockTexts, ...]
    masks: TextMasks


class PromptPathway(nn.Module):
    """Features of a text encoder to what the network's attention reads.

    Every text goes through a projection and layers of its own where the configuration has them. Then the
    layer-specific prompt enhancer adds the context of the global prompt to each layer's.
    """

    def __init__(self, config: LayerDiffConfig) -> None:
        super().__init__()
        width = config.text_width
        self.projection = nn.Linear(config.text_dim, width) if config.text_projection else None
        self.layers = nn.ModuleList(TextLayer(width, config.heads) for _ in range(config.text_layers))
        self.enhancer = nn.ModuleList(
            PromptEnhancer(width, config.heads, config.enhancer_gate) for _ in range(config.enhancer_layers)
        )
        self.pooled = nn.Linear(width, config.embedding, bias=False) if config.text_pooling else None

    def read(self, features: Tensor, valid: Tensor | None) -> Tensor:
        """Features [texts, tokens, text_dim] of single texts -> [texts, tokens, width]."""
        x = features if self.projection is None else self.projection(features)
        mask = attended(valid)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, prompts: PromptFeatures) -> tuple[Tensor, Tensor, Tensor | None]:
        """(the layers' texts [rows, tokens, width], the global ones [pictures, tokens, width], a vector)."""
        pictures, layers, tokens, _ = prompts.own.shape
        own_valid = None if prompts.own_valid is None else prompts.own_valid.flatten(0, 1)
        shared = self.read(prompts.shared, prompts.shared_valid)
        own = self.read(prompts.own.flatten(0, 1), own_valid)
        # The tokens of all layers of a picture ask at once: they read the same global prompt.
        asking = own.view(pictures, layers * tokens, -1)
        mask = attended(prompts.shared_valid)
        for enhancer in self.enhancer:
            asking = enhancer(asking, shared, mask)
        own = asking.view(pictures * layers, tokens, -1)
        vector = None if self.pooled is None else self.pooled(_mean(own, own_valid))
        return own, shared, vector


class PromptEnhancer(nn.Module):
    """One layer of the layer-specific prompt enhancer: E_i + g FF(attention of E_i to E_global).

    Where the gate g starts at zero, every layer's prompt is its own text alone. Queries and keys start as the
    same orthogonal map, and the output as the inverse of the values': a word of a layer's prompt finds the
    same words in the global one, and takes from there what they mean in its sentence. From random maps this
    is not learned in any reasonable time.
    """

    def __init__(self, width: int, heads: int, gate: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.global_norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.gate = nn.Parameter(torch.tensor(gate))
        nn.init.orthogonal_(self.q.weight, gain=SHARPNESS)
        nn.init.orthogonal_(self.out.weight)
        with torch.no_grad():
            self.kv.weight.copy_(torch.cat([self.q.weight, self.out.weight.T]))
            for linear in (self.q, self.kv, self.out):
                linear.bias.zero_()

    def forward(self, own: Tensor, shared: Tensor, mask: Tensor | None) -> Tensor:
        """own [pictures, layers * tokens, width], shared [pictures, tokens, width] -> own's shape."""
        (queries,) = split_heads(self.q(self.norm(own)), 1, self.heads)
        keys, values = split_heads(self.kv(self.global_norm(shared)), 2, self.heads)
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        context = self.out(found.transpose(1, 2).flatten(2))
        context = context + self.down(F.gelu(self.up(self.feedforward_norm(own + context))))
        return torch.add(own, self.gate * context)


def attended(valid: Tensor | None) -> Tensor | None:
    """The mask of attention to texts [texts, tokens]: bool [texts, 1, 1, tokens]."""
    return None if valid is None else valid.bool()[:, None, None]


def for_layers(of_pictures: Tensor, layers: int) -> Tensor:
    """[pictures, ...] to [rows, ...]: each picture's entry for each of its layers."""
    return of_pictures.repeat_interleave(layers, dim=0)


def _mean(features: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return features.mean(dim=1)
    weights = valid.to(features.dtype)[:, :, None]
    return (features * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
