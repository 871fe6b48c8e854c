"""Reading the tensors of a PyTorch checkpoint. Nothing of the file is executed, imported or unpacked.

A checkpoint is a pickle, which describes objects, and storages, which are plain bytes. The pickle runs on an
interpreter of our own that cannot call anything (pickle_machine.py), every number of the file is checked
against the bytes that are there, and the tensors are views of the file mapped into memory: writing to them
never reaches the file. Classes of the authors' that a checkpoint drags along, as command line
arguments or optimisers, need not be installed and are left out.

torch.save writes both parts as members of a zip file since torch 1.6, and one after the other before. Why
not `torch.load(weights_only=True)`: it refuses a file for every class that it does not know, copies the old
format, and a few hundred bytes suffice to keep it busy for ever.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from zoo.errors import WeightsError
from zoo.store.checkpoints.archives import Archive, shown
from zoo.store.checkpoints.formats import (
    cannot_be_read,
    damaged_checkpoint,
    is_legacy,
    looks_like,
    wrong_format,
)
from zoo.store.checkpoints.mapped_tensors import Extent, map_tensors
from zoo.store.checkpoints.pickle_machine import Malformed, Table, interpret
from zoo.store.checkpoints.tensor_entries import tensor_entries
from zoo.store.checkpoints.tensor_records import (
    STORAGE_BYTES,
    Applier,
    LegacyStorages,
    StorageRecord,
    storage_record,
)

LARGEST_PICKLE = 64 * 2**20
_LEGACY_PROTOCOL = 1001


def read_checkpoint(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, of the checkpoint at `path`.

    They are those of its entry `entry`, by default of "state_dict" where there is one that holds tensors;
    else of the top-level mapping, or of the only entry with tensors. What is no tensor is left out. Raises
    `WeightsError` for a file that is no checkpoint, is damaged, or has no such mapping, and for a tensor
    that is sparse, quantised, without data, or made by a function that is not known.
    """
    kind = looks_like(path)
    if kind != "pytorch":
        raise wrong_format(path, kind, "a PyTorch checkpoint")
    legacy = is_legacy(path)
    try:
        with path.open("rb") as file:
            return (_read_legacy if legacy else _read_archive)(path, file, entry)
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except Malformed as error:
        raise damaged_checkpoint(path, f"its pickle is not valid: {error}") from error


def _read_archive(path: Path, file: BinaryIO, entry: str | None) -> dict[str, Tensor]:
    archive = Archive(path, file)
    pickles = [name for name in archive.names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise damaged_checkpoint(path, f"it has {len(pickles)} members */data.pkl, expected one")
    folder = pickles[0].removesuffix("data.pkl")
    # Files of before torch 2.1 do not say; nearly all machines were little-endian then, too.
    order = archive.read(f"{folder}byteorder", 16) if f"{folder}byteorder" in archive else b"little"
    _check_byte_order(path, order.decode("latin-1"))
    content, _ = interpret(archive.read(pickles[0], LARGEST_PICKLE), Applier(), storage_record)
    records = tensor_entries(content, path, entry)
    members = {record.storage.key: f"{folder}data/{record.storage.key}" for record in records.values()}
    extents = {key: archive.extent(member) for key, member in members.items() if member in archive}
    return map_tensors(path, file, archive.file_size, records, extents)


def _read_legacy(path: Path, file: BinaryIO, entry: str | None) -> dict[str, Tensor]:
    """Five pickles: a magic number, a version, facts of the machine, the content, the storages' keys."""
    program, size = file.read(LARGEST_PICKLE), os.fstat(file.fileno()).st_size
    storages, at, parts = LegacyStorages(), 0, []
    for _ in range(5):
        part, at = interpret(program, Applier(), storages, at)
        parts.append(part)
    _, version, facts, content, keys = parts
    if version != _LEGACY_PROTOCOL or not isinstance(keys, list):
        raise Malformed("it is not of the known version")
    if isinstance(facts, Table) and ("little_endian", False) in facts[:16]:
        _check_byte_order(path, "big")
    records = tensor_entries(content, path, entry)
    listed = [storages.whole.get(key) if isinstance(key, str) else None for key in keys]
    extents = _follow(file, at, size, listed)
    return map_tensors(path, file, size, records, extents)


def _follow(file: BinaryIO, at: int, size: int, storages: list[StorageRecord | None]) -> dict[str, Extent]:
    """Where storages lie that follow one another from byte `at`, each after eight bytes with its length."""
    extents: dict[str, Extent] = {}
    for storage in storages:
        unit = None if storage is None else STORAGE_BYTES.get(storage.dtype)
        if storage is None or unit is None or storage.key in extents:
            raise Malformed("it lists a storage that it does not describe")
        length = os.pread(file.fileno(), 8, at)
        if len(length) < 8 or int.from_bytes(length, "little", signed=True) != storage.numel:
            raise Malformed("its storages are not where they should be, as when a download was cut off")
        extents[storage.key] = at + 8, storage.numel * unit
        at += 8 + storage.numel * unit
        if at > size:
            raise Malformed("its storages reach beyond the file, as when a download was cut off")
    return extents


def _check_byte_order(path: Path, order: str) -> None:
    if order != sys.byteorder:
        raise WeightsError(
            f"{path}: its numbers are in byte order {shown(order)}, expected '{sys.byteorder}'",
            "Save it again on a machine of this kind.",
        )
