"""The bodies of answers as sequences of views: cut to ranges, damaged, wrapped, and divided into blocks."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

#: The first byte of a part of a file, and the one behind its last.
Span = tuple[int, int]

BOUNDARY = "faulty-boundary"
ZEROS = memoryview(bytes(64 * 1024))


def spans(header: str, size: int) -> list[Span] | None:
    """The parts of a file of `size` bytes that a Range header asks for.

    None where the header is to be ignored (RFC 9110, section 14.2), an empty list where nothing of it can
    be satisfied.
    """
    unit, _, list_of_ranges = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    found = []
    for text in list_of_ranges.split(","):
        match = re.fullmatch(r"\s*(\d*)-(\d*)\s*", text)
        if match is None or match[0].strip() == "-":
            return None
        first, last = match.groups()
        if not first:
            start, stop = max(0, size - int(last)), size
        elif last and int(last) < int(first):
            return None
        else:
            start, stop = int(first), min(size, int(last) + 1 if last else size)
        found.append((start, stop))
    return [(start, stop) for start, stop in found if start < stop]


def shifted(span: Span, by: int, size: int) -> Span:
    """The span moved, as far as the file goes."""
    start = min(max(0, span[0] + by), size - 1)
    return start, min(max(start + 1, span[1] + by), size)


def cut(view: memoryview, span: Span, flip_at: int | None) -> list[memoryview]:
    """A part of a file, with the lowest bit of the byte at `flip_at` turned if that lies in it."""
    start, stop = span
    if flip_at is None or not start <= flip_at < stop:
        return [view[start:stop]]
    wrong = memoryview(bytes([view[flip_at] ^ 1]))
    return [view[start:flip_at], wrong, view[flip_at + 1 : stop]]


def multipart(parts: Iterable[tuple[str, list[memoryview]]]) -> list[memoryview]:
    """The parts, each with its Content-Range, as multipart/byteranges."""
    body = []
    for content_range, views in parts:
        head = f"--{BOUNDARY}\r\nContent-Range: {content_range}\r\n\r\n"
        body += [memoryview(head.encode()), *views, memoryview(b"\r\n")]
    return [*body, memoryview(f"--{BOUNDARY}--\r\n".encode())]


def gzipped(views: Iterable[memoryview]) -> list[memoryview]:
    """The same, compressed; in memory."""
    compressor = zlib.compressobj(wbits=31)
    return [memoryview(compressor.compress(view)) for view in views] + [memoryview(compressor.flush())]


def length(views: Sequence[memoryview]) -> int:
    """The number of bytes."""
    return sum(len(view) for view in views)


def extended(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """With `count` zeros more."""
    whole, rest = divmod(count, len(ZEROS))
    return [*views, *[ZEROS] * whole, ZEROS[:rest]]


def endless(views: Sequence[memoryview]) -> Iterator[memoryview]:
    """With zeros that have no end."""
    return itertools.chain(views, itertools.repeat(ZEROS))


def blocks(
    views: Iterable[memoryview], largest: int, cuts: Iterable[int], single_from: float
) -> Iterator[memoryview]:
    """Blocks of at most `largest` bytes that end at each of `cuts`; single bytes from `single_from` on."""
    ends = sorted(cuts)
    position = 0
    for view in views:
        while view:
            limit = 1 if position >= single_from else largest
            ahead = [end - position for end in [*ends, single_from] if end > position]
            size = int(min(limit, len(view), *ahead))
            yield view[:size]
            view = view[size:]
            position += size
