"""Locks between processes: one for each variant, and one for the store that is held only for moments.

`flock` is released by the system when its holder ends, however it ends. On file systems where it silently
excludes nobody (some network ones) two pulls write the same bytes to the same places, and the digest decides.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import OutputNotWritable
from zoo.store.layout import locks

POLL_SECONDS = 0.1


@contextmanager
def variant_lock(method: str, variant: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a variant; `waiting` is called once if another process holds it."""
    with _held(locks() / f"{method}--{variant}.lock", waiting):
        yield


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
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                return  # A file system without locks: the digest at the end still guards the content.
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if waiting is not None:
            waiting()
            waiting = None
        time.sleep(POLL_SECONDS)
