"""Which pictures of a batch go through a network together: those of one size, as many as pay."""

from __future__ import annotations

from collections.abc import Sequence

from zoo_illume.sizes import Size


def groups(sizes: Sequence[Size], most: int | None = None) -> list[list[int]]:
    """The numbers of pictures of these sizes, in groups of one size each and of at most `most` pixels.

    A picture of more pixels is a group by itself. None sets no limit.
    """
    of_size: dict[Size, list[int]] = {}
    for number, size in enumerate(sizes):
        of_size.setdefault(size, []).append(number)
    found = []
    for size, members in of_size.items():
        count = len(members) if most is None else count_of(size, most)
        found += [members[first : first + count] for first in range(0, len(members), count)]
    return found


def count_of(size: Size, most: int) -> int:
    """How many pictures of a size are at most `most` pixels; at least one."""
    return max(1, most // (size[0] * size[1]))


def most_pixels(batch_size: int, largest: int, most: int) -> int:
    """Pixels of the largest of such groups, where a batch has pictures of up to `largest` pixels."""
    return min(batch_size * largest, max(most, largest))
