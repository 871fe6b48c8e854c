"""Keys and values of rows that need not have the same length, in memory that is allocated once.

A row's tokens stand at the front of its part of the cache, whatever its length. Each step writes one token of
every row behind those that it has, and attends to as many places as the longest row needs: what a shorter row
does not have is masked. So a step is the same calls on the same memory, wherever in its sequence a row is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Attention reads a multiple of so many places, so that views, and what is captured of a step, serve as many
#: steps. Fused kernels want masks so aligned.
BUCKET = 32


def cache_bytes(layers: int, rows: int, heads: int, tokens: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of a cache with these sizes."""
    return 2 * layers * rows * heads * head_dim * _rounded(tokens) * dtype.itemsize


def _rounded(tokens: int) -> int:
    return math.ceil(tokens / BUCKET) * BUCKET


class KVCache:
    """Caches of all layers. Rows are numbered 0 .. `count` - 1; the last takes the place of one that goes."""

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.layers, self.heads, self.head_dim = layers, heads, head_dim
        self.dtype, self.device = dtype, device
        self.lengths: list[int] = []  #: tokens of each row, as the host knows them
        self._allocate(0, 0)

    @property
    def count(self) -> int:
        """Rows that are there."""
        return len(self.lengths)

    def reserve(self, rows: int, tokens: int) -> None:
        """Forget all rows, and have room for so many of so many tokens; allocates only what is lacking."""
        self.lengths = []
        had_rows, had_tokens = self.entries.shape[2], self.capacity
        if rows > had_rows or tokens > had_tokens:
            self._allocate(max(rows, had_rows), max(_rounded(tokens), had_tokens))
        self._place()

    def _allocate(self, rows: int, tokens: int) -> None:
        # Zero at first: what is masked must still be a number, since nothing times NaN is NaN.
        self.entries = torch.zeros(
            self.layers, 2, rows, self.heads, tokens, self.head_dim, dtype=self.dtype, device=self.device
        )
        self.capacity = tokens
        #: What is added to attention's logits, 0 or minus infinity: [rows * heads, 1, tokens].
        self.bias = torch.full((rows * self.heads, 1, tokens), float("-inf"), device=self.device)
        self.bias = self.bias.to(self.dtype)
        self._flat_bias = self.bias.view(-1)
        #: Of each layer, keys and values as one long list of places [rows * heads * tokens, head_dim].
        self._places = [tuple(kinds.view(2, -1, self.head_dim).unbind(0)) for kinds in self.entries.unbind(0)]
        self._views: list[tuple[Tensor, Tensor]] = []
        self._viewed = (0, 0)
        self._place()

    def _place(self) -> None:
        """Put where each row's next token goes onto the device."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64)
        starts = torch.arange(self.count * self.heads) * self.capacity
        self.positions = lengths.to(self.device)  #: int64 [count]
        self._next = (starts + lengths.repeat_interleave(self.heads)).to(self.device)

    def add(self, lengths: Sequence[int]) -> int:
        """New rows behind the others, with so many tokens each, for `fill`; the number of the first."""
        first = self.count
        if first + len(lengths) > self.entries.shape[2] or max(lengths, default=0) > self.capacity:
            raise ValueError(f"no room for {len(lengths)} rows of {max(lengths)} tokens: see `reserve`")
        bias = self.bias.view(-1, self.heads, self.capacity)[first : first + len(lengths)]
        bias.fill_(float("-inf"))
        for row, length in zip(bias, lengths, strict=True):
            row[:, :length] = 0.0
        self.lengths.extend(lengths)
        self._place()
        return first

    def fill(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """A layer's keys and values [n, heads, tokens, head_dim] of the rows from `first` on.

        What lies behind a row's length is overwritten by its next tokens and never seen before.
        """
        rows, tokens = keys.shape[0], keys.shape[2]
        place = self.entries[layer, :, first : first + rows, :, :tokens]
        place[0].copy_(keys)
        place[1].copy_(values)

    def remove(self, row: int) -> None:
        """Let a row go; the last takes its number."""
        last = self.count - 1
        if row != last:
            length = self.lengths[last]
            self.entries[:, :, row, :, :length].copy_(self.entries[:, :, last, :, :length])
            by_row = self.bias.view(-1, self.heads, self.capacity)
            by_row[row].copy_(by_row[last])
            self.lengths[row] = length
        self.lengths.pop()
        self._place()

    def views(self) -> list[tuple[Tensor, Tensor]]:
        """Keys, transposed, and values of each layer, [count * heads, ...], as far as the next token needs.

        Cut anew only when rows come or go, or the longest row reaches the next multiple of `BUCKET`.
        """
        longest = max(self.lengths)
        if longest >= self.capacity:
            raise ValueError(f"the cache is full: it has room for {self.capacity} tokens, see `reserve`")
        wanted = (self.count, min(_rounded(longest + 1), self.capacity))
        if wanted != self._viewed:
            rows, reach = wanted
            cut = self.entries[:, :, :rows, :, :reach].flatten(2, 3)
            self._views = [(keys.transpose(1, 2), values) for keys, values in cut.unbind(0)]
            self.seen = self.bias[: rows * self.heads, :, :reach]
            self._viewed = wanted
        return self._views

    def show(self) -> None:
        """Let attention see the place of the next token; before the first layer of a step."""
        self._flat_bias.index_fill_(0, self._next, 0.0)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """The next token's keys and values of one layer, [count * heads, head_dim]."""
        places = self._places[layer]
        places[0].index_copy_(0, self._next, keys)
        places[1].index_copy_(0, self._next, values)

    def move_on(self) -> None:
        """The step is done on the device: places of the next token. `lengths` are the host's to count."""
        self._next.add_(1)
        self.positions.add_(1)
