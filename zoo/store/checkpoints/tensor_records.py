"""What a checkpoint's pickle says about tensors, as records of numbers: no tensor is made here.

`torch.save` writes a tensor as the name of a function of torch and its arguments: a storage, which is a
member of the zip file, and where in it which numbers lie. Of all names only these functions mean anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.store.checkpoints.pickle_machine import Inert, Malformed, Name, Table

MOST_DIMENSIONS = 64  #: torch has no tensors with more
_LARGEST = 2**62  #: no number of a tensor's description, and no product of its sizes, is larger
_MOST_PAIRS = 4_000_000  #: that ordered mappings may copy from lists, all together

BYTES = "bytes"  #: the number format of a storage that does not say

_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": BYTES,
    "TypedStorage": BYTES,
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}

#: Bytes of one element of a storage, by the number format of its record.
STORAGE_BYTES: Mapping[str, int] = {
    **{BYTES: 1, "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex128": 16, "complex64": 8},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1},
    **{"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1},
}


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """`numel` elements from element `start` of the storage `key`, whose extent the file tells.

    `dtype` is torch's name of the number format, `BYTES`, or the name of an unknown class.
    """

    key: str
    dtype: str
    numel: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A view of a storage; offset and strides count numbers of `dtype`."""

    storage: StorageRecord
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def reach(self) -> int:
        """How many numbers of the storage lie up to the tensor's last one."""
        if self.numel == 0:
            return 0
        return self.offset + 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))


def storage_record(identity: Any) -> StorageRecord:
    """What stands for a storage in a pickle: ("storage", its type, key, device, number of elements)."""
    if not isinstance(identity, tuple) or len(identity) != 5 or _text(identity[0]) != "storage":
        raise Malformed("it refers to something that is no storage")
    kind, key, numel = identity[1], _text(identity[2]), identity[4]
    if not isinstance(kind, Name) or not isinstance(key, str) or not _is_count(numel):
        raise Malformed("it describes a storage wrongly")
    known = kind.module in ("torch", "torch.storage")
    dtype = _STORAGES.get(kind.name) if known else None
    return StorageRecord(key, dtype or f"{kind.module[:80]}.{kind.name[:80]}", numel)


class LegacyStorages:
    """Resolves what stands for storages before torch 1.6, and remembers them by key in `whole`."""

    def __init__(self) -> None:
        self.whole: dict[str, StorageRecord] = {}

    def __call__(self, identity: Any) -> Any:
        """The record of a storage, with a sixth part: None, or (key, start, number) of a view of it."""
        if isinstance(identity, tuple) and len(identity) == 4 and _text(identity[0]) == "module":
            return identity[1] if isinstance(identity[1], Name) else Inert()
        if not isinstance(identity, tuple) or len(identity) != 6:
            raise Malformed("it refers to something that is no storage")
        record = self.whole.setdefault(_text(identity[2]), storage_record(identity[:5]))
        view = identity[5]
        if view is None:
            return record
        if not isinstance(view, tuple) or len(view) != 3 or not _is_count(view[1]) or not _is_count(view[2]):
            raise Malformed("it describes a storage wrongly")
        if view[1] + view[2] > record.numel:
            raise Malformed("it describes a storage beyond the end of another")
        return StorageRecord(record.key, record.dtype, view[2], view[1])


class Applier:
    """Gives the names of one pickle their meaning: a few of torch, and for all others nothing."""

    def __init__(self) -> None:
        self._pairs_left = _MOST_PAIRS

    def __call__(self, maker: Name | Inert, arguments: tuple[Any, ...] | Inert) -> Any:
        if isinstance(maker, Name) and isinstance(arguments, tuple):
            if (maker.module, maker.name) == ("collections", "OrderedDict"):
                return self._ordered(arguments)
            known = _FUNCTIONS.get((maker.module, maker.name))
            if known is not None:
                return known(maker, arguments)
        return _inert(maker, arguments)

    def _ordered(self, arguments: tuple[Any, ...]) -> Table:
        pairs = arguments[0] if arguments else []
        if len(arguments) > 1 or not isinstance(pairs, list):
            raise Malformed("it makes an ordered mapping of something else than pairs")
        self._pairs_left -= len(pairs)
        if self._pairs_left < 0:
            raise Malformed("it takes more steps than any checkpoint needs")
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise Malformed("it makes an ordered mapping of something else than pairs")
        return Table((pair[0], pair[1]) for pair in pairs)


def _inert(maker: Name | Inert, arguments: tuple[Any, ...] | Inert) -> Inert:
    if isinstance(maker, Inert):
        return Inert(maker.maker, maker.of_tensors or _involves_tensors(arguments))
    rebuilds = maker.module.startswith("torch.") and maker.name.startswith("_rebuild")
    return Inert(maker, rebuilds or _involves_tensors(arguments))


def _involves_tensors(arguments: tuple[Any, ...] | Inert) -> bool:
    """Whether a tensor or storage is among a call's arguments, or in a tuple that is one of them."""
    if isinstance(arguments, Inert):
        return arguments.of_tensors
    return any(
        any(map(_is_of_tensors, _first(argument)))
        if isinstance(argument, tuple)
        else _is_of_tensors(argument)
        for argument in _first(arguments)
    )


def _first(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # The functions of torch take few; a long tuple that is looked at again and again would cost much time.
    return values[:16]


def _is_of_tensors(value: Any) -> bool:
    return isinstance(value, TensorRecord | StorageRecord) or (isinstance(value, Inert) and value.of_tensors)


def _tensor(maker: Name, arguments: tuple[Any, ...]) -> TensorRecord | Inert:
    """(storage, offset, shape, stride), and in later versions (requires_grad, hooks, [dtype,] [metadata])."""
    third = maker.name == "_rebuild_tensor_v3"
    least, most = {"_rebuild_tensor": (4, 4), "_rebuild_tensor_v2": (6, 7)}.get(maker.name, (7, 8))
    if not least <= len(arguments) <= most:
        raise Malformed("it describes a tensor wrongly")
    storage, offset, shape, stride = arguments[:4]
    if isinstance(storage, Inert) or (len(arguments) > 4 and len(arguments) == most and arguments[-1]):
        # Metadata tell of lazily conjugated or negated numbers, which the file has before that.
        return Inert(maker, of_tensors=True)
    dtype = arguments[6] if third else None
    if not isinstance(storage, StorageRecord) or not _is_count(offset) or (third and not _is_dtype(dtype)):
        raise Malformed("it describes a tensor wrongly")
    if not _are_counts(shape) or not _are_counts(stride) or len(shape) != len(stride):
        raise Malformed("it describes a tensor's shape wrongly")
    if math.prod(max(1, size) for size in shape) > _LARGEST:
        raise Malformed("it describes a tensor larger than any memory")
    if isinstance(dtype, Name):
        return TensorRecord(storage, dtype.name, offset, shape, stride)
    return TensorRecord(storage, "uint8" if storage.dtype == BYTES else storage.dtype, offset, shape, stride)


def _parameter(maker: Name, arguments: tuple[Any, ...]) -> Any:
    """(tensor, requires_grad, hooks, [state]): the tensor alone is of interest."""
    if not 3 <= len(arguments) <= 4:
        raise Malformed("it describes a parameter wrongly")
    if isinstance(arguments[0], TensorRecord):
        return arguments[0]
    return Inert(maker, of_tensors=True)


def _size(maker: Name, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) == 1 and isinstance(arguments[0], tuple):
        return arguments[0]
    return Inert(maker)


def _is_dtype(value: Any) -> bool:
    return isinstance(value, Name) and value.module == "torch"


def _text(value: Any) -> Any:
    """Texts of Python 2 may be bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= MOST_DIMENSIONS and all(map(_is_count, values))


#: The names that mean something, as they stand in a pickle.
_FUNCTIONS: Mapping[tuple[str, str], Callable[[Name, tuple[Any, ...]], Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch", "Size"): _size,
}
