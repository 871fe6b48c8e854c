"""Tensors whose numbers lie in the pages of a file, after what is said about them was checked against it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.store.checkpoints.archives import shown
from zoo.store.checkpoints.formats import damaged_checkpoint
from zoo.store.checkpoints.tensor_entries import refused
from zoo.store.checkpoints.tensor_records import STORAGE_BYTES, TensorRecord

MOST_TENSORS = 100_000

#: Number formats by torch's names; not every version of torch has all.
DTYPES: dict[str, torch.dtype] = {
    name: dtype
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex128", "complex64", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
        "float4_e2m1fn_x2",
    )
    if isinstance(dtype := getattr(torch, name, None), torch.dtype)
}

#: First byte and number of bytes of a storage within the file.
Extent = tuple[int, int]


def map_tensors(
    path: Path, file: BinaryIO, size: int, records: Mapping[str, TensorRecord], extents: Mapping[str, Extent]
) -> dict[str, Tensor]:
    """The tensors of `records`, as views of the open `file` of `size` bytes, mapped privately.

    `extents` has the storages by key, within the file's bounds. Raises `WeightsError` for a tensor that does
    not fit into its storage or whose number format is unknown, and for storages that overlap.
    """
    if len(records) > MOST_TENSORS:
        raise damaged_checkpoint(path, f"it has {len(records)} tensors, expected at most {MOST_TENSORS}")
    used = {record.storage.key for record in records.values() if record.storage.key in extents}
    _check_apart(path, [extents[key] for key in used])
    mapped = _Storages(path, file, size, extents)
    return {name: _tensor(path, name, record, mapped) for name, record in records.items()}


def _tensor(path: Path, name: str, record: TensorRecord, storages: _Storages) -> Tensor:
    storage, dtype = record.storage, DTYPES.get(record.dtype)
    unit = STORAGE_BYTES.get(storage.dtype)
    if dtype is None or unit is None:
        unknown = record.dtype if dtype is None else storage.dtype
        raise refused(path, name, f"has numbers of format {shown(unknown)}, which cannot be read")
    there = storages.extent(storage.key)[1]
    needed = (storage.start + storage.numel) * unit
    if needed > there:
        raise damaged_checkpoint(path, f"the storage of {shown(name)} has {there} bytes, expected {needed}")
    room = storage.numel * unit // dtype.itemsize
    # Not only the last number: a few bytes, taken again and again, could claim to be terabytes.
    if max(record.numel, record.reach) > room:
        layout = f"of shape {list(record.shape)} and strides {list(record.stride)}"
        raise refused(path, name, f"{layout} does not fit into its storage of {room} numbers")
    if record.numel == 0:
        return torch.empty(record.shape, dtype=dtype, device="cpu")
    empty = torch.empty(0, dtype=dtype, device="cpu")
    offset = storage.start * unit // dtype.itemsize + record.offset
    return empty.set_(storages.storage(storage.key), offset, record.shape, record.stride)


def _check_apart(path: Path, extents: list[Extent]) -> None:
    """Storages may not share bytes: a small file could claim to hold much."""
    spans = sorted(extent for extent in extents if extent[1])
    for (start, length), (next_start, _) in itertools.pairwise(spans):
        if start + length > next_start:
            raise damaged_checkpoint(path, "its storages overlap")


class _Storages:
    """The file's storages by key, each made once, so that what is shared stays shared."""

    def __init__(self, path: Path, file: BinaryIO, size: int, extents: Mapping[str, Extent]) -> None:
        self._path, self._file, self._size, self._extents = path, file, size, extents
        self._whole: torch.UntypedStorage | None = None
        self._made: dict[str, torch.UntypedStorage] = {}

    def extent(self, key: str) -> Extent:
        if key not in self._extents:
            raise damaged_checkpoint(self._path, f"it has no storage {shown(key)}")
        return self._extents[key]

    def storage(self, key: str) -> torch.UntypedStorage:
        if key not in self._made:
            start, length = self.extent(key)
            # torch.save has aligned storages since version 1.6; numbers at odd places have to be copied.
            self._made[key] = self._copied(start, length) if start % 8 else self._mapped(start, length)
        return self._made[key]

    def _mapped(self, start: int, length: int) -> torch.UntypedStorage:
        if self._whole is None:
            try:
                # Private: what is written to the tensors stays in this process.
                whole = torch.UntypedStorage.from_file(str(self._path), False, self._size)
            except (RuntimeError, UnicodeError) as error:
                reason = ascii(str(error).partition("\n")[0][:200])[1:-1]
                raise WeightsError(
                    f"{self._path}: cannot be mapped into memory: {reason}",
                    "Check the limits of memory (ulimit -v), or copy the file to a local disk.",
                ) from error
            self._whole = cast(torch.UntypedStorage, whole)
        return cast(torch.UntypedStorage, self._whole[start : start + length])

    def _copied(self, start: int, length: int) -> torch.UntypedStorage:
        """Read instead of mapped, so that the bytes are in memory once."""
        numbers = torch.empty(length, dtype=torch.uint8, device="cpu")
        rest = numbers.numpy().data
        while rest:
            count = os.preadv(self._file.fileno(), [rest[: 2**30]], start)
            if not count:
                raise damaged_checkpoint(self._path, "it is cut off")
            rest, start = rest[count:], start + count
        return numbers.untyped_storage()
