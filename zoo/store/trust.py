"""The record of first pulls: content that nobody vouches for is believed once, and has to stay as it was.

{"schema": 1, "files": {"<source>": {"sha256": "...", "size": 0, "revision": null, "date": "..."}}}
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import ChecksumError
from zoo.store.layout import first_pulls_path
from zoo.store.locks import store_lock
from zoo.store.records import now, read_record, text, write_record

_KEY = "files"
_HOLDS = "the digests of files for which nobody publishes one"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class FirstPull:
    """A file as it was first downloaded: `size` in bytes, `revision` the commit it came from, UTC `date`."""

    sha256: str
    size: int
    revision: str | None
    date: str


def first_pull(source: str) -> FirstPull | None:
    """What is recorded of a source, as a card writes it; raises `ZooError` for a damaged record."""
    return _read().get(source)


def record(source: str, sha256: str, size: int, revision: str | None) -> None:
    """Believe a file from now on; what is recorded already stays, with its date.

    Raises `ChecksumError` when other content is recorded: `forget` it first.
    """
    with store_lock():
        known = _read()
        before = known.get(source)
        if before is None:
            known[source] = FirstPull(sha256, size, revision, now())
            _write(known)
        elif before.sha256 != sha256:
            raise ChecksumError(
                f"{source}: expected sha256 {before.sha256} as on {before.date}, got {sha256}",
                "If the file was replaced on purpose: zoo pull REF --accept-change",
            )


def forget(source: str) -> None:
    """Drop what is recorded of a source, so that its next content is believed."""
    with store_lock():
        known = _read()
        if known.pop(source, None) is not None:
            _write(known)


def _read() -> dict[str, FirstPull]:
    return read_record(first_pulls_path(), _KEY, _HOLDS, _parse) or {}


def _write(known: Mapping[str, FirstPull]) -> None:
    entries = {source: dataclasses.asdict(entry) for source, entry in known.items()}
    write_record(first_pulls_path(), _KEY, entries)


def _parse(entries: Any) -> dict[str, FirstPull]:
    if not isinstance(entries, dict):
        raise TypeError(f"expected a table, got {entries!r}")
    return {source: _first_pull(entry) for source, entry in entries.items()}


def _first_pull(entry: Mapping[str, Any]) -> FirstPull:
    digest, size = text(entry["sha256"]), entry["size"]
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"expected 64 hexadecimal digits, got {digest!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"expected bytes, got {size!r}")
    revision = None if entry["revision"] is None else text(entry["revision"])
    return FirstPull(digest, size, revision, text(entry["date"]))
