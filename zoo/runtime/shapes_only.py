"""Building modules for their shapes: constructors run on the meta device, and nothing is computed.

In torch, arithmetic and some initialisers of meta tensors are written in Python, and their first call imports
torch's compiler: 1.5 CPU-seconds, more than everything else that starting up takes. The mode here answers the
common ones itself; what it does not know goes to torch, which is slower and gives the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RANDOM = {"randn", "rand"}
#: Write values into a tensor and return it: without values there is nothing to do.
_FILLING = {
    "normal_",
    "uniform_",
    "trunc_normal_",
    "zero_",
    "zeros_",
    "ones_",
    "fill_",
    "constant_",
    "erfinv_",
}
_FILLING |= {"mul_", "div_", "add_", "sub_", "clamp_"}
#: Give a tensor of the arguments' common shape and dtype.
_ELEMENTWISE = {
    "mul",
    "__mul__",
    "__rmul__",
    "add",
    "__add__",
    "__radd__",
    "sub",
    "__sub__",
    "__rsub__",
    "rsub",
}
#: The same, where whole numbers become floating-point ones.
_FLOATING = {"div", "__div__", "__truediv__", "true_divide", "__rdiv__", "__rtruediv__"}
_FLOATING |= {"exp", "log", "sqrt", "rsqrt", "sin", "cos", "reciprocal"}


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors made inside have a shape and a dtype, and neither memory nor values."""
    with torch.device("meta"), _ShapesOnly():
        yield


class _ShapesOnly(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        target = args[0] if args else kwargs.get("tensor")
        if name in _FILLING and _is_meta(target):
            return target
        if name in _RANDOM and set(kwargs) <= {"dtype", "requires_grad"}:
            return torch.empty(*args, device="meta", **kwargs)
        if (name in _ELEMENTWISE or name in _FLOATING) and not kwargs and all(map(_is_operand, args)):
            return _elementwise(args, floating=name in _FLOATING)
        return func(*args, **kwargs)


def _is_meta(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _is_operand(value: object) -> bool:
    return _is_meta(value) or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _broadcast(shapes: Sequence[torch.Size]) -> torch.Size:
    # torch.broadcast_shapes imports sympy.
    aligned = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    sides = [{side for side in dimension if side != 1} for dimension in aligned]
    if any(len(found) > 1 for found in sides):
        raise RuntimeError(f"shapes {[list(shape) for shape in shapes]} do not go together")
    return torch.Size([found.pop() if found else 1 for found in reversed(sides)])


def _elementwise(args: Sequence[Any], floating: bool) -> Tensor:
    shape = _broadcast([value.shape for value in args if isinstance(value, Tensor)])
    dtype = torch.result_type(*args) if len(args) == 2 else args[0].dtype
    if floating and not (dtype.is_floating_point or dtype.is_complex):
        dtype = torch.get_default_dtype()
    return torch.empty(shape, dtype=dtype, device="meta")
