"""Bars on a terminal, drawn from how far each file is: a few times each second, by a thread of their own."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.quantities import human_bytes
from zoo_cli.output import clean, console

#: How often bars are drawn, in times per second.
REFRESHES = 10

#: Seconds over which the speed in a bar is averaged.
WINDOW = 5.0

#: Columns of a terminal: those of the widest bar, of the narrowest that still says something, and of names.
_BAR, _SHORTEST_BAR, _SHORTEST_LABEL = 40, 6, 12

#: From this width on figures get room for all the digits they may ever have.
_WIDE = 72

#: Columns between two columns of a row.
_GAP = 2


@dataclass
class Rate:
    """Bytes per second over the last moments; what lay here before counts for nothing."""

    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    @classmethod
    def beginning(cls, now: float, done: int) -> Rate:
        """A speed that is measured from now on."""
        return cls(deque([(now, done)]))

    def at(self, now: float, done: int) -> float | None:
        """The speed, given how far the file is now; None while it cannot be told."""
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()
        samples.append((now, done))
        while len(samples) > 2 and now - samples[1][0] >= WINDOW:
            samples.popleft()
        since, before = samples[0]
        return (done - before) / (now - since) if now > since else None


@dataclass
class Track:
    """One file on its way: sizes in bytes, times in seconds of the view's clock."""

    role: str
    name: str
    done: int
    total: int | None
    base: int  #: where the counting of what was fetched begins
    step: str | None = None
    began: float | None = None
    based: float = 0.0  #: when it stood at `base`
    over: bool = False
    rate: Rate = field(default_factory=Rate)


class Bars:
    """The bars on a terminal: one for each file, and one for all where there are several."""

    def __init__(self, tracks: list[Track], clock: Callable[[], float], screen: Any) -> None:
        from rich.live import Live

        self._tracks, self._clock, self._screen = tracks, clock, screen
        self._rate = Rate()
        self._live = Live(
            get_renderable=self._drawn,
            console=screen,
            refresh_per_second=REFRESHES,
            transient=True,
            # Else rich would send what is printed meanwhile to stderr, even where stdout is a file.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start(refresh=True)

    @classmethod
    def on_terminal(cls, tracks: list[Track], clock: Callable[[], float]) -> Bars | None:
        """Bars on stderr; None where its terminal cannot draw over what it has drawn."""
        screen = console(sys.stderr)
        return None if screen.is_dumb_terminal or not screen.is_terminal else cls(tracks, clock, screen)

    def stop(self) -> None:
        """Take the bars away."""
        self._live.stop()

    def print(self, text: str) -> None:
        """A text above the bars."""
        self._screen.print(clean(text))

    def _drawn(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        rows = self._rows(self._clock())
        screen, height = self._screen.size
        if len(rows) > height - 2:
            rows = [row for row in rows if row.active]
        width = _Widths.of(rows, screen)
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        for columns in dataclasses.astuple(width):
            if columns:
                grid.add_column(no_wrap=True, overflow="ellipsis", width=columns)
        for row in rows:
            cells: list[Any] = [Text(row.label)]
            if width.bar:
                cells.append(ProgressBar(total=row.total, completed=row.done, width=width.bar))
            cells.append(Text(row.size, justify="right"))
            grid.add_row(*cells, *([Text(row.state)] if width.state else []))
        return grid

    def _rows(self, now: float) -> list[_Row]:
        rows = [_row(track, now) for track in self._tracks]
        if len(rows) > 1:
            done = sum(track.done for track in self._tracks)
            known = [track.total for track in self._tracks if track.total is not None]
            total = sum(known) if len(known) == len(rows) else None
            state = _speed(self._rate.at(now, done), done, total)
            rows.append(_Row("total", done, total, state, active=True))
        return rows


@dataclass(frozen=True)
class _Row:
    """What one bar shows; `active` rows stay where not all have room."""

    label: str
    done: int
    total: int | None
    state: str
    active: bool

    @property
    def size(self) -> str:
        """How much is here, of how much."""
        whole = "?" if self.total is None else human_bytes(self.total)
        return f"{human_bytes(self.done)}/{whole}"


@dataclass(frozen=True)
class _Widths:
    """Columns of the terminal that each column gets; 0 for what has no room."""

    label: int
    bar: int
    size: int
    state: int

    @classmethod
    def of(cls, rows: Sequence[_Row], screen: int) -> _Widths:
        """Share out `screen` columns: names give way to bars, and on a narrow screen both to sizes."""
        label = max((len(row.label) for row in rows), default=0)
        size = max((len(row.size) for row in rows), default=0)
        state = max((len(row.state) for row in rows), default=0)
        if screen >= _WIDE:
            # Bars that change their length with every digit are no rest for the eye.
            size, state = max(size, len("1023.9 MiB/1023.9 MiB")), max(state, len("1023.9 MiB/s  0:00:00"))
        state = max(state, len("checking"))
        room = screen - size - state - 3 * _GAP
        if room < _SHORTEST_LABEL + _SHORTEST_BAR:
            room = screen - size - _GAP
            return cls(max(1, min(label, room)), 0, size, 0)
        bar = min(_BAR, max(room - label, room // 2))
        return cls(min(label, room - bar), bar, size, state)


def _row(track: Track, now: float) -> _Row:
    # The end of an address says more than its beginning.
    last = track.name.rstrip("/").rsplit("/", 1)[-1]
    label = " ".join(clean(f"{track.role} {last}").split())
    if track.began is None:
        return _Row(label, track.done, track.total, "", active=False)
    speed = track.rate.at(now, track.done)
    if track.step is not None:
        state = f"{track.step} {human_bytes(speed)}/s" if speed else track.step
    else:
        state = "done" if track.over else _speed(speed, track.done, track.total)
    return _Row(label, track.done, track.total, state, active=not track.over or track.step is not None)


def _speed(rate: float | None, done: int, total: int | None) -> str:
    if rate is None:
        return ""
    left = f"  {clock_time((total - done) / rate)}" if rate > 0 and total is not None else ""
    return f"{human_bytes(rate)}/s{left}"


def clock_time(seconds: float) -> str:
    """Seconds as a clock shows them: "0:24", "1:02:03"; more than four days as "days"."""
    if seconds >= 100 * 3600:
        return "days"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
