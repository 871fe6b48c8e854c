"""What of a variant lies on this machine already, and still is what its card asks for."""

from __future__ import annotations

from pathlib import Path

from zoo.cards import Card, File, Variant
from zoo.errors import ChecksumError, WeightsError
from zoo.store.manifest import Manifest, Stored, read_manifest
from zoo.store.progress import Watcher
from zoo.version import __version__


def current_manifest(card: Card, variant: Variant, watcher: Watcher) -> Manifest | None:
    """The manifest, if everything that the card asks for is here. Reads no content."""
    try:
        manifest = read_manifest(card.method, variant.name)
    except WeightsError as error:
        watcher.said(f"{error.message}: it is pulled again")
        return None
    if manifest is None:
        return None
    current = _current(manifest, variant)
    return manifest if all(file.role in current for file in variant.files) else None


def kept_files(card: Card, variant: Variant) -> dict[str, Stored]:
    """Files of an earlier pull that still are what the card asks for, by role. Reads no content."""
    try:
        manifest = read_manifest(card.method, variant.name)
    except WeightsError:
        return {}
    return {} if manifest is None else _current(manifest, variant)


def shipped_file(file: File, path: Path) -> Stored:
    """A file that ships beside the card: it stays there, and is not ours to remove.

    Reads its content; raises `WeightsError` where it is missing and `ChecksumError` where it is another.
    """
    from zoo.store.hashing import file_sha256

    if not path.is_file():
        raise WeightsError(f"{path}: the card's file is missing", "Reinstall the package that brings it.")
    digest = file_sha256(path)
    if file.sha256 not in (None, digest):
        raise ChecksumError(f"{path}: expected sha256 {file.sha256}, got {digest}", "Reinstall the package.")
    return Stored(
        file.role, path, digest, path.stat().st_size, file.format, "card", file.source[0], shared=True
    )


def built_in_manifest(card: Card, variant: Variant) -> Manifest:
    """What a manifest would say of a variant that ships with a package."""
    shipped = ((file, file.local(card.folder)) for file in variant.files)
    files = tuple(shipped_file(file, path) for file, path in shipped if path is not None)
    return Manifest(card.method, variant.name, "", __version__, files)


def is_there(stored: Stored) -> bool:
    """Whether every path of a stored file still is a file."""
    return all(path.is_file() for path in stored.paths)


def _current(manifest: Manifest, variant: Variant) -> dict[str, Stored]:
    stored = ((file, manifest.file(file.role)) for file in variant.files)
    return {file.role: kept for file, kept in stored if kept is not None and _is_current(kept, file)}


def _is_current(stored: Stored, file: File) -> bool:
    """Whether a stored file is the one of the card, and as long as it was."""
    if file.sha256 is not None and stored.downloaded_sha256 != file.sha256:
        return False
    if file.sha256 is None and stored.source not in file.source and not stored.source.startswith("file:"):
        return False
    try:
        return stored.path.stat().st_size == stored.size
    except OSError:
        return False
