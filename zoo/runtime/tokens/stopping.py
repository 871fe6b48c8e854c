"""When a sample ends. The token that ends it is its last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StopRule(Protocol):
    """Whether a sample ends with the newest of its tokens, of which there is at least one."""

    def __call__(self, row: int, tokens: Sequence[int]) -> bool: ...


class StopAt:
    """At any of some token ids."""

    def __init__(self, *ids: int) -> None:
        self._ids = frozenset(ids)

    def __call__(self, row: int, tokens: Sequence[int]) -> bool:
        """See `StopRule`."""
        return tokens[-1] in self._ids


class StopAfter:
    """After a number of tokens, one number for each sample."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = tuple(counts)

    def __call__(self, row: int, tokens: Sequence[int]) -> bool:
        """See `StopRule`."""
        return len(tokens) >= self._counts[row]


class StopBehind:
    """Behind a run of tokens, such as the end of a picture followed by the end of the turn."""

    def __init__(self, *run: int) -> None:
        self._run = list(run)

    def __call__(self, row: int, tokens: Sequence[int]) -> bool:
        """See `StopRule`."""
        return list(tokens[-len(self._run) :]) == self._run
