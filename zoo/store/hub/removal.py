"""Taking a file out of the Hugging Face cache, with what only it needed.

First the link, then the refs to a snapshot that it was the last file of, then the content: a process that is
killed in between leaves a cache that huggingface_hub accepts.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from zoo.errors import InvalidInput
from zoo.store.hub.address import COMMIT
from zoo.store.hub.cache import cache_folder, is_linked, link_target
from zoo.store.hub.publishing import not_writable


def remove_cached(pointer: Path) -> int:
    """Remove a file from the cache; returns the bytes that became free, 0 if it was not there.

    Its blob goes unless another snapshot links to it, its snapshot if nothing else is in it, and with that
    the refs to it. Raises `InvalidInput` for a path that no file of the cache can have, `OutputNotWritable`.
    """
    pointer = Path(os.path.abspath(pointer))
    repository, snapshot = _home_of(pointer)
    try:
        if not os.path.lexists(pointer):
            return 0
        return _remove(pointer, repository, snapshot)
    except OSError as error:
        raise not_writable(pointer, error) from error


def _remove(pointer: Path, repository: Path, snapshot: Path) -> int:
    blob = link_target(pointer)
    freed = 0 if blob else pointer.stat().st_size
    pointer.unlink()
    _remove_empty(pointer.parent, snapshot)
    if not any(snapshot.iterdir()):
        _remove_refs(repository, snapshot.name)
        snapshot.rmdir()
    if blob and blob.parent == repository / "blobs" and not is_linked(repository, blob):
        freed += _remove_blob(blob, repository.parent)
    _remove_hollow(repository)
    return freed


def _home_of(pointer: Path) -> tuple[Path, Path]:
    """The folders of the repository and the snapshot that a path is in; raises `InvalidInput` for others."""
    cache = cache_folder()
    inside = pointer.relative_to(cache).parts if pointer.is_relative_to(cache) else ()
    if (
        len(inside) < 4
        or not inside[0].startswith("models--")
        or inside[1] != "snapshots"
        or not COMMIT.fullmatch(inside[2])
        or pointer.is_dir()
        or not _is_within(pointer.parent, cache.joinpath(*inside[:3]))
    ):
        raise InvalidInput(
            f"{pointer}: is not a file of the Hugging Face cache {cache}",
            "If the cache has moved, set HF_HUB_CACHE to where the file was pulled to.",
        )
    repository = cache / inside[0]
    return repository, repository / "snapshots" / inside[2]


def _is_within(folder: Path, snapshot: Path) -> bool:
    """Whether no link on the way from the repository leads out of it."""
    real = Path(os.path.realpath(snapshot.parent.parent), *snapshot.parts[-2:])
    return Path(os.path.realpath(folder)).is_relative_to(real)


def _remove_blob(blob: Path, cache: Path) -> int:
    shared = link_target(blob)
    size = blob.stat().st_size if shared is None and blob.exists() else 0
    blob.unlink(missing_ok=True)
    return _sweep_shared(shared, cache) if shared and shared.is_relative_to(cache / "blobs") else size


def _sweep_shared(content: Path, cache: Path) -> int:
    """Let the library remove a content that its repositories shared, if none links to it now."""
    try:
        from huggingface_hub.utils._shared_blobs import sweep_shared_blob
    except ImportError:
        return 0  # A release without that store: then the content is nobody's that we know.
    return int(sweep_shared_blob(content, cache_dir=cache))


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove `folder` and what is above it below `top`, as far as they are empty."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _remove_refs(repository: Path, commit: str) -> None:
    refs = repository / "refs"
    for path in sorted(refs.rglob("*")):
        if path.is_file() and path.read_bytes().strip() == commit.encode("ascii"):
            path.unlink()
            _remove_empty(path.parent, refs)


def _remove_hollow(repository: Path) -> None:
    """Remove the folders of a repository of which nothing is left."""
    with contextlib.suppress(OSError):
        if not any((repository / "snapshots").iterdir()):
            for name in ("blobs", "refs"):
                with contextlib.suppress(OSError):
                    (repository / name).rmdir()
            # The library takes a repository without this folder for damaged: it goes last, or stays.
            if [path.name for path in repository.iterdir()] == ["snapshots"]:
                (repository / "snapshots").rmdir()
                repository.rmdir()
