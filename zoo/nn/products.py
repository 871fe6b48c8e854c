"""Products x W' + b for few rows, with the weights laid out so that memory is read at full speed.

A transformer that decodes token by token multiplies one to a hundred rows with every weight of the network:
nearly all of the time goes into reading weights, and how they lie decides how fast that goes.

| layout | weights | pays for |
|---|---|---|
| `rows` | as the checkpoint has them, [out, in] | GPUs; what every other layout is compared with |
| `transposed` | a copy [in, out] | small products on a CPU: few rows times few weights |
| `columns` | as they are, computed as (W x')' | 2 to 6 float32 rows beyond the cache, without `packed` |
| `packed` | oneDNN's blocked copy; fuses GELU and the sum with the residual | all other products on a CPU |

All compute the same up to rounding. Weights may be bfloat16: inputs are rounded to it, and what is added to a
residual stays in the residual's own precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol, get_args
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layout = Literal["rows", "transposed", "columns", "packed"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def as_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in a number format; asking for it first is quicker than a conversion that does nothing."""
    return x if x.dtype == dtype else x.to(dtype)


class Product(Protocol):
    """x W' + b for x [rows, in]; the result [rows, out] has the dtype of the weights."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor) -> Tensor:
        """Exact GELU of the product."""
        ...

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual [rows, out] plus the product, in the residual's dtype; its memory may be used again."""
        ...


class RowProduct:
    """Weights [out, in] as they are, in buffers of its own when `fixed`.

    A fixed product keeps its memory when other weights are loaded, which a captured CUDA graph needs.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, fixed: bool = False) -> None:
        self.dtype = dtype
        self.weight = linear.weight.detach().to(dtype, copy=fixed)
        self.bias = linear.bias.detach().to(dtype, copy=fixed)

    def load(self, linear: nn.Linear) -> None:
        """Take the values of another linear of the same shape into the same memory."""
        self.weight.copy_(linear.weight)
        self.bias.copy_(linear.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(as_dtype(x, self.dtype), self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """See `Product`."""
        return F.gelu(self(x))

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """See `Product`."""
        return residual.add_(self(x))


class TransposedProduct(RowProduct):
    """A copy of the weights [in, out]: BLAS reads it faster for few rows."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(linear, dtype)
        self.weight = self.weight.t().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, as_dtype(x, self.dtype), self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        """See `Product`."""
        # A transposed view stays with torch's own kernel: calling oneDNN takes longer than so few numbers do.
        return F.gelu(self(x).t()).t()


class ColumnProduct(RowProduct):
    """(W x')': BLAS streams the weights once for a few rows, and not once for each."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(linear, dtype)
        self.column = self.bias[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        # What follows wants rows; a transposed input would make the next product several times slower.
        return torch.addmm(self.column, self.weight, as_dtype(x, self.dtype).t()).t().contiguous()


class PackedProduct:
    """oneDNN's own layout, made once, with what follows the product fused into it."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        self.dtype = dtype
        # Packed for no number of rows in particular: as fast for few rows, and spans of tokens use it too.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), None)
        self.bias = linear.bias.detach().to(dtype)
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._product_and_sum = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self._product(as_dtype(x, self.dtype), self.weight, self.bias, "none", [], "")
        return result

    def gelu(self, x: Tensor) -> Tensor:
        """See `Product`."""
        result: Tensor = self._product(as_dtype(x, self.dtype), self.weight, self.bias, "gelu", [], "none")
        return result

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """See `Product`."""
        if residual.dtype != self.dtype:
            return residual.add_(self(x))
        result: Tensor = self._product_and_sum(
            as_dtype(x, self.dtype), residual, self.weight, self.bias, "add"
        )
        return result


def packed_matmul(left: Tensor, right: Tensor) -> Callable[[], Tensor]:
    """left right' as `packed` computes it, right [out, in] packed beforehand: for measuring its rate."""
    weight = torch.ops.mkldnn._reorder_linear_weight(right, None)
    return partial(torch.ops.mkldnn._linear_pointwise.default, left, weight, None, "none", [], "")


def can_pack() -> bool:
    """Whether this build of torch packs weights with oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    ops, zeros = torch.ops.mkldnn, torch.zeros
    try:
        with torch.inference_mode():
            weight = ops._reorder_linear_weight(zeros(16, 16), None)
            ops._linear_pointwise.default(zeros(1, 16), weight, zeros(16), "gelu", [], "none")
            ops._linear_pointwise.binary(zeros(1, 16), zeros(1, 16), weight, zeros(16), "add")
    except (AttributeError, RuntimeError):
        return False
    return True


_MAKERS: dict[Layout, Callable[[nn.Linear, torch.dtype], Product]] = {
    "rows": RowProduct,
    "transposed": TransposedProduct,
    "columns": ColumnProduct,
    "packed": PackedProduct,
}

#: Copies that outlive a run, by the linear that they were made of.
_kept: WeakKeyDictionary[nn.Linear, dict[tuple[Layout, torch.dtype], tuple[object, Product]]] = (
    WeakKeyDictionary()
)


def product(linear: nn.Linear, layout: Layout, dtype: torch.dtype, keep: bool) -> Product:
    """The product with a linear's weights in a layout.

    With `keep` the copy is used again as long as the weights are the same, for models that are small enough
    to lie in memory twice.
    """
    if not keep:
        return _MAKERS[layout](linear, dtype)
    stamp = tuple((tensor.data_ptr(), tensor._version) for tensor in (linear.weight, linear.bias))
    made = _kept.setdefault(linear, {})
    known = made.get((layout, dtype))
    if known is not None and known[0] == stamp:
        return known[1]
    fresh = _MAKERS[layout](linear, dtype)
    made[layout, dtype] = (stamp, fresh)
    return fresh
