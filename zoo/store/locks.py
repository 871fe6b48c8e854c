"""Locks between processes: for each variant, for content that is on its way, and for the store as a whole.

`flock` is released by the system when its holder ends, however it ends. On file systems where it silently
excludes nobody (some network ones) two pulls write the same bytes to the same places, and the digest decides.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zoo.errors import OutputNotWritable
from zoo.store.layout import blobs, locks

POLL_SECONDS = 0.1


@contextmanager
def variant_lock(method: str, variant: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a variant; `waiting` is called once if another process holds it."""
    with _held(locks() / f"{method}--{variant}.lock", waiting):
        yield


@contextmanager
def content_locks(names: Collection[str], waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the locks of contents, by `content_name`: two variants may ask for the same bytes at once."""
    with ExitStack() as held:
        for name in sorted(set(names)):  # In one order for all, so that no two wait for each other.
            held.enter_context(_held(locks() / f"{name}.lock", waiting))
        yield


@contextmanager
def idle_content(name: str) -> Iterator[bool]:
    """Hold the lock of a content if nobody does; yields whether it is held now."""
    path = locks() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _tried(handle)
    finally:
        os.close(handle)


def content_name(path: Path) -> str:
    """The name under which the content that lies at `path`, or will, is locked."""
    return path.name if path.parent == blobs() else hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


@contextmanager
def store_lock() -> Iterator[None]:
    """Hold the store's lock: while references to blobs are written or blobs that nobody refers to removed."""
    with _held(locks() / "store.lock", None):
        yield


@contextmanager
def _held(path: Path, waiting: Callable[[], None] | None) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputNotWritable(
            f"the store cannot be written: {path.parent}: {(error.strerror or str(error)).lower()}",
            "Set ZOO_HOME to a folder that you may write to.",
        ) from error
    try:
        _acquire(handle, waiting)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, waiting: Callable[[], None] | None) -> None:
    """Polls, because a blocking call would keep Ctrl-C waiting on some systems."""
    while not _tried(handle):
        if waiting is not None:
            waiting()
            waiting = None
        time.sleep(POLL_SECONDS)


def _tried(handle: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            return True  # A file system without locks: the digest at the end still guards the content.
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
