"""The directory of a zip file, and where its members lie. Nothing is unpacked, and no name becomes a path.

Written for files that nobody vouches for: every number of the file is checked against the bytes that are
really there before anything is read or allocated by it, and a member that is compressed, encrypted or out of
bounds is refused. Layout: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from zoo.errors import WeightsError

LARGEST_DIRECTORY = 64 * 2**20
MOST_MEMBERS = 200_000

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR64 = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LONGEST_COMMENT = 0xFFFF
_IN_EXTRA = 0xFFFFFFFF  #: the number stands in the extra field, as 64 bits
_ENCRYPTED = 0x1
_STORED = 0


@dataclass(frozen=True, slots=True)
class _Member:
    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    header: int


class Archive:
    """The members of an open zip file of `file_size` bytes. Raises `WeightsError` if it is damaged."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._handle = path, file.fileno()
        self.file_size = os.fstat(self._handle).st_size
        start, length, count = self._directory()
        self._data_end = start
        self._members: dict[str, _Member] = {}
        self._read_directory(self._bytes(start, length), count)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all members, as keys and for nothing else."""
        return tuple(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def extent(self, name: str) -> tuple[int, int]:
        """First byte and number of bytes of a stored member within the file."""
        member = self._members[name]
        if member.flags & _ENCRYPTED:
            raise self._refused(f"{shown(name)} is encrypted")
        if member.method != _STORED or member.packed != member.size:
            raise self._refused(f"{shown(name)} is compressed, and only stored members are read")
        if member.header + _LOCAL.size > self._data_end:
            raise self._refused(f"{shown(name)} begins behind the end of the data")
        head = _LOCAL.unpack(self._bytes(member.header, _LOCAL.size))
        signature, flags, method, name_length, extra_length = head[0], head[2], head[3], head[9], head[10]
        if signature != b"PK\x03\x04" or method != _STORED or flags & _ENCRYPTED:
            raise self._refused(f"{shown(name)} has no valid header")
        start = member.header + _LOCAL.size + name_length + extra_length
        if start + member.size > self._data_end:
            raise self._refused(f"{shown(name)} reaches beyond the end of the data")
        if self._bytes(member.header + _LOCAL.size, name_length) != member.name:
            raise self._refused(f"{shown(name)} has another name in its header")
        return start, member.size

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a stored member of at most `most` bytes."""
        start, size = self.extent(name)
        if size > most:
            raise self._refused(f"{shown(name)} has {size} bytes, expected at most {most}")
        return self._bytes(start, size)

    def _bytes(self, start: int, length: int) -> bytes:
        """Exactly these bytes of the file; the bounds were checked, so only a shrinking file has fewer."""
        parts = []
        while length > 0:
            # A system call gives less than 2 GiB at once.
            part = os.pread(self._handle, min(length, 2**30), start)
            if not part:
                raise self._refused("it is cut off")
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    def _directory(self) -> tuple[int, int, int]:
        """First byte, length and number of entries of the directory."""
        longest = _END.size + _LONGEST_COMMENT + _LOCATOR64.size
        tail_start = max(0, self.file_size - longest)
        tail = self._bytes(tail_start, self.file_size - tail_start)
        at = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size + 4))
        while at >= 0 and at + _END.size + struct.unpack_from("<H", tail, at + 20)[0] != len(tail):
            at = tail.rfind(b"PK\x05\x06", 0, at)
        if at < 0:
            raise self._refused("it has no directory at its end, as when a download was cut off")
        _, disk, first_disk, here, count, length, start, _ = _END.unpack_from(tail, at)
        end = tail_start + at
        if disk == 0xFFFF or count == 0xFFFF or _IN_EXTRA in (length, start):
            end, disk, first_disk, here, count, length, start = self._directory64(tail, at, end)
        if disk or first_disk or here != count:
            raise self._refused("it is one part of several")
        if start + length > end:
            raise self._refused("its directory is out of bounds")
        if length > LARGEST_DIRECTORY or count > MOST_MEMBERS:
            raise self._refused(f"it has too many members ({count})")
        return start, length, count

    def _directory64(self, tail: bytes, at: int, end: int) -> tuple[int, int, int, int, int, int, int]:
        if at < _LOCATOR64.size or end - _LOCATOR64.size < _END64.size:
            raise self._refused("its directory is out of bounds")
        signature, _, position, _ = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        if signature != b"PK\x06\x07" or position > end - _LOCATOR64.size - _END64.size:
            raise self._refused("its directory is out of bounds")
        record = _END64.unpack(self._bytes(position, _END64.size))
        if record[0] != b"PK\x06\x06":
            raise self._refused("its directory is damaged")
        disk, first_disk, here, count, length, start = record[4:]
        return position, disk, first_disk, here, count, length, start

    def _read_directory(self, directory: bytes, count: int) -> None:
        at = 0
        for _ in range(count):
            if at + _CENTRAL.size > len(directory):
                raise self._refused("its directory is cut off")
            fields = _CENTRAL.unpack_from(directory, at)
            if fields[0] != b"PK\x01\x02":
                raise self._refused("its directory is damaged")
            flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
            name_length, extra_length, comment_length, header = fields[10], fields[11], fields[12], fields[16]
            at += _CENTRAL.size
            end = at + name_length + extra_length + comment_length
            if end > len(directory):
                raise self._refused("its directory is cut off")
            name = directory[at : at + name_length]
            extra = directory[at + name_length : end - comment_length]
            size, packed, header = self._wide([size, packed, header], extra)
            # Reversible for every name, so that two names never become one.
            key = name.decode("utf-8", "surrogateescape")
            if key in self._members:
                raise self._refused(f"it holds {shown(key)} twice")
            self._members[key] = _Member(name, flags, method, packed, size, header)
            at = end

    def _wide(self, numbers: list[int], extra: bytes) -> list[int]:
        """The numbers, those that did not fit into 32 bits taken from the extra field of zip64."""
        if _IN_EXTRA not in numbers:
            return numbers
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                wide = extra[at + 4 : at + 4 + length]
                values = iter([value for (value,) in struct.iter_unpack("<Q", wide[: len(wide) // 8 * 8])])
                return [next(values, number) if number == _IN_EXTRA else number for number in numbers]
            at += 4 + length
        return numbers

    def _refused(self, problem: str) -> WeightsError:
        return WeightsError(
            f"{self._path}: is damaged as a zip file: {problem}",
            "Download it again, and compare its size and sha256 with the published ones.",
        )


def shown(text: str, most: int = 80) -> str:
    """A text from a file as one harmless line of limited length."""
    return ascii(text if len(text) <= most else text[:most] + "...")
