"""A stack of causal transformer layers, ready to decode: one token at a time, or a span of tokens.

Everything that a token needs is allocated once: key-value caches, norms and products in the layout that suits
the machine. A step is a dozen calls of torch per layer, without modules, concatenations or copies of caches.

`Here` and `OnDevice` say where in the sequence a step is. The first is a number, for devices where calls are
cheap. The second is a tensor on the device: every step is then the same sequence of kernels on the same
memory, and can be captured once and replayed (`zoo.runtime.decoding.graphs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.products import Product, as_dtype
from zoo.nn.transformer import TransformerLayer

#: Makes the product of a linear; the second argument is the one it replaces, whose memory may be used again.
ProductMaker = Callable[[nn.Linear, Product | None], Product]


class LayerCache:
    """Keys and values of one layer, [2, rows, heads, tokens, head_dim], allocated once.

    Zero at first: what is masked must still be a number, since nothing times NaN is NaN.
    """

    def __init__(
        self, rows: int, heads: int, tokens: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.entries = torch.zeros(2, rows, heads, tokens, head_dim, dtype=dtype, device=device)
        self.by_head = self.entries.flatten(1, 2)  #: the same memory, [2, rows * heads, tokens, head_dim]
        self._views: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * tokens

    def views(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where token `index` is written, keys up to it (transposed), values up to it.

        Made once for all blocks: cutting views takes longer than attention over a short sequence.
        """
        found = self._views[index]
        if found is None:
            keys, values = self.by_head[:, :, : index + 1].unbind(0)
            found = self._views[index] = (self.entries[:, :, :, index], keys.transpose(1, 2), values)
        return found


class Position(Protocol):
    """Where in the sequence a step is."""

    def pick(self, table: Tensor) -> Tensor:
        """The row of a table [tokens, ...] at this position."""
        ...

    def attend(self, queries: Tensor, entry: Tensor, cache: LayerCache) -> Tensor:
        """Write a key and value [2, rows, heads, head_dim], then attend to all tokens up to this one.

        Queries are scaled, [rows * heads, 1, head_dim]; the result has their shape.
        """
        ...


class Here:
    """A position known to the host."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def pick(self, table: Tensor) -> Tensor:
        """See `Position`."""
        return table[self.index]

    def attend(self, queries: Tensor, entry: Tensor, cache: LayerCache) -> Tensor:
        """See `Position`. For one query two small products are quicker on a CPU than fused attention."""
        place, keys, values = cache.views(self.index)
        place.copy_(entry)
        return torch.bmm(torch.bmm(as_dtype(queries, keys.dtype), keys).softmax(-1), values)


class OnDevice:
    """A position that only the device knows, at most `length` - 1.

    Attention reads `length` entries of the cache and masks those after the position, so that a graph captured
    at one position is right for every other below `length`.
    """

    def __init__(self, index: Tensor, length: int) -> None:
        self.index = index  #: int64 [1]
        self.length = length
        self._mask: Tensor | None = None

    def pick(self, table: Tensor) -> Tensor:
        """See `Position`."""
        return table.index_select(0, self.index).squeeze(0)

    def attend(self, queries: Tensor, entry: Tensor, cache: LayerCache) -> Tensor:
        """See `Position`."""
        cache.entries.index_copy_(3, self.index, entry.unsqueeze(3).to(cache.entries.dtype))
        # Fused kernels want four dimensions: all rows' heads stand as the heads of one.
        keys, values = cache.by_head[:, None, :, : self.length].unbind(0)
        queries = queries.to(keys.dtype)[None]
        if self._mask is None:
            self._mask = self._beyond(queries)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=self._mask, scale=1.0)[0]

    def _beyond(self, like: Tensor) -> Tensor:
        # Added to the logits, in their dtype: a mask of booleans would be converted to this in every layer.
        entries = torch.arange(self.length, device=like.device)
        return like.new_zeros(1, 1, 1, self.length).masked_fill_(entries > self.index, float("-inf"))


class _Layer:
    """One layer's weights and its cache."""

    def __init__(self, cache: LayerCache, width: int) -> None:
        self.cache = cache
        numbers = torch.empty(2, 2, width, device=cache.entries.device)
        self.norms = [(weight, bias) for weight, bias in numbers]
        self.eps = 0.0
        self.products: list[Product] = []

    def load(self, layer: TransformerLayer, make: ProductMaker) -> None:
        """Take a layer's weights."""
        attention, feedforward = layer.attention, layer.feedforward
        for (weight, bias), norm in zip(self.norms, (attention.norm, feedforward.norm), strict=True):
            weight.copy_(norm.weight)
            bias.copy_(norm.bias)
        self.eps = attention.norm.eps
        linears = (attention.qkv, attention.out, feedforward.up, feedforward.down)
        replaced = self.products or (None,) * len(linears)
        self.products = [make(*pair) for pair in zip(linears, replaced, strict=True)]


class DecodingLayers:
    """Layers of one shape with their caches, for a fixed number of rows. All hidden states are float32.

    `layers` gives the shape; weights come with `load`, and others of the same shape may follow.

    `query_scale`, [rows] or a number, multiplies attention logits beside 1 / sqrt(head_dim): the inverse
    temperature of each row. `cache_dtype` is the number format of keys and values.
    """

    def __init__(
        self,
        layers: Sequence[TransformerLayer],
        rows: int,
        tokens: int,
        make: ProductMaker,
        cache_dtype: torch.dtype = torch.float32,
        query_scale: Tensor | float = 1.0,
    ) -> None:
        first = layers[0].attention
        self.rows, self.tokens = rows, tokens
        self.heads, self.head_dim = first.heads, first.head_dim
        self.width = first.heads * first.head_dim
        self._make = make
        device = first.qkv.weight.device
        shape = (rows, self.heads, tokens, self.head_dim)
        self._layers = [_Layer(LayerCache(*shape, cache_dtype, device), self.width) for _ in layers]
        scale = torch.as_tensor(query_scale, dtype=torch.float32, device=device)
        #: [rows or 1, 1, 1]; float32 with dimensions of its own, so that the product with it is float32.
        self._scale = scale.view(-1, 1, 1) * self.head_dim**-0.5
        self._seen: Tensor | None = None

    def load(self, layers: Sequence[TransformerLayer]) -> None:
        """Take the weights of a stack of this shape. Caches need no reset: they are overwritten."""
        for mine, layer in zip(self._layers, layers, strict=True):
            mine.load(layer, self._make)

    def step(self, hidden: Tensor, at: Position) -> Tensor:
        """One token [rows, width] at a position whose predecessors have all been read: the same shape.

        The memory of `hidden` may be used again.
        """
        rows, heads, head_dim, width = self.rows, self.heads, self.head_dim, self.width
        for layer in self._layers:
            (weight, bias), (weight2, bias2), eps = *layer.norms, layer.eps
            qkv_of, out_of, up_of, down_of = layer.products
            qkv = qkv_of(torch.layer_norm(hidden, (width,), weight, bias, eps))
            split = qkv.view(rows, 3, heads, head_dim).transpose(0, 1)
            queries = (split[0] * self._scale).view(rows * heads, 1, head_dim)
            attended = at.attend(queries, split[1:], layer.cache)
            hidden = out_of.add(attended.reshape(rows, width), hidden)
            hidden = down_of.add(up_of.gelu(torch.layer_norm(hidden, (width,), weight2, bias2, eps)), hidden)
        return hidden

    def span(self, hidden: Tensor, start: int) -> Tensor:
        """Tokens [rows, n, width] at positions start .. start + n - 1, after those before: the same shape.

        Their keys and values are written to the caches.
        """
        rows, count, width = hidden.shape
        end, flat = start + count, hidden.reshape(rows * count, width)
        mask, scale = self._mask(hidden.device)[start:end, :end], self._scale.unsqueeze(-1)
        for layer in self._layers:
            (weight, bias), (weight2, bias2), eps = *layer.norms, layer.eps
            qkv_of, out_of, up_of, down_of = layer.products
            qkv = qkv_of(torch.layer_norm(flat, (width,), weight, bias, eps))
            split = qkv.view(rows, count, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
            cache = layer.cache.entries
            cache[:, :, :, start:end] = split[1:]
            queries = (split[0] * scale).to(cache.dtype)
            keys, values = cache[:, :, :, :end].unbind(0)
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
            flat = out_of.add(attended.transpose(1, 2).reshape(rows * count, width), flat)
            flat = down_of.add(up_of.gelu(torch.layer_norm(flat, (width,), weight2, bias2, eps)), flat)
        return flat.view(rows, count, width)

    def _mask(self, device: torch.device) -> Tensor:
        """True where token i (row) sees token j (column)."""
        if self._seen is None:
            self._seen = torch.ones(self.tokens, self.tokens, dtype=torch.bool, device=device).tril()
        return self._seen
