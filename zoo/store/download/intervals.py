"""Sets of byte ranges: which bytes of a file are there, and which are missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """Half-open ranges [start, end) of bytes; touching and overlapping ones are merged."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def add(self, start: int, end: int) -> None:
        """Add a range; an empty one adds nothing."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take a range out; an empty one takes nothing."""
        if start >= end:
            return
        kept = [
            piece for a, b in self for piece in ((a, min(b, start)), (max(a, end), b)) if piece[0] < piece[1]
        ]
        self._starts = [a for a, _ in kept]
        self._ends = [b for _, b in kept]

    @property
    def total(self) -> int:
        """Number of bytes in all ranges."""
        return sum(self._ends) - sum(self._starts)

    @property
    def prefix(self) -> int:
        """Number of bytes that are there without a gap from the first one on."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def first_gap(self, end: int) -> tuple[int, int] | None:
        """The first range below `end` that is not there."""
        start = self.prefix
        if start >= end:
            return None
        later = bisect_right(self._starts, start)
        return start, min(self._starts[later], end) if later < len(self._starts) else end

    def clipped(self, end: int) -> Intervals:
        """The ranges below `end`."""
        return Intervals((start, min(stop, end)) for start, stop in self if start < end)
