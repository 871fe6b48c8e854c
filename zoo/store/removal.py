"""Removing pulled variants: the manifest first, then the files that nobody else uses.

From the moment its manifest is gone a variant is not pulled; a process that is killed after that leaves files
that no manifest names, which `zoo prune` finds. A model that is loaded keeps running: the system keeps a
removed file as long as somebody has it mapped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from zoo.catalogue import Catalogue, load_catalogue, state_of
from zoo.errors import InvalidInput, NotPulled, OutputNotWritable, WeightsError, ZooError
from zoo.store.layout import blobs, home, manifest_path
from zoo.store.locate import PulledHere, is_pulled, meant, pulled_here, resolved
from zoo.store.locks import content_name, idle_content, store_lock, variant_lock
from zoo.store.manifest import Manifest, Stored, read_manifest
from zoo.store.publishing import sync_folder

BLOB_NAME = re.compile(r"sha256-[0-9a-f]{64}")


@dataclass(frozen=True)
class Kept:
    """A file of a removed variant that stays, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be: references, bytes that came free, and files that stay."""

    removed: tuple[str, ...]
    freed: int
    kept: tuple[Kept, ...]
    warnings: tuple[str, ...] = ()


class Users:
    """Which variant uses a file. A blob is known by its name as well, however the store is reached."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._by_path: dict[str, str] = {}
        self._by_blob: dict[str, str] = {}
        for manifest in manifests:
            for path in (path for file in manifest.files for path in file.paths):
                self._by_path.setdefault(os.path.realpath(path), manifest.reference)
                self._by_path.setdefault(str(path), manifest.reference)
                if BLOB_NAME.fullmatch(path.name):
                    self._by_blob.setdefault(path.name, manifest.reference)

    def of(self, path: Path) -> str | None:
        """A reference whose manifest names the file."""
        return (
            self._by_path.get(os.path.realpath(path))
            or self._by_path.get(str(path))
            or (self._by_blob.get(path.name) if path.parent == blobs() else None)
        )


def remove(
    references: Sequence[str | tuple[str, str]],
    *,
    catalogue: Catalogue | None = None,
    dry_run: bool = False,
    waiting: Callable[[], None] | None = None,
) -> Removal:
    """Remove pulled variants, given as references or as (method, variant), and what only they use.

    `waiting` is called when another process works on one of them. With `dry_run` nothing is changed. Raises
    `NotPulled`, `InvalidInput` for a built-in variant and `NotFound` before anything is removed;
    `OutputNotWritable` where the store may not be changed.
    """
    variants = _variants(references, catalogue)
    if dry_run:
        documents = [_read(*variant) for variant in variants]
        return _freed(variants, documents, _without(variants), lambda path: None)
    with ExitStack() as locks:
        # In one order everywhere, so that two removals never wait for each other.
        for method, variant in variants:
            locks.enter_context(variant_lock(method, variant, waiting))
        # Another process may have been faster.
        variants = [name for name in variants if is_pulled(*name)]
        documents = []
        for name in variants:
            documents.append(_read(*name))
            _forget(*name)
        with store_lock():
            return _freed(variants, documents, pulled_here(), delete_file)


def _variants(
    references: Sequence[str | tuple[str, str]], catalogue: Catalogue | None
) -> list[tuple[str, str]]:
    """Method and variant of each, checked to be pulled, without repetitions and sorted."""
    texts = [reference for reference in references if isinstance(reference, str)]
    if texts and catalogue is None:
        catalogue = load_catalogue()
    found = set()
    for reference in references:
        if isinstance(reference, str):
            assert catalogue is not None
            name = meant(reference, catalogue)
            if not is_pulled(*name):
                raise _not_pulled(reference, catalogue)
        else:
            name = reference
            if not is_pulled(*name):
                raise NotPulled(f"{name[0]}:{name[1]} is not pulled: there is nothing to remove", _LISTED)
        found.add(name)
    return sorted(found)


_LISTED = "zoo list --state pulled shows what is pulled."


def _not_pulled(reference: str, catalogue: Catalogue) -> InvalidInput | NotPulled:
    card, variant = resolved(reference, catalogue)
    name = f"{card.method}:{variant.name}"
    if state_of(card, variant) == "built-in":
        return InvalidInput(f"{name} is built in, it comes with its package and cannot be removed", _LISTED)
    return NotPulled(f"{name} is not pulled: there is nothing to remove", _LISTED)


def _read(method: str, variant: str) -> tuple[Stored, ...] | None:
    """The files of a variant; None where its manifest cannot be read, because then nobody knows them."""
    try:
        manifest = read_manifest(method, variant)
    except WeightsError:
        return None
    return manifest.files if manifest else ()


def _forget(method: str, variant: str) -> None:
    path = manifest_path(method, variant)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputNotWritable(
            f"{path}: cannot be removed: {(error.strerror or str(error)).lower()}",
            "Ask for the right to write to the store, or set ZOO_HOME.",
        ) from error
    sync_folder(path.parent)


def _without(variants: Sequence[tuple[str, str]]) -> PulledHere:
    """The store as it would be without these variants."""
    here, names = pulled_here(), {f"{method}:{variant}" for method, variant in variants}
    return PulledHere(
        tuple(manifest for manifest in here.manifests if manifest.reference not in names),
        tuple(entry for entry in here.damaged if entry.reference not in names),
    )


def _freed(
    variants: Sequence[tuple[str, str]],
    documents: Sequence[tuple[Stored, ...] | None],
    rest: PulledHere,
    delete: Callable[[Path], int | None],
) -> Removal:
    """Let `delete` remove every file of the variants that the `rest` of the store does not use.

    `delete` returns the bytes that came free, or None for what the manifest says.
    """
    users, freed, kept = Users(rest.manifests), 0, []
    names = [f"{method}:{variant}" for method, variant in variants]
    files = [file for document in documents for file in document or ()]
    for path, (size, shared) in _owned(files).items():
        reason = _why_kept(path, shared, users, rest)
        if reason is None and os.path.lexists(path):
            try:
                bytes_freed = delete(path)
                freed += size if bytes_freed is None else bytes_freed
            except (OSError, ZooError) as error:
                reason = not_removed(error)
        if reason is not None:
            kept.append(Kept(str(path), reason))
    warnings = [
        f"the manifest of {name} could not be read, so its files stay; zoo prune finds them"
        for name, document in zip(names, documents, strict=True)
        if document is None
    ]
    warnings += [f"{entry.error.message}\n{entry.error.hint}" for entry in rest.damaged if kept]
    return Removal(tuple(names), freed, tuple(kept), tuple(warnings))


def _owned(files: Sequence[Stored]) -> dict[Path, tuple[int, bool]]:
    """Size of every path, kept originals included, and whether it is shared with others than zoo."""
    owned: dict[Path, tuple[int, bool]] = {}
    entries = [(file.path, file.size, file.shared) for file in files]
    entries += [
        (file.original.path, file.original.size, file.original.shared)
        for file in files
        if file.original is not None and file.original.path is not None
    ]
    for path, size, shared in entries:
        owned[path] = (size, shared or owned.get(path, (0, False))[1])
    return owned


def _why_kept(path: Path, shared: bool, users: Users, rest: PulledHere) -> str | None:
    if shared:
        return "it was there before zoo used it"
    user = users.of(path)
    if user is not None:
        return f"{user} uses it"
    if rest.damaged:
        return perhaps_used(rest)
    if path.is_relative_to(home()) and not is_blob(path):
        return "it is no file that zoo stores"
    return None


def perhaps_used(here: PulledHere) -> str:
    """Why nothing can be removed while a manifest cannot be read."""
    return f"{', '.join(entry.name for entry in here.damaged)} cannot be read and may use it"


def is_blob(path: Path) -> bool:
    """Whether the path is that of a complete file in the store."""
    return path.parent == blobs() and BLOB_NAME.fullmatch(path.name) is not None


def delete_file(path: Path) -> int:
    """Remove a stored file, a blob or one of the Hugging Face cache; returns the bytes that came free.

    Raises `OSError`, or a `ZooError` for a path outside of both and for content that is being pulled.
    """
    with idle_content(content_name(path)) as idle:
        if not idle:
            raise WeightsError("another process is pulling it")
        if not is_blob(path):
            from zoo.store.hub.removal import remove_cached

            return remove_cached(path)
        size = path.lstat().st_size
        path.unlink()
        return size


def not_removed(error: OSError | ZooError) -> str:
    """Why a file is still there."""
    if isinstance(error, ZooError):
        return f"it was not removed: {error.message}"
    return f"it cannot be removed: {(error.strerror or str(error)).lower()}"
