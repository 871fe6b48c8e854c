"""How much of weights files is used as it lies there, told by their headers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from zoo.runtime.loading import mapped_bytes, read_tensors
from zoo.store.checkpoints.formats import check_safetensors, looks_like

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def mapped_in(files: Iterable[tuple[Path, str | None]], device: torch.device, dtype: torch.dtype) -> int:
    """Bytes of files that a device uses as they lie there, in a number format; none but a CPU does.

    files: paths, each with the entry of its checkpoint that holds the tensors, if it has any. No weight is
    read, and a safetensors file is not even mapped: one may be larger than what can be. Raises `WeightsError`
    for a file that holds no weights.
    """
    if device.type != "cpu":
        return 0
    return sum(_mapped(path, entry, device, dtype) for path, entry in files)


def _mapped(path: Path, entry: str | None, device: torch.device, dtype: torch.dtype) -> int:
    if looks_like(path) != "safetensors":
        return mapped_bytes(read_tensors(path, entry), device, dtype)
    check_safetensors(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    found = [(tensor["dtype"], tensor["data_offsets"]) for tensor in header.values()]
    return sum(end - start for kind, (start, end) in found if kind == _NAMES[dtype] or not _is_floating(kind))


def _is_floating(kind: str) -> bool:
    return kind.startswith(("F", "BF"))
