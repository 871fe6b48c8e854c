"""Which samples of a long job are finished: files in a folder, and one line for each in its manifest.

A sample is finished when its line stands in `manifest.jsonl` and its file lies in the folder. The line is
written first, then the complete file takes its name in one step: wherever a process is killed, what is
missing is drawn again under the name that its line promised, and no finished file is drawn twice.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import OutputExists, OutputNotWritable
from zoo.io.files import publish_new
from zoo.io.names import fresh_path

MANIFEST = "manifest.jsonl"
STAGING = ".zoo-unfinished"

#: How each line of a manifest begins, which tells it from another program's file of that name.
_START = '{"digest": "sha256:'


@dataclass(frozen=True)
class Entry:
    """A line of the manifest: `name` in the folder holds sample `index` of line `line` of a prompt file."""

    digest: str
    name: str
    line: int
    index: int
    facts: Mapping[str, Any]


def digest_of(facts: Mapping[str, Any]) -> str:
    """The identity of a sample: `sha256:<hex>` of all that decides about its file, whatever the order."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder and keep every other process that claims it out of it.

    What a killed process left unfinished is removed, and a folder that is new and stays empty. Raises
    `OutputNotWritable`.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        _lock(handle, folder)
        try:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
            yield
        finally:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
            if new:
                with suppress(OSError):
                    folder.rmdir()
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        # The folder itself is locked: no file stays behind, and the system releases it however we end.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise OutputNotWritable(
                f"another process is drawing into {folder}", "Wait until it ends, or choose another --out."
            ) from error
        # Some network file systems lock nothing; names are still never taken twice.


class FinishedSamples:
    """The samples that are finished in a folder, read once; `claimed` keeps other processes from adding."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_digest: dict[str, list[Entry]] = defaultdict(list)
        text = self._read()
        # A line that was cut short by a kill or a full disk ends where the next one begins.
        self._torn = bool(text) and not text.endswith("\n")
        for entry in _entries(text).values():
            if os.path.lexists(folder / entry.name):
                self._by_digest[entry.digest].append(entry)

    @property
    def path(self) -> Path:
        """The manifest."""
        return self.folder / MANIFEST

    def claim_exact(self, digest: str, line: int, index: int) -> Entry | None:
        """Take the finished sample that was drawn for this very place in the file."""
        return self._claim(digest, lambda entry: (entry.line, entry.index) == (line, index))

    def claim(self, digest: str) -> Entry | None:
        """Take any finished sample of this identity that is not taken yet: its line may have moved."""
        return self._claim(digest, lambda entry: True)

    def publish(
        self, name: str, write: Callable[[Path], Path], digest: str, facts: Mapping[str, Any]
    ) -> Path:
        """Let `write` make a file, note it in the manifest, and give it its name or a free one like it.

        `write` gets a path to write to and returns where the file, or the folder, lies. `facts` hold the
        `line` and `index` of an `Entry`, and whatever else is to be told.
        """
        staging = self.folder / STAGING
        written = write(staging / name)
        while True:
            path = fresh_path(self.folder, written.name)
            self._append({"digest": digest, "path": path.name, **facts})
            try:
                publish_new(written, path)
            except OutputExists:
                continue  # Another program took the name meanwhile.
            return path

    def _claim(self, digest: str, fits: Callable[[Entry], bool]) -> Entry | None:
        entries = self._by_digest.get(digest, [])
        found = next((entry for entry in entries if fits(entry)), None)
        if found is not None:
            entries.remove(found)
        return found

    def _read(self) -> str:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _unusable(self.path, error) from error
        first = text.lstrip("\n").partition("\n")[0]
        if not first.startswith(_START) and not _START.startswith(first):
            raise OutputExists(
                f"{self.path} is not a manifest of samples",
                "Choose another folder with --out, or move the file away.",
            )
        return text

    def _append(self, values: Mapping[str, Any]) -> None:
        line = json.dumps(values, ensure_ascii=True, allow_nan=False) + "\n"
        data = (("\n" if self._torn else "") + line).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                # In one call, so that a kill leaves all of it or nothing; only a full disk takes less.
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._torn = True
            raise _unusable(self.path, error) from error
        self._torn = False


def _entries(text: str) -> dict[str, Entry]:
    """The entries by file; the last one of a name is the one that its file was written for."""
    entries = map(_entry, filter(None, text.split("\n")))
    return {entry.name: entry for entry in entries if entry is not None}


def _entry(line: str) -> Entry | None:
    try:
        values = json.loads(line)
        name = values["path"]
        if Path(name).name != name:
            return None
        return Entry(values["digest"], name, int(values["line"]), int(values["index"]), values)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _unusable(path: Path, error: OSError) -> OutputNotWritable:
    return OutputNotWritable(
        f"cannot use {path}: {(error.strerror or str(error)).lower()}",
        "Choose a folder that you may write to and that has room.",
    )
