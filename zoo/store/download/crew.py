"""Workers that fetch the missing pieces of one file side by side.

A crew works once: until nothing is missing, or until one of its workers fails. A worker that a silent server
holds back when its crew is done is left behind, and can do no harm any more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Protocol

from zoo.store.download.intervals import Intervals
from zoo.store.download.parts import Part
from zoo.store.download.patience import Patience, Policy
from zoo.store.download.web import Rejected, Trouble

#: Bytes that an attempt has to bring so that it counts as one that brought something.
SOME = 1024


class Recall(Exception):
    """Raised by a worker when the work makes no sense as it is. `gently`: others may finish their piece."""

    gently = False


class Fetch(Protocol):
    """Fetches bytes [start, end) into the part, or to the end of the file where that comes before `end`."""

    def __call__(self, crew: Crew, start: int, end: int, silence: float) -> None: ...


class Crew:
    """One worker at first; the fetching one calls for others when the server turns out to send ranges.

    `total` is the size of the file once somebody knows it; until then there is work for one.
    """

    def __init__(
        self,
        part: Part,
        fetch: Fetch,
        policy: Policy,
        said: Callable[[str], None],
        total: int | None,
        arrived: Callable[[], bool],
    ) -> None:
        self.total = total
        self.dismissed = False  #: whether the server was asked by more than it bears
        self._part, self._fetch, self._policy, self._said = part, fetch, policy, said
        self._arrived = arrived
        self._stop = threading.Event()
        self._no_more = False
        self._changed = threading.Condition()
        self._taken = Intervals()
        self._workers = 0
        self._error: BaseException | None = None

    def work(self, meanwhile: Callable[[], None]) -> None:
        """Work until all is there or a worker failed, whose error is raised; `meanwhile` is called often."""
        self._hire(1)
        try:
            while not self._ended(0.5):
                meanwhile()
        finally:
            self._no_more = True
            self._stop.set()
            self._ended(2.0, everybody=True)
        if self._error is not None:
            raise self._error

    @property
    def stopped(self) -> bool:
        """Whether what a worker holds is not wanted any more."""
        return self._stop.is_set()

    @property
    def alone(self) -> bool:
        """Whether one worker is all there are."""
        with self._changed:
            return self._workers == 1

    def call_others(self, connections: int) -> None:
        """As many workers as there is work for, at most so many connections."""
        with self._changed:
            missing = 0 if self.total is None else self.total - self._part.done
            wanted = min(connections, 1 + missing // self._policy.piece) - self._workers
            if not self.dismissed and not self._no_more:
                self._hire(wanted)

    def _hire(self, count: int) -> None:
        for _ in range(count):
            with self._changed:
                self._workers += 1
            threading.Thread(target=self._work, name="zoo-transfer", daemon=True).start()

    def _ended(self, seconds: float, everybody: bool = False) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._workers == 0 or (self._stop.is_set() and not everybody), seconds
            )

    def _work(self) -> None:
        """One worker: piece after piece until none is left."""
        patience = Patience(self._policy, self._stop.wait, self._said)
        try:
            while (piece := self._take()) is not None:
                if not self._try(*piece, patience):
                    return  # It is off the list of workers already.
        except BaseException as error:
            self._fail(error)
        with self._changed:
            self._workers -= 1
            self._changed.notify_all()

    def _try(self, start: int, end: int, patience: Patience) -> bool:
        """Fetch a piece, or as much of it as comes; False if this worker shall go."""
        before = self._part.done
        try:
            self._fetch(self, start, end, patience.silence)
        except (Trouble, Rejected) as problem:
            self._give_back(start, end)
            if self._dismissed(problem):
                return False
            if isinstance(problem, Rejected):
                raise
            patience.after(problem, self._part.done - before >= SOME, self._arrived())
        else:
            self._give_back(start, end)
            patience.failures = 0
        return True

    def _take(self) -> tuple[int, int] | None:
        """The next piece that nobody works on: its first byte, and the one after its last."""
        with self._changed:
            if self._no_more or (self.total is None and self._taken.total):
                return None
            gap = self._part.missing(sys.maxsize if self.total is None else self.total, self._taken)
            if gap is None:
                return None
            start, end = gap[0], min(gap[1], gap[0] + self._policy.piece)
            self._taken.add(start, end)
            return start, end

    def _give_back(self, start: int, end: int) -> None:
        with self._changed:
            self._taken.remove(start, end)

    def _dismissed(self, problem: Trouble | Rejected) -> bool:
        """Whether this worker goes, because the server bears fewer than there are."""
        with self._changed:
            too_many = isinstance(problem, Rejected) or problem.busy
            if not too_many or self._workers == 1:
                return False
            self.dismissed = True
            self._workers -= 1
            return True

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None and not self._stop.is_set():
                self._error = error
            self._no_more = True
            if not (isinstance(error, Recall) and error.gently):
                self._stop.set()
            self._changed.notify_all()
