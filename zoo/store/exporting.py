"""Exporting: a variant's files as a plain folder that `--weights` reads, on this machine or another one.

    <role>.safetensors      one for each file; what is no safetensors file keeps its suffix
    card.json               the facts of the variant, and the digest of each file

Every file is copied, because a link into the store would let an editor damage what others use, and is hashed
on the way. A new folder appears complete or not at all; in a folder that exists no file is touched before all
are copied and checked, and card.json comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.cards import Card, File, Variant
from zoo.catalogue import Catalogue, load_catalogue
from zoo.describe import details
from zoo.errors import CardError, ChecksumError, DoesNotFit, OutputExists, OutputNotWritable, WeightsError
from zoo.quantities import human_bytes
from zoo.references import is_name
from zoo.store.locate import SAFETENSORS, gone, locate, resolved
from zoo.store.manifest import Manifest, Stored, read_manifest
from zoo.store.publishing import sync_folder

CARD = "card.json"

#: Bytes that are read and written at once.
BLOCK = 1 << 22


@dataclass(frozen=True)
class ExportedFile:
    """A file of an exported folder; `verified` is None where nobody published a digest."""

    role: str
    path: Path
    sha256: str
    size: int
    verified: bool | None


@dataclass(frozen=True)
class Export:
    """A folder that was written."""

    reference: str
    folder: Path
    files: tuple[ExportedFile, ...]
    size: int


@dataclass(frozen=True)
class _Source:
    """A file to copy: `expected` is its sha256 where that is known."""

    role: str
    name: str
    path: Path
    size: int
    expected: str | None
    verified: bool | None


def export(
    reference: str,
    folder: Path,
    *,
    overwrite: bool = False,
    catalogue: Catalogue | None = None,
    advanced: Callable[[int, int], None] = lambda done, total: None,
) -> Export:
    """Copy the files of a built-in or pulled variant to `folder`.

    A folder that is not empty is refused; with `overwrite`, files of the same names are replaced and all
    others stay. `advanced` receives the bytes copied so far and those of all files. Raises `NotFound`,
    `NotPulled`, `WeightsError`, `ChecksumError` where a file is damaged, `DoesNotFit`, `OutputExists` or
    `OutputNotWritable`.
    """
    catalogue = catalogue or load_catalogue()
    card, variant = resolved(reference, catalogue)
    name = f"{card.method}:{variant.name}"
    target = Path(os.path.realpath(folder.expanduser()))
    sources = _sources(card, variant)
    with _errors_told(target):
        _check_target(target, [source.name for source in sources], overwrite)
        total = sum(source.size for source in sources)
        _check_room(target, total)
        with _temporary_folder(target) as temporary:
            copied = _copied(name, sources, temporary, total, advanced)
            _write_card(temporary / CARD, _document(catalogue, card, variant, copied))
            sync_folder(temporary)
            _put_in_place(temporary, target, [*(source.name for source in sources), CARD])
    files = tuple(
        ExportedFile(source.role, target / source.name, digest, size, source.verified)
        for source, digest, size in copied
    )
    return Export(name, target, files, sum(file.size for file in files))


def _sources(card: Card, variant: Variant) -> list[_Source]:
    paths = locate(card, variant)
    manifest = read_manifest(card.method, variant.name)
    sources = []
    for role, path in paths.items():
        if not is_name(role):
            # It becomes the name of a file, and may not lead elsewhere.
            raise CardError(f"{card.method}:{variant.name}: {role!r} is no valid name of a role")
        sources.append(_source(role, path, variant, manifest))
    names = [source.name for source in sources]
    if len({*names, CARD}) <= len(names):
        raise CardError(f"{card.method}:{variant.name}: two of its files would be called the same: {names}")
    return sources


def _source(role: str, path: Path, variant: Variant, manifest: Manifest | None) -> _Source:
    stored = manifest.file(role) if manifest is not None else None
    file = next((file for file in variant.files if file.role == role), None)
    size = stored.size if stored is not None else _size(path)
    expected: str | None
    verified: bool | None
    if stored is not None:
        expected, verified = stored.sha256, stored.verified
    else:
        expected = file.sha256 if file is not None else None
        verified = None if expected is None else True
    return _Source(role, f"{role}{_suffix(stored or file, path)}", path, size, expected, verified)


def _suffix(file: Stored | File | None, path: Path) -> str:
    """`.safetensors`, or for other formats the suffix that the file was published with."""
    if file is None or file.format == "safetensors":
        return SAFETENSORS
    source = file.source if isinstance(file.source, str) else file.source[0]
    # A revision ends an address of the hub, and a query may end any other.
    address = source.partition("@" if source.startswith("hf://") else "?")[0]
    return posixpath.splitext(posixpath.basename(address))[1] or path.suffix


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _check_target(target: Path, names: Sequence[str], overwrite: bool) -> None:
    there = _existing(target)
    if not there.is_dir():
        raise OutputExists(f"{there} is a file, expected a folder", "Choose another folder.")
    if there != target:
        return
    if not overwrite and any(target.iterdir()):
        raise OutputExists(
            f"{target} exists already and is not empty", "Choose another folder, or pass --overwrite."
        )
    for name in (*names, CARD):
        if (target / name).is_dir():
            raise OutputExists(f"{target / name} exists already and is a folder", "Choose another folder.")


def _check_room(target: Path, needed: int) -> None:
    there = _existing(target)
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DoesNotFit(
            f"{there} has no room for {human_bytes(needed)}: {human_bytes(needed - free)} more than is free",
            "Choose a folder on another disk.",
        )


def _existing(target: Path) -> Path:
    """The target, or the nearest of the folders above it that is there."""
    return next(place for place in (target, *target.parents) if place.exists())


@contextlib.contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """A folder on the target's disk, removed at the end: beside a new folder, inside one that exists."""
    where = target if target.is_dir() else target.parent
    where.mkdir(parents=True, exist_ok=True)
    temporary = where / f".zoo-{secrets.token_hex(8)}.part"
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copied(
    reference: str,
    sources: Sequence[_Source],
    folder: Path,
    total: int,
    advanced: Callable[[int, int], None],
) -> list[tuple[_Source, str, int]]:
    """Copy every file and check its content; returns digest and size of each."""
    copied, before = [], 0
    for source in sources:
        digest, size = _copy(reference, source, folder / source.name, before, total, advanced)
        if source.expected is not None and digest != source.expected:
            raise ChecksumError(
                f"{source.path} is damaged: expected sha256 {source.expected}, got {digest}",
                f"zoo verify {reference} --repair",
            )
        copied.append((source, digest, size))
        before += size
    return copied


def _copy(
    reference: str,
    source: _Source,
    target: Path,
    before: int,
    total: int,
    advanced: Callable[[int, int], None],
) -> tuple[str, int]:
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(BLOCK))
    try:
        reading = source.path.open("rb", buffering=0)
    except FileNotFoundError:
        raise gone(reference, source.path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WeightsError(f"{source.path}: cannot be read: {reason}") from error
    with reading, target.open("xb", buffering=0) as writing:
        while count := reading.readinto(buffer):
            block = buffer[:count]
            digest.update(block)
            while block:
                block = block[writing.write(block) :]
            size += count
            advanced(before + size, total)
        os.fsync(writing.fileno())
    return digest.hexdigest(), size


def _document(
    catalogue: Catalogue, card: Card, variant: Variant, copied: Sequence[tuple[_Source, str, int]]
) -> dict[str, Any]:
    """What `zoo show --json` says, less what holds on this machine only, and what the folder holds."""
    document = details(catalogue, card, variant)
    for key in ("state", "card", "overrides", "pulled"):
        document.pop(key, None)
    document["files"] = [
        {key: value for key, value in file.items() if key != "path"} for file in document["files"]
    ]
    document["exported"] = [
        {
            "role": source.role,
            "name": source.name,
            "sha256": digest,
            "size": size,
            "verified": source.verified,
        }
        for source, digest, size in copied
    ]
    return document


def _write_card(path: Path, document: dict[str, Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(document, file, indent=2, ensure_ascii=False, default=str)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, target: Path, names: Sequence[str]) -> None:
    if temporary.parent == target:
        for name in names:
            os.replace(temporary / name, target / name)
        sync_folder(target)
        return
    try:
        os.rename(temporary, target)
    except OSError as error:
        if os.path.lexists(target):
            raise OutputExists(f"{target} has come into being meanwhile", "Choose another folder.") from error
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def _errors_told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputNotWritable(
            f"cannot write {target}: {(error.strerror or str(error)).lower()}",
            "Choose a folder that you may write to and that has room.",
        ) from error
