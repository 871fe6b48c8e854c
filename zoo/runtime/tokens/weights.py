"""How the weights of a language model lie for decoding on this machine, and what that takes.

A model of up to `KEEP_BYTES` is copied into the layouts that `zoo.runtime.decoding.plan` chooses for its
products, those of one input joined. A larger one is decoded from its weights as they are: there every step
takes as long as reading them, and a copy would need as much memory again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from zoo.nn.cached_language_model import READ_AT_ONCE, CachedLanguageModel
from zoo.nn.kv_cache import cache_bytes
from zoo.nn.language_model import LanguageModel, LanguageModelConfig
from zoo.nn.products import Layout, Product, product
from zoo.runtime import memory
from zoo.runtime.decoding.plan import (
    COLUMN_ROWS,
    KEEP_BYTES,
    Plan,
    cache_dtype,
    choose,
    computed_dtype,
)


@dataclass(frozen=True)
class WeightPlan:
    """What `plan_weights` decided."""

    layouts: Plan
    copied: bool  #: whether the weights are copied, and products of one input joined

    @property
    def cache_dtype(self) -> torch.dtype:
        """Number format of keys and values."""
        return self.layouts.cache_dtype

    def layout_of(self, linear: nn.Linear) -> Layout:
        """The layout of one product's weights."""
        if self.copied:
            return self.layouts.layout_of(linear)
        weight = linear.weight
        few = weight.device.type == "cpu" and self.layouts.rows in COLUMN_ROWS
        return "columns" if few and weight.dtype == torch.float32 else "rows"

    def make(self, linear: nn.Linear) -> Product:
        """The product of a linear."""
        layout = self.layout_of(linear)
        dtype = self.layouts.dtype_of(linear) if self.copied else self.layouts.dtype
        return product(linear, layout, dtype, keep=False)

    def decoder(self, model: LanguageModel) -> CachedLanguageModel:
        """The model, ready to decode."""
        return CachedLanguageModel(model, self.make, self.copied, self.cache_dtype)


def plan_weights(model: LanguageModel, rows: int) -> WeightPlan:
    """The plan for steps of so many rows: samples, twice where both branches of guidance run."""
    weight = model.head_weight
    whole = memory.weight_bytes(model, weight.dtype)
    heaviest = memory.heaviest(model.layers, weight.dtype)
    layouts = choose(weight.device, rows, weight.dtype, heaviest, whole)
    return WeightPlan(layouts, copied=whole <= KEEP_BYTES)


def decoding_bytes(
    config: LanguageModelConfig,
    rows: int,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    weight_bytes: int,
) -> int:
    """Bytes that decoding takes beside the weights: the cache, prompts being read or a token being chosen,
    and copies of the weights of small models and of those that are computed with in another format.

    tokens: of the longest row, prompt and answer. dtype, weight_bytes: of the weights.
    """
    sizes = config.num_hidden_layers, rows, config.num_key_value_heads, tokens, config.head_dim
    cached, computed = cache_dtype(dtype, device), computed_dtype(dtype, device)
    # Scores, their sorted copy and its order, probabilities and their sum in float64.
    choosing = rows * config.vocab_size * (4 + 4 + 8 + 4 + 8)
    # Of a token, at the widest place of a layer: gate, up, their product, and the residual stream.
    reading = max(tokens, min(rows * tokens, READ_AT_ONCE)) * cached.itemsize
    reading *= 3 * config.intermediate_size + 4 * config.hidden_size
    in_format = weight_bytes * computed.itemsize // dtype.itemsize
    copies = 2 * in_format if weight_bytes <= KEEP_BYTES else in_format if computed != dtype else 0
    return cache_bytes(*sizes, cached) + max(choosing, reading) + copies
