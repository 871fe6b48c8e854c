"""A `LanguageModel` token by token: many rows, one token of each per step, over a cache that stays in place.

Everything that a step needs is prepared once: queries, keys and values are one product, gate and up are one,
and the weights lie as suits the machine (`zoo.nn.products`). A layer is some twenty calls of torch, without
modules, concatenations or copies of caches. A step reads and writes the same tensors each time, so that it
can be captured once for a number of rows and a reach of attention. The residual stream is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zoo.nn.kv_cache import KVCache
from zoo.nn.language_model import LanguageModel, LanguageModelLayer
from zoo.nn.products import Product, as_dtype
from zoo.nn.rotary import rotary_angles, rotate

#: Makes the product of a linear.
MakeProduct = Callable[[nn.Linear], Product]

#: Tokens of prompts that are read together, unless a single prompt is longer: more would take memory and gain
#: no speed.
READ_AT_ONCE = 4096


def _stacked(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> nn.Linear:
    """Linears of one input as one, whose bias is zero where they have none; a single one is no copy."""
    linear = nn.Linear(weights[0].shape[1], sum(map(len, weights)), device="meta")
    filled = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    linear.bias = nn.Parameter(torch.cat(filled).detach(), requires_grad=False)
    return linear


class _Beside:
    """Products of one input, each with its own weights, the results side by side."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([product(x) for product in self._products], dim=-1)


class _Norm:
    """An RMS norm of rows in float32."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        width = norm.weight.numel()
        self.weight = norm.weight.detach().float()
        self.eps = float(norm.eps or 0.0)
        # sqrt(width) x / sqrt(sum of squares + width eps): four calls that take half as long as torch's own.
        self._scaled = self.weight * width**0.5
        self._floor = torch.tensor((width * self.eps) ** 0.5, device=self.weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return torch.rms_norm(x, self.weight.shape, self.weight, self.eps)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, self._floor)).mul_(self._scaled)


class _Layer:
    """One layer's weights, laid out for few rows."""

    def __init__(self, layer: LanguageModelLayer, make: MakeProduct, join: bool) -> None:
        attention, feedforward = layer.self_attn, layer.mlp
        self.norm, self.second_norm = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self.qkv = _products([attention.q_proj, attention.k_proj, attention.v_proj], make, join)
        self.out = make(_stacked([attention.o_proj.weight], [None]))
        self.gate_up = _products([feedforward.gate_proj, feedforward.up_proj], make, join)
        self.down = make(_stacked([feedforward.down_proj.weight], [None]))


def _products(linears: Sequence[nn.Linear], make: MakeProduct, join: bool) -> Callable[[Tensor], Tensor]:
    groups = [linears] if join else [[linear] for linear in linears]
    products = [make(_stacked([x.weight for x in group], [x.bias for x in group])) for group in groups]
    return products[0] if len(products) == 1 else _Beside(products)


def two_products(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Attention of one token in each row by two products, see `CachedLanguageModel`.

    Queries [rows, heads of one key, head_dim], a row for each head of keys; keys transposed, [rows, head_dim,
    places]; values [rows, places, head_dim]; seen [rows, 1, places], added to the logits. The result has the
    shape of the queries.
    """
    return torch.bmm(torch.baddbmm(seen, queries, keys, alpha=scale).softmax(-1), values)


def fused_attention(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float) -> Tensor:
    """The same as `two_products` in one kernel."""
    # Fused kernels want four dimensions: all rows' heads stand as the heads of one.
    mask = seen.expand(-1, queries.shape[1], -1)[None]
    keys = keys.transpose(1, 2)[None]
    return F.scaled_dot_product_attention(queries[None], keys, values[None], attn_mask=mask, scale=scale)[0]


class CachedLanguageModel:
    """Rows that read token after token; see `zoo.nn.kv_cache` for how they come and go.

    make: lays out the weights of each product.
    join: whether products of one input become one; this copies their weights, which have to fit in memory
        twice.
    cache_dtype: number format of keys and values.

    The weights are those of the model when this was made. Run inside `torch.inference_mode`.
    """

    def __init__(
        self, model: LanguageModel, make: MakeProduct, join: bool, cache_dtype: torch.dtype = torch.float32
    ) -> None:
        config = model.config
        self.model = model
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        device = model.head_weight.device
        self.cache = KVCache(config.num_hidden_layers, self.shared, self.head_dim, cache_dtype, device)
        self._layers = [_Layer(layer, make, join) for layer in model.layers]
        self._norm = _Norm(model.final_norm)
        # For one token two small products are quicker on a CPU than fused attention.
        self._attend = two_products if device.type == "cpu" else fused_attention
        self._head = make(_stacked([model.head_weight], [None]))

    def reserve(self, rows: int, tokens: int) -> None:
        """Forget all rows, and have room for so many of so many tokens; memory is allocated only here."""
        self.cache.reserve(rows, tokens)
        positions = torch.arange(self.cache.capacity, device=self.cache.device)
        self._cosines, self._sines = rotary_angles(
            positions[:, None], self.head_dim, self.model.config.rope_theta
        )

    def add(self, prompts: Sequence[Tensor]) -> Tensor:
        """New rows behind the others that have read a prompt each: logits [n, vocab] of their next tokens.

        prompts: embeddings [tokens, width], at least one token each; lengths may differ.
        """
        at_once = max(1, READ_AT_ONCE // max(map(len, prompts)))
        return torch.cat([self._read(prompts[i : i + at_once]) for i in range(0, len(prompts), at_once)])

    def _read(self, prompts: Sequence[Tensor]) -> Tensor:
        lengths = [len(prompt) for prompt in prompts]
        first = self.cache.add(lengths)

        def keep(layer: int, keys: Tensor, values: Tensor) -> None:
            self.cache.fill(layer, first, keys, values)

        # Padding stands behind the tokens, which do not see what follows them: no mask is needed.
        hidden = self.model.hidden(pad_sequence(list(prompts), batch_first=True), on_keys=keep)
        last = torch.tensor(lengths, device=hidden.device) - 1
        return self.model.logits(hidden[torch.arange(len(lengths), device=hidden.device), last]).float()

    def step(self, embeddings: Tensor) -> Tensor:
        """One token [count, width] of every row: logits [count, vocab] of the next, float32."""
        views = self.cache.views()
        logits = self._token(embeddings.to(torch.float32, copy=True), views)
        self.cache.lengths = [length + 1 for length in self.cache.lengths]
        return logits

    def remove(self, row: int) -> None:
        """Let a row go; the last takes its number."""
        self.cache.remove(row)

    def _token(self, hidden: Tensor, views: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The kernels of one step: nothing but work on the device, on tensors that stay where they are."""
        cache, rows = self.cache, len(hidden)
        turned = self.heads + self.shared
        cosines = self._cosines.index_select(0, cache.positions)
        sines = self._sines.index_select(0, cache.positions)
        cache.show()
        for number, (layer, (keys, values)) in enumerate(zip(self._layers, views, strict=True)):
            heads = layer.qkv(layer.norm(hidden)).view(rows, -1, self.head_dim)
            rotated = rotate(heads[:, :turned], cosines, sines)
            entries = (rotated[:, self.heads :], heads[:, turned:])
            cache.write(number, *(as_dtype(e.reshape(-1, self.head_dim), cache.dtype) for e in entries))
            queries = as_dtype(rotated[:, : self.heads], cache.dtype)
            queries = queries.reshape(rows * self.shared, -1, self.head_dim)
            attended = self._attend(queries, keys, values, cache.seen, self.head_dim**-0.5)
            hidden = layer.out.add(attended.reshape(rows, -1), hidden)
            gate, up = layer.gate_up(layer.second_norm(hidden)).chunk(2, dim=-1)
            hidden = layer.down.add(F.silu(gate).mul_(up), hidden)
        cache.move_on()
        return as_dtype(self._head(self._norm(hidden)), torch.float32)
