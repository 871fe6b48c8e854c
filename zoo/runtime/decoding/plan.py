"""How a batch is decoded on this machine: layout and number format of the weights, graphs, caches.

The rule, from `benchmarks/tarflow_sampling.py` and the products that it is made of:

- GPU: weights as they are, replayed as CUDA graphs on CUDA.
- CPU with oneDNN: products of at least `PACKED_WORK` are `packed`, smaller ones `transposed` in float32.
- CPU without oneDNN: 2 to 6 float32 rows with a block's weights beyond the last-level cache are `columns`, a
  single float32 row is `transposed`, all else `rows`.
- Weights are computed with in the format they were loaded in, but on a CPU never in float16, nor in bfloat16
  where the CPU lacks instructions for it: these are many times slower there than float32.
- Keys and values are float32 on a CPU (half formats are slower there) and have the weights' format elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import nn

from zoo.nn.products import Layout, Product, RowProduct, can_pack, product
from zoo.runtime.devices import last_level_cache, native_bfloat16

#: Copies of weights in another layout are kept between runs up to this size of all weights together; larger
#: models are laid out block by block, which costs little against decoding a block of such size.
KEEP_BYTES = 256 * 2**20

#: Rows times weights of a product from which packing pays: calling oneDNN takes about 15 microseconds longer
#: than calling BLAS, and computes two to three times as fast.
PACKED_WORK = 500_000

#: Rows for which a product by columns reads weights faster than one by rows.
COLUMN_ROWS = range(2, 7)


@dataclass(frozen=True)
class Plan:
    """What `choose` decided."""

    layout: Layout | None  #: of all products; None decides for each
    rows: int
    dtype: torch.dtype  #: number format of the weights
    cache_dtype: torch.dtype  #: number format of keys and values
    graphs: bool  #: replay steps as CUDA graphs
    keep: bool  #: keep the weights' copies for the next run

    def layout_of(self, linear: nn.Linear) -> Layout:
        """The layout of a linear's weights."""
        if self.layout is not None:
            return self.layout
        return "packed" if self.rows * linear.weight.numel() >= PACKED_WORK else "transposed"

    def dtype_of(self, linear: nn.Linear) -> torch.dtype:
        """The number format of a linear's weights in its product: small ones gain nothing from a half."""
        chosen = self.layout is None
        return torch.float32 if chosen and self.layout_of(linear) == "transposed" else self.dtype

    def make(self, linear: nn.Linear, replaced: Product | None) -> Product:
        """The product of a linear; with graphs in the memory of the one it replaces."""
        if self.graphs:
            if isinstance(replaced, RowProduct):
                replaced.load(linear)
                return replaced
            return RowProduct(linear, self.dtype, fixed=True)
        layout = self.layout_of(linear)
        # The layout `rows` in the format of the weights is no copy: there is nothing to keep.
        return product(linear, layout, self.dtype_of(linear), keep=self.keep and layout != "rows")


def choose(
    device: torch.device,
    rows: int,
    dtype: torch.dtype,
    block_bytes: int,
    model_bytes: int,
    layout: Literal["auto", Layout] = "auto",
    parallel: bool = False,
) -> Plan:
    """The plan for products of `rows` rows.

    The model's largest block and its whole weigh so many bytes in `dtype`, its own format. `parallel`
    decoding has spans of changing length, which no graph is captured for.
    """
    number_format = computed_dtype(dtype, device)
    chosen: Layout | None
    if layout == "auto":
        chosen = _layout(device, rows, number_format, block_bytes)
    else:
        chosen = _possible(layout, device)
    return Plan(
        layout=chosen,
        rows=rows,
        dtype=number_format,
        cache_dtype=cache_dtype(dtype, device),
        graphs=device.type == "cuda" and chosen == "rows" and not parallel,
        keep=model_bytes <= KEEP_BYTES,
    )


def _layout(device: torch.device, rows: int, dtype: torch.dtype, block_bytes: int) -> Layout | None:
    if device.type != "cpu":
        return "rows"
    if packs():
        return None
    if dtype == torch.float32 and rows == 1:
        return "transposed"
    beyond = block_bytes > last_level_cache()
    return "columns" if dtype == torch.float32 and rows in COLUMN_ROWS and beyond else "rows"


def _possible(layout: Layout, device: torch.device) -> Layout:
    return "rows" if layout == "packed" and (device.type != "cpu" or not packs()) else layout


def cache_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The number format of keys and values, where the weights were loaded in `dtype`."""
    return torch.float32 if device.type == "cpu" else dtype


def computed_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The number format that is computed with, where the weights were loaded in `dtype`."""
    if device.type != "cpu" or dtype == torch.float32:
        return dtype
    return dtype if dtype == torch.bfloat16 and native_bfloat16() else torch.float32


@cache
def packs() -> bool:
    """Whether weights can be packed here; asked once."""
    return can_pack()
