"""Verifying: reading every file again and comparing its digest with what it was, or has to be.

Pulled variants are compared with their manifests, built-in ones with their cards. A damaged file is repaired
by moving it aside, where it stays for inspection, and pulling it again.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.cards import Card, Variant
from zoo.catalogue import Catalogue, list_models, load_catalogue
from zoo.errors import NotPulled, OutputNotWritable, WeightsError
from zoo.store.hashing import file_sha256
from zoo.store.layout import manifest_path, parts
from zoo.store.locate import Unreadable, locate, meant, pulled_here, resolved
from zoo.store.locks import variant_lock
from zoo.store.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from zoo.session import Session
    from zoo.store.progress import Watcher

#: "unverified" is as first pulled, but nobody else vouches for it; "unknown": the card has no digest;
#: "absent": of an optional component, and no source had it.
Status = Literal["ok", "unverified", "unknown", "damaged", "missing", "absent"]

#: Several files at once use several cores; more readers than this only make a spinning disk seek.
READERS = 4

#: The role under which a manifest that cannot be read is reported.
MANIFEST = "manifest"


@dataclass(frozen=True)
class Check:
    """One file: `expected` and `actual` are sha256 digests, `size` is in bytes.

    `original` marks a download that was kept after its conversion, `built_in` what ships with a package, and
    `problem` tells why a file cannot be read. An absent file has the path of the manifest that says so.
    """

    reference: str
    role: str
    path: Path
    status: Status
    size: int | None
    expected: str | None
    actual: str | None
    problem: str | None = None
    original: bool = False
    built_in: bool = False

    @property
    def failed(self) -> bool:
        """Whether the file is not what it has to be."""
        return self.status in ("damaged", "missing")

    @property
    def repairable(self) -> bool:
        """Whether pulling it again may help: not for what ships with a package, nor for a folder."""
        return self.failed and not self.built_in and os.sep not in self.reference


@dataclass(frozen=True)
class _Task:
    """A file to hash: `vouched` tells that its digest comes from somebody other than the file's server."""

    reference: str
    role: str
    path: Path
    expected: str | None
    vouched: bool
    original: bool = False
    built_in: bool = False


def verify(
    references: Sequence[str] | None = None,
    *,
    catalogue: Catalogue | None = None,
    advanced: Callable[[int, int], None] = lambda done, total: None,
) -> list[Check]:
    """Hash every file of the variants, by default of all that are pulled or built in.

    `advanced` receives the bytes read so far and those of all files; its calls come one at a time. Raises
    `NotFound`, and `NotPulled` for a variant whose weights are not on this machine.
    """
    catalogue = catalogue or load_catalogue()
    if references is None:
        return _hashed(_everything(catalogue), advanced)
    # Each once, also where a model is named twice.
    tasks = dict.fromkeys(task for reference in references for task in _tasks(reference, catalogue))
    return _hashed(list(tasks), advanced)


def repair(
    reference: str, *, session: Session | None = None, watcher: Watcher | None = None
) -> tuple[str, ...]:
    """Pull every damaged or missing file of a pulled variant (`method:variant`) anew; returns their roles.

    A damaged file is kept beside the unfinished downloads as `<digest>.bad`. What ships with a package is
    left as it is. Raises `OutputNotWritable`, and what the pull raises.
    """
    from zoo.store.pull import pull

    method, _, variant = reference.partition(":")
    try:
        with variant_lock(method, variant):
            manifest = read_manifest(method, variant)
            roles = _move_aside(manifest) if manifest else ()
    except WeightsError:
        # A pull writes a new manifest; the files that the old one named are found again by their digests.
        manifest, roles = None, (MANIFEST,)
    if roles:
        kept = manifest is not None and any(file.original and file.original.path for file in manifest.files)
        again = roles if manifest is not None else ()
        pull(reference, keep_original=kept, repair=again, watcher=watcher, session=session)
    return roles


def _everything(catalogue: Catalogue) -> list[_Task | Check]:
    here = pulled_here()
    found = {manifest.reference: _of_manifest(manifest) for manifest in here.manifests}
    found |= {entry.name: [_unreadable(entry)] for entry in here.damaged}
    for card, variant, state in list_models(catalogue):
        if state == "built-in":
            found.setdefault(f"{card.method}:{variant.name}", _of_card(card, variant))
    return [task for _, tasks in sorted(found.items()) for task in tasks]


def _tasks(reference: str, catalogue: Catalogue) -> list[_Task | Check]:
    method, name = meant(reference, catalogue)
    try:
        manifest = read_manifest(method, name)
    except WeightsError as error:
        return [_unreadable(Unreadable(manifest_path(method, name), f"{method}:{name}", error))]
    if manifest is not None:
        return _of_manifest(manifest)
    card, variant = resolved(reference, catalogue)
    try:
        locate(card, variant)
    except NotPulled:
        raise
    except WeightsError:
        pass  # A file is missing, which is an answer here.
    return _of_card(card, variant)


def _of_manifest(manifest: Manifest) -> list[_Task | Check]:
    tasks: list[_Task | Check] = []
    for file in manifest.files:
        # A source without a scheme is a path beside the card, also where other files had to be pulled.
        task = _Task(
            manifest.reference,
            file.role,
            file.path,
            file.sha256,
            file.verified,
            built_in="://" not in file.source,
        )
        tasks.append(task)
        kept = file.original
        if kept is not None and kept.path is not None:
            tasks.append(replace(task, path=kept.path, expected=kept.sha256, original=True))
    path = manifest_path(manifest.method, manifest.variant)
    for role in manifest.missing:
        tasks.append(Check(manifest.reference, role, path, "absent", None, None, None))
    return tasks


def _of_card(card: Card, variant: Variant) -> list[_Task | Check]:
    reference = f"{card.method}:{variant.name}"
    found = [(file, file.local(card.folder)) for file in variant.files]
    return [
        _Task(reference, file.role, path, file.sha256, True, built_in=True)
        for file, path in found
        if path is not None
    ]


def _unreadable(entry: Unreadable) -> Check:
    return Check(entry.name, MANIFEST, entry.path, "damaged", None, None, None, entry.error.message)


class _Stopped(Exception):
    """The user does not want to wait any longer."""


class _Progress:
    """Adds up the bytes of files that are read at the same time, and can stop all of them."""

    def __init__(self, total: int, advanced: Callable[[int, int], None]) -> None:
        self._total, self._advanced = total, advanced
        self._done: dict[_Task, int] = {}
        self._lock = threading.Lock()
        self.stopped = False

    def moved(self, task: _Task, done: int) -> None:
        if self.stopped:
            raise _Stopped
        with self._lock:
            self._done[task] = done
            self._advanced(sum(self._done.values()), self._total)


def _hashed(tasks: Sequence[_Task | Check], advanced: Callable[[int, int], None]) -> list[Check]:
    progress = _Progress(sum(_size(task.path) or 0 for task in tasks if isinstance(task, _Task)), advanced)

    def check(task: _Task | Check) -> Check:
        return _checked(task, progress) if isinstance(task, _Task) else task

    with ThreadPoolExecutor(READERS) as readers:
        try:
            return list(readers.map(check, tasks))
        except BaseException:
            # Else Ctrl-C would wait until files of many gigabytes are read to their ends.
            progress.stopped = True
            raise


def _checked(task: _Task, progress: _Progress) -> Check:
    size = _size(task.path)
    actual, problem = None, None
    status: Status = "missing"
    if size is not None or os.path.exists(task.path):
        try:
            actual = file_sha256(task.path, lambda done: progress.moved(task, done))
        except FileNotFoundError:
            pass
        except OSError as error:
            status, problem = "damaged", f"cannot be read: {(error.strerror or str(error)).lower()}"
        else:
            status = _status(task, actual)
    return Check(
        task.reference,
        task.role,
        task.path,
        status,
        size,
        task.expected,
        actual,
        problem,
        task.original,
        task.built_in,
    )


def _status(task: _Task, actual: str) -> Status:
    if task.expected is None:
        return "unknown"
    if actual != task.expected:
        return "damaged"
    return "ok" if task.vouched else "unverified"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _move_aside(manifest: Manifest) -> tuple[str, ...]:
    """Move what is damaged out of the way; returns the roles whose files have to come again.

    Hashes before it moves, because a file that two variants use may have been repaired a moment ago.
    """
    checks = _hashed(_of_manifest(manifest), lambda done, total: None)
    bad = [check for check in checks if check.repairable]
    for check in bad:
        if check.status == "damaged":
            _refuse(check)
    return tuple(dict.fromkeys(check.role for check in bad))


def _refuse(check: Check) -> None:
    """Keep a damaged file, named by what it holds. In the Hugging Face cache its name there goes with it."""
    content = Path(os.path.realpath(check.path))
    name = f"sha256-{check.actual}" if check.actual else content.name
    try:
        parts().mkdir(parents=True, exist_ok=True)
        # The cache may be on another disk than the store.
        shutil.move(content, parts() / f"{name}.bad")
        if check.path.is_symlink():
            check.path.unlink()
    except OSError as error:
        raise OutputNotWritable(
            f"{check.path}: cannot be moved aside: {(error.strerror or str(error)).lower()}",
            "Ask for the right to write to the store, or set ZOO_HOME.",
        ) from error
