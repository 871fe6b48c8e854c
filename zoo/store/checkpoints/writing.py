"""Writing safetensors as a stream: one piece of one tensor at a time is in memory, and is hashed on its way.

The layout is that of the safetensors library (https://github.com/huggingface/safetensors): eight bytes with
the length of a JSON header, the header padded with spaces to a multiple of eight, then all tensors without
gaps. Tensors of larger numbers come first, so that each lies at a multiple of its number's size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import FileIO
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.errors import WeightsError
from zoo.store.checkpoints.archives import shown

#: Bytes of a tensor that are made contiguous, cast and written at once.
PIECE = 8 * 2**20

#: Names of number formats, those of larger numbers first, in the order that the library's own files have:
#: ours are the same, byte for byte.
FORMATS: Mapping[torch.dtype, str] = {
    dtype: name
    for torch_name, name in {
        "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64",
        "float32": "F32", "uint32": "U32", "int32": "I32",
        "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16",
        "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e8m0fnu": "F8_E8M0",
        "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
        "int8": "I8", "uint8": "U8", "bool": "BOOL",
    }.items()
    if isinstance(dtype := getattr(torch, torch_name, None), torch.dtype)
}  # fmt: skip
_RANK = {dtype: rank for rank, dtype in enumerate(FORMATS)}


def write_tensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[str, int]:
    """Write a safetensors file: (its sha256, its size in bytes). The same input gives the same bytes.

    `tensors` may be views, share memory and lie on any device; `dtype` casts the floating-point ones.
    `metadata` defaults to {"format": "pt"}. Nothing is synchronised to the disk. Raises `WeightsError` for a
    tensor that a safetensors file cannot hold, and `OSError` when the system refuses to write.
    """
    for name, tensor in tensors.items():
        _check(name, tensor, dtype)
    order = sorted(tensors, key=lambda name: (_RANK[written_dtype(tensors[name], dtype)], name))
    header = _header(tensors, order, {"format": "pt"} if metadata is None else metadata, dtype)
    parts: Iterator[bytes | memoryview] = chain([header], _all_data(tensors, order, dtype))
    digest = hashlib.sha256()
    size = 0
    # The hash of a piece is computed while the system takes it: neither needs the interpreter.
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
        for data in parts:
            hashed = hasher.submit(digest.update, data)
            _write(file, data)
            hashed.result()
            size += len(data)
    return digest.hexdigest(), size


def _write(file: FileIO, data: bytes | memoryview) -> None:
    # Unbuffered, because a buffer would only copy; the system may take less than it is given.
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def written_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The number format of a tensor where floating-point ones are cast to `dtype`, unless it is None."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _check(name: Any, tensor: Tensor, dtype: torch.dtype | None) -> None:
    problem = None
    target = written_dtype(tensor, dtype)
    if name == "__metadata__" or not _is_text(name):
        problem = "has a name that cannot be written"
    elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        problem = "is sparse, quantised or without data, expected a plain dense tensor"
    elif tensor.dtype not in FORMATS or not _is_readable(target):
        problem = f"is {str(tensor.dtype).removeprefix('torch.')}, which cannot be written to safetensors"
    if problem:
        raise WeightsError(
            f"cannot write tensor {shown(str(name))}: it {problem}",
            "Leave the tensor out, or cast it, in the converter.",
        )


def _is_text(name: Any) -> bool:
    try:
        name.encode("utf-8")
    except (AttributeError, UnicodeEncodeError):
        return False
    return True


@cache
def _is_readable(dtype: torch.dtype) -> bool:
    """Whether the installed library reads numbers of this format, found by letting it read one."""
    one = torch.empty(1, dtype=dtype)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.safetensors"
        path.write_bytes(_header({"x": one}, ["x"], {}, None) + bytes(dtype.itemsize))
        try:
            with safe_open(path, framework="pt") as file:
                return bool(file.get_tensor("x").dtype == dtype)
        except (SafetensorError, KeyError, AttributeError, TypeError):
            return False


def _header(
    tensors: Mapping[str, Tensor], order: list[str], metadata: Mapping[str, str], dtype: torch.dtype | None
) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in order:
        tensor, target = tensors[name], written_dtype(tensors[name], dtype)
        end = start + tensor.numel() * target.itemsize
        entries[name] = {"dtype": FORMATS[target], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _all_data(
    tensors: Mapping[str, Tensor], order: list[str], dtype: torch.dtype | None
) -> Iterator[memoryview]:
    for name in order:
        yield from _data(tensors[name].detach(), written_dtype(tensors[name], dtype))


def _data(tensor: Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    for piece in _pieces(tensor):
        whole = piece.to("cpu", dtype).resolve_conj().resolve_neg().contiguous()
        # A dimension of one may have any stride, with which bytes cannot be seen.
        yield whole.as_strided((whole.numel(),), (1,)).view(torch.uint8).numpy().data


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Parts of at most `PIECE` bytes whose numbers, one part after the other, are the tensor's in order."""
    size = tensor.numel() * tensor.element_size()
    if tensor.numel() == 0:
        return
    if size <= PIECE:
        yield tensor
    elif tensor.is_contiguous() and tensor.dim() != 1:
        yield from _pieces(tensor.view(-1))
    elif size // len(tensor) > PIECE:
        for part in tensor:
            yield from _pieces(part)
    else:
        rows = PIECE // (size // len(tensor))
        for start in range(0, len(tensor), rows):
            yield tensor[start : start + rows]
