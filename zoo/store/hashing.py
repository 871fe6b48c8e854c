"""Digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

BLOCK = 1 << 20


def file_sha256(path: Path, advanced: Callable[[int], None] = lambda done: None) -> str:
    """The sha256 of a file in hexadecimal digits; `advanced` receives the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            advanced(done)
    return digest.hexdigest()


def git_sha1(path: Path) -> str:
    """The digest that git names a file's content by."""
    size = path.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
