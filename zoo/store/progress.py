"""What a pull tells while it works: to a progress bar, to a log, or to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class PlannedFile:
    """One file that will be fetched: `size` in bytes where it is known, `done` what lies here already."""

    role: str
    name: str
    size: int | None
    done: int


class Watcher(Protocol):
    """Receives what happens during a pull. Calls come one at a time, from more than one thread."""

    def planned(self, files: Sequence[PlannedFile]) -> None:
        """The files to fetch, before the first byte of any."""

    def advanced(self, role: str, done: int, total: int | None) -> None:
        """Bytes of a file that lie here; `total` is None while nobody knows. `done` may fall to 0 again."""

    def working(self, role: str, what: str) -> None:
        """A step without bytes to count has begun: "checking", "converting"."""

    def said(self, text: str) -> None:
        """Something worth a line: a retry, a stall, another process that is waited for."""


class Silent:
    """A watcher for nobody."""

    def planned(self, files: Sequence[PlannedFile]) -> None:
        """Nothing."""

    def advanced(self, role: str, done: int, total: int | None) -> None:
        """Nothing."""

    def working(self, role: str, what: str) -> None:
        """Nothing."""

    def said(self, text: str) -> None:
        """Nothing."""
