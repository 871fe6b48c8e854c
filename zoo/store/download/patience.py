"""How often a transfer is tried again, and how long it pauses before."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from zoo.store.download.web import Trouble


@dataclass(frozen=True)
class Policy:
    """How hard to try: sizes in bytes, times in seconds."""

    connections: int = 4
    piece: int = 32 << 20
    silence: float = 20.0  #: after which a connection counts as stalled
    attempts: int = 8  #: in a row that bring nothing
    first_attempts: int = 2  #: where no connection comes about and nothing has arrived yet
    pause: float = 0.5  #: before the second attempt; doubled each time
    longest_pause: float = 30.0
    longest_wait: float = 300.0  #: that a server may ask for


class Patience:
    """Counts the attempts in a row that brought nothing, and waits between them.

    `wait` sleeps so many seconds and may return early; `said` receives what the user should know.
    """

    def __init__(self, policy: Policy, wait: Callable[[float], object], said: Callable[[str], None]) -> None:
        self._policy, self._wait, self._said = policy, wait, said
        self.failures = 0

    @property
    def silence(self) -> float:
        """Seconds of silence to bear in the next attempt: more after each that failed."""
        return self._policy.silence * min(2.0**self.failures, 4.0)

    def after(self, trouble: Trouble, progressed: bool, arrived: bool) -> None:
        """Wait before the next attempt; raises `trouble` when there shall be none.

        `progressed` tells that this attempt brought bytes, `arrived` that any attempt of the transfer did.
        """
        self.failures = 0 if progressed else self.failures + 1
        unheard = trouble.unreachable and not arrived
        most = self._policy.first_attempts if unheard else self._policy.attempts
        if trouble.attempts is not None:
            most = min(most, trouble.attempts)
        if self.failures >= most:
            raise trouble
        seconds = self._pause(trouble)
        if seconds > self._policy.longest_wait:
            raise Trouble(f"{trouble.reason} and asks to come back in {seconds:.0f} s")
        if self.failures and not unheard:
            self._said(f"{trouble.reason}; trying again in {seconds:.1f} s ({self.failures + 1} of {most})")
        self._wait(seconds)

    def _pause(self, trouble: Trouble) -> float:
        doubled: float = self._policy.pause * 2.0 ** (self.failures - 1) if self.failures else 0.1
        # Jitter, so that many clients of one server do not come back at the same moment.
        own = min(doubled, self._policy.longest_pause) * random.uniform(0.75, 1.25)
        asked: float = trouble.pause or 0.0
        return max(own, asked)
