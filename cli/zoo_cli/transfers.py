"""What a pull shows of its downloads: bars on a terminal, else a line for each file's beginning and end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zoo.quantities import human_bytes
from zoo_cli.output import Output
from zoo_cli.transfer_bars import Bars, Rate, Track

if TYPE_CHECKING:
    from types import TracebackType

    from zoo.store.progress import PlannedFile


class TransferView:
    """Shows a pull that reports to it (zoo.store.progress.Watcher); a context manager.

    `advanced` is called for every block that arrives: it only notes a number, from which the bars are drawn.
    `title` stands before the roles of the files, `clock` gives seconds. Only in text mode anything is shown.
    """

    def __init__(self, out: Output, title: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._title, self._clock = out, title, clock
        self._tracks: dict[str, Track] = {}
        self._bars: Bars | None = None
        #: Whether there was anything to do.
        self.was_needed = False

    def __enter__(self) -> TransferView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        elif error is None:
            for track in self._tracks.values():
                self._finish(track)

    def planned(self, files: Sequence[PlannedFile]) -> None:
        """The files to fetch, before the first byte of any."""
        self.was_needed = True
        self._tracks = {
            file.role: Track(file.role, file.name, file.done, file.size, file.done) for file in files
        }
        if self._tracks and self._out.mode == "text" and sys.stderr.isatty():
            self._bars = Bars.on_terminal(list(self._tracks.values()), self._clock)

    def advanced(self, role: str, done: int, total: int | None) -> None:
        """So many bytes of a file are here."""
        track = self._tracks.get(role)
        if track is None:
            return
        if track.began is None:
            self._begin(track)
        if done < track.done:
            # From its first byte again: what was checked or counted before says nothing about it.
            track.base, track.based, track.step, track.over = done, self._clock(), None, False
        track.done, track.total = done, total
        if not track.over and total is not None and done >= total > track.base:
            self._finish(track)

    def working(self, role: str, what: str) -> None:
        """A step without bytes to count has begun."""
        track = self._tracks.get(role)
        if track is None:
            return
        if track.began is None:
            self._begin(track)
        elif track.done > track.base:
            self._finish(track)
        track.step, track.rate = what, Rate.beginning(self._clock(), track.done)

    def said(self, text: str) -> None:
        """Something worth a line; above the bars, where there are any."""
        if self._bars is not None:
            self._bars.print(text)
        else:
            self._out.note(text)

    def _begin(self, track: Track) -> None:
        for other in self._tracks.values():
            # Files come one after the other: where the next begins, the last step of this one has ended.
            self._finish(other)
            other.step = None
        now = self._clock()
        track.rate = Rate.beginning(now, track.done)
        track.began = track.based = now
        if self._bars is None:
            size = "size unknown" if track.total is None else human_bytes(track.total)
            here = f", {human_bytes(track.done)} of it here already" if track.done else ""
            self._out.note(f"{self._titled(track)}: {size} from {track.name}{here}")

    def _finish(self, track: Track) -> None:
        if track.began is None or track.over:
            return
        track.over = True
        if self._bars is None:
            now = self._clock()
            fetched, seconds = track.done - track.base, now - track.based
            speed = f", {human_bytes(fetched / seconds)}/s" if fetched > 0 and seconds > 0 else ""
            self._out.note(f"{self._titled(track)}: done in {duration(now - track.began)}{speed}")

    def _titled(self, track: Track) -> str:
        return f"{self._title} {track.role}".strip()


def duration(seconds: float) -> str:
    """Seconds in words: "12.3 s", "3 min 20 s", "1 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
