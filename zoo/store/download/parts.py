"""Part files: the bytes of a file on its way here, and a journal of which of them are there.

A part survives its process and a crash of the machine. The journal is a text file beside the part: a head in
JSON, then a line `w START LENGTH` for every block that was written, and now and then a line `s N`: what the
first N bytes of the journal tell is on the disk. The rest is believed as long as the machine was not started
anew since: what a killed process wrote is in the system's cache, what a crashed machine had there is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.store.download.intervals import Intervals

SUFFIX = ".part"
JOURNAL_SUFFIX = ".journal"

_WRITTEN = re.compile(rb"^w (\d{1,16}) (\d{1,16})\n", re.MULTILINE)
_SYNCED = re.compile(rb"^s (\d{1,16})\n", re.MULTILINE)


def journal_path(path: Path) -> Path:
    """The journal of a part."""
    return path.with_name(path.name + JOURNAL_SUFFIX)


def bytes_here(path: Path) -> int:
    """Bytes of a part that need not be fetched again; 0 where there is no part."""
    head, have = _read_journal(path)
    return have.total if head is not None else 0


def discard(path: Path) -> None:
    """Remove a part and its journal."""
    # The journal first: a part without one counts as empty, a journal without a part does too.
    journal_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


class Part:
    """An open part. Threads may write different ranges at the same time.

    `origin` tells which file it is (an address, or a digest); bytes of another origin are thrown away.
    `validator` and `total` are what the server said of the file when the part was begun.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self.path = path
        self.origin = origin
        path.parent.mkdir(parents=True, exist_ok=True)
        head, self._have = _read_journal(path)
        if head is None or head.get("origin") != origin:
            head, self._have = {}, Intervals()
        self.validator: str | None = head.get("validator")
        self.total: int | None = head.get("total")
        self.generation = 0
        self._changed = threading.Condition()
        self._closed = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._journal = -1
        try:
            self._start_journal()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def done(self) -> int:
        """Bytes that are there."""
        with self._changed:
            return self._have.total

    @property
    def prefix(self) -> int:
        """Bytes that are there without a gap from the first on."""
        with self._changed:
            return self._have.prefix

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges of bytes that are there."""
        with self._changed:
            return list(self._have)

    def missing(self, end: int, taken: Intervals) -> tuple[int, int] | None:
        """The first range below `end` that is neither there nor in `taken`."""
        with self._changed:
            return Intervals([*self._have, *taken]).first_gap(end)

    def write(self, offset: int, block: memoryview | bytes) -> None:
        """Put a block in its place; after this returns it survives the process."""
        length, written = len(block), 0
        view = memoryview(block)
        while written < length:
            written += os.pwrite(self._opened(), view[written:], offset + written)
        with self._changed:
            self._append(b"w %d %d\n" % (offset, length))
            self._have.add(offset, offset + length)
            self._changed.notify_all()

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the part; fewer at its end."""
        return os.pread(self._opened(), length, offset)

    def wait_beyond(self, prefix: int, enough: Callable[[], bool]) -> int:
        """Wait until more than `prefix` bytes lie here without a gap, or `enough()` after a `wake()`."""
        with self._changed:
            self._changed.wait_for(lambda: self._have.prefix > prefix or enough())
            return self._have.prefix

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def describe(self, total: int | None, validator: str | None) -> None:
        """Remember what the server says of the file."""
        if (total, validator) != (self.total, self.validator):
            self.total, self.validator = total, validator
            self._start_journal()

    def restart(self) -> None:
        """Throw away every byte: they belong to another version of the file."""
        with self._changed:
            self._have = Intervals()
            self.generation += 1
            self.total = self.validator = None
            os.ftruncate(self._opened(), 0)
            self._start_journal()
            self._changed.notify_all()

    def sync(self) -> None:
        """Put everything that was written so far on the disk, and say so in the journal."""
        with self._changed:
            handle, journal = os.dup(self._opened()), os.dup(self._journal)
            told = os.fstat(journal).st_size
        try:
            os.fsync(handle)
            with self._changed:
                if not self._closed and os.path.sameopenfile(journal, self._journal):
                    self._append(b"s %d\n" % told)
            os.fsync(journal)
        finally:
            os.close(handle)
            os.close(journal)

    def seal(self, size: int) -> bool:
        """Cut the file to `size` bytes; False if what lies at the path is not what was written here."""
        os.ftruncate(self._opened(), size)
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._opened()), os.stat(self.path))
        return False

    def finish(self, size: int) -> Path:
        """Close the complete file of `size` bytes and drop its journal: it is the caller's to publish."""
        os.ftruncate(self._opened(), size)
        self.close()
        journal_path(self.path).unlink(missing_ok=True)
        return self.path

    def close(self) -> None:
        """Stop writing. What is there stays."""
        with self._changed:
            if not self._closed:
                self._closed = True
                for handle in (self._file, self._journal):
                    if handle >= 0:
                        os.close(handle)

    def _opened(self) -> int:
        if self._closed:
            raise ValueError(f"{self.path} is closed")
        return self._file

    def _append(self, line: bytes) -> None:
        self._opened()
        os.write(self._journal, line)

    def _start_journal(self) -> None:
        """A journal that says in few lines what is there, in the place of the old one."""
        with self._changed:
            if self._have.total:
                os.fsync(self._opened())
            head = {
                "origin": self.origin,
                "total": self.total,
                "validator": self.validator,
                "boot": _boot_identity(),
            }
            text = json.dumps(head).encode("ascii") + b"\n"
            text += b"".join(b"w %d %d\n" % (start, end - start) for start, end in self._have)
            target = journal_path(self.path)
            temporary = target.with_name(f".{target.name}{SUFFIX}")
            handle = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666
            )
            try:
                os.write(handle, text + b"s %d\n" % len(text))
                os.fsync(handle)
                os.replace(temporary, target)
            except BaseException:
                os.close(handle)
                temporary.unlink(missing_ok=True)
                raise
            if self._journal >= 0:
                os.close(self._journal)
            self._journal = handle


def _read_journal(path: Path) -> tuple[dict[str, Any] | None, Intervals]:
    """The head and the ranges of a journal; no head where there is none, or it makes no sense."""
    try:
        size = path.stat().st_size
        journal = journal_path(path).read_bytes()
        head = json.loads(journal.partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return None, Intervals()
    if not isinstance(head, dict) or not _is_head(head):
        return None, Intervals()
    if not head["boot"] or head["boot"] != _boot_identity():
        synced = _SYNCED.findall(journal)
        journal = journal[: int(synced[-1])] if synced else b""
    have = Intervals()
    for match in _WRITTEN.finditer(journal):
        start, length = int(match[1]), int(match[2])
        have.add(start, start + length)
    end = size if head["total"] is None else min(size, head["total"])
    return head, have.clipped(end)


def _is_head(head: dict[str, Any]) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "origin": (str,),
        "boot": (str,),
        "total": (int, type(None)),
        "validator": (str, type(None)),
    }
    return all(isinstance(head.get(name), kind) for name, kind in kinds.items())


def _boot_identity() -> str:
    """Different after every start of the machine; "" where the system does not tell."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
