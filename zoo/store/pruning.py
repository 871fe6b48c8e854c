"""Pruning the store: what no pulled model needs.

Kinds of leftovers: unfinished downloads ("part"), files that were refused because of their content or moved
aside by a repair ("refused"), complete files that no manifest names ("orphan"), temporary documents of killed
processes ("temporary"), and on request downloaded files that were kept after their conversion ("original").

What stays although it looks left over:

- whatever a manifest names, and while one manifest cannot be read, everything that it might name;
- everything but refused files while a variant is being pulled. The name of a part does not tell whose it is,
  and the file of a finished role lies among the orphans until the last role has come;
- files that changed within the last hour, because locks exclude nobody on some network file systems, and
  because another store may be filling the same Hugging Face cache. Pruning everything waives only this.

Names that zoo does not give, symbolic links and folders that lead out of the store are passed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import ZooError
from zoo.store.hub import client as hub
from zoo.store.layout import blobs, home, locks, manifests, parts
from zoo.store.locate import PulledHere, pulled_here
from zoo.store.locks import store_lock, variant_lock
from zoo.store.manifest import Manifest, Stored, write_manifest
from zoo.store.removal import BLOB_NAME, Users, delete_file, not_removed, perhaps_used

Kind = Literal["part", "refused", "orphan", "temporary", "original"]

#: Seconds for which a file may lie untouched and still be somebody's.
YOUNG = 3600.0

# A part comes with its journal.
_PART = re.compile(r"(?P<part>[^.].*\.(zoo-)?part)(\.journal)?")
_TEMPORARY = re.compile(r"\..+[.-]part")


@dataclass(frozen=True)
class Leftover:
    """Something that no pulled model needs: `files` go together, `path` is the one that gives the name.

    `size` in bytes, `modified` in seconds since 1970; `kept` tells why it stays.
    """

    kind: Kind
    path: Path
    files: tuple[Path, ...]
    size: int
    modified: float
    kept: str | None = None


@dataclass(frozen=True)
class Pruned:
    """What pruning did: `kept` has the reasons, `freed` is in bytes."""

    removed: tuple[Leftover, ...]
    kept: tuple[Leftover, ...]
    freed: int


def leftovers(*, originals: bool = False, everything: bool = False) -> list[Leftover]:
    """What could be removed, and what looks like it but has to stay. Changes nothing.

    `originals` adds the downloads that were kept after their conversion, `everything` counts files as left
    over that changed within the last hour.
    """
    here = pulled_here()
    users = Users(here.manifests)
    found = [*_store_files(), *_cached_files()]
    found = [item for item in found if not any(users.of(path) for path in item.files)]
    oldest = float("inf") if everything else time.time() - YOUNG
    judged = [dataclasses.replace(item, kept=_why_kept(item, here, oldest)) for item in found]
    return [*judged, *(_originals(here) if originals else [])]


def prune(found: Sequence[Leftover], *, everything: bool = False) -> Pruned:
    """Remove those of `found` that are still left over now; raises `OutputNotWritable`."""
    wanted = {(item.kind, item.path) for item in found if item.kept is None}
    if not wanted:
        return Pruned((), tuple(found), 0)
    with ExitStack() as held:
        # A pull that begins meanwhile waits for these; one that runs already holds its own.
        running = _lock_idle_variants(held)
        held.enter_context(store_lock())
        now = leftovers(originals=any(kind == "original" for kind, _ in wanted), everything=everything)
        removed, kept, freed = [], [item for item in found if item.kept is not None], 0
        for item in now:
            if (item.kind, item.path) not in wanted:
                continue
            reason = item.kept or (_while_pulling(running) if item.kind != "refused" else None)
            if reason is None:
                try:
                    freed += _remove(item)
                except (OSError, ZooError) as error:
                    reason = not_removed(error)
            if reason is None:
                removed.append(item)
            else:
                kept.append(dataclasses.replace(item, kept=reason))
    return Pruned(tuple(removed), tuple(kept), freed)


def _why_kept(item: Leftover, here: PulledHere, oldest: float) -> str | None:
    if item.kind == "orphan" and here.damaged:
        return perhaps_used(here)
    if item.modified > oldest:
        return "it changed within the last hour"
    return None


def _while_pulling(running: Sequence[str]) -> str | None:
    return f"{', '.join(running)} is being pulled and may need it" if running else None


def _store_files() -> Iterator[Leftover]:
    """What lies in the store under names that zoo gives."""
    yield from _sorted_out(_files(parts()), ("part", "refused", "temporary"))
    yield from _sorted_out(_files(blobs()), ("orphan", "temporary"))
    for folder in (home(), manifests(), *_folders(manifests())):
        yield from _sorted_out(_files(folder), ("temporary",))


def _cached_files() -> Iterator[Leftover]:
    """Unfinished and refused downloads of ours among the files of the Hugging Face cache."""
    ours = [path for path in hub.leftovers() if not path.parent.is_symlink()]
    yield from _sorted_out(ours, ("part", "refused", "temporary"))


def _originals(here: PulledHere) -> Iterator[Leftover]:
    """Kept downloads, each once, that belong to zoo alone."""
    rest = Users(_without_original(manifest) for manifest in here.manifests)
    seen = set()
    for manifest in here.manifests:
        for file in manifest.files:
            original = file.original
            if original is None or original.path is None or original.shared or original.path in seen:
                continue
            seen.add(original.path)
            user = rest.of(original.path)
            reason = f"{user} uses it" if user else None
            if reason is None and here.damaged:
                reason = perhaps_used(here)
            size, modified = original.size, 0.0
            try:
                modified = original.path.stat().st_mtime
            except OSError:
                size = 0  # It is gone, and only the manifests have to forget it.
            yield Leftover("original", original.path, (original.path,), size, modified, reason)


def _without_original(manifest: Manifest, path: Path | None = None) -> Manifest:
    """The manifest without its kept originals, or without the one at `path`."""

    def without(file: Stored) -> Stored:
        original = file.original
        if original is None or original.path is None or original.shared:
            return file
        if path is not None and original.path != path:
            return file
        return dataclasses.replace(file, original=dataclasses.replace(original, path=None))

    return dataclasses.replace(manifest, files=tuple(without(file) for file in manifest.files))


def _remove(item: Leftover) -> int:
    """Remove a leftover and return the bytes that came free; raises `OSError` or `ZooError`."""
    if item.kind == "original":
        # No manifest may name a file that is not there.
        for manifest in pulled_here().manifests:
            changed = _without_original(manifest, item.path)
            if changed != manifest:
                write_manifest(changed)
        return delete_file(item.path) if os.path.lexists(item.path) else 0
    # The longest names first: a part whose journal is gone counts as empty, never as complete.
    for path in sorted(item.files, key=lambda path: len(path.name), reverse=True):
        path.unlink(missing_ok=True)
    return item.size


class _Busy(Exception):
    """Another process holds the lock."""


def _lock_idle_variants(held: ExitStack) -> list[str]:
    """Hold the lock of every variant that has one or is pulled; returns those that others hold."""
    names = {(manifest.method, manifest.variant) for manifest in pulled_here().manifests}
    for path in locks().glob("?*--?*.lock"):
        method, _, variant = path.stem.partition("--")
        names.add((method, variant))

    def busy() -> None:
        raise _Busy

    running = []
    for method, variant in sorted(names):
        try:
            held.enter_context(variant_lock(method, variant, busy))
        except _Busy:
            running.append(f"{method}:{variant}")
    return running


def _sorted_out(paths: Iterable[Path], kinds: Sequence[Kind]) -> Iterator[Leftover]:
    """The regular files of these kinds, those that belong together as one."""
    groups: dict[tuple[Kind, Path], list[tuple[Path, os.stat_result]]] = {}
    for path in paths:
        kind, name = _kind(path.name)
        if kind is None or kind not in kinds:
            continue
        with contextlib.suppress(OSError):  # It may have gone away.
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                groups.setdefault((kind, path.with_name(name)), []).append((path, status))
    for (kind, path), members in sorted(groups.items()):
        size = sum(status.st_size for _, status in members)
        modified = max(status.st_mtime for _, status in members)
        yield Leftover(kind, path, tuple(member for member, _ in members), size, modified)


def _kind(name: str) -> tuple[Kind | None, str]:
    """What a name that zoo gives stands for, and the name of the file that it belongs to."""
    if _TEMPORARY.fullmatch(name):
        return "temporary", name
    if name.startswith("."):
        return None, name
    if name.endswith(".bad"):
        return "refused", name
    if BLOB_NAME.fullmatch(name):
        return "orphan", name
    part = _PART.fullmatch(name)
    return ("part", part["part"]) if part else (None, name)


def _files(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder)]


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder; nothing for a link to one, unless the whole store is such a link."""
    if folder.is_symlink() and folder != home():
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
