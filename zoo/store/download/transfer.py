"""Bringing the bytes of one file here: in ranges side by side, over as many tries as it takes.

A try that brings nothing counts against a bounded number and is followed by a growing pause; one that brings
bytes does not. What has arrived is never asked for again, by this process or a later one, unless the server
has another file by now.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from zoo.errors import DoesNotFit, OutputNotWritable
from zoo.store.download.crew import Crew, Recall
from zoo.store.download.follower import Follower
from zoo.store.download.intervals import Intervals
from zoo.store.download.parts import Part
from zoo.store.download.patience import Patience, Policy
from zoo.store.download.web import Answer, Rejected, Target, Trouble, request

#: A connection that brings fewer bytes than this in its time of silence has stalled, though it is not silent.
SLOWEST = 1024

#: Bytes that are compared to find out whether a file of the same length is still the same.
OVERLAP = 1 << 16

#: Bytes to ask a connection for at once; it gives what it has.
READ = 1 << 20

#: How often a file may change on the server while it is fetched.
MOST_CHANGES = 3

#: Seconds between two moments at which what has arrived is put on the disk.
SYNC_EVERY = 1.0


@dataclass(frozen=True)
class Wanted:
    """A file to transfer. `digest_known` tells that its content will be checked, whoever sent it."""

    target: Target
    size: int | None
    digest_known: bool


class SizeDiffers(Trouble):
    """The server has a file of another size than the one that is wanted."""

    attempts = 2

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"the server's file has {got} bytes, expected {expected}")
        self.expected, self.got = expected, got


class _Changed(Recall):
    """The server says that its file is another one than when the part was begun."""

    def __init__(self, gently: bool) -> None:
        super().__init__("the file has changed on the server")
        self.gently = gently


class _NoRanges(Recall):
    """The server cannot send a part of the file."""


def transfer(
    wanted: Wanted,
    part: Part,
    policy: Policy,
    advanced: Callable[[int, int | None], None],
    said: Callable[[str], None],
) -> tuple[str, int]:
    """Fill `part`; returns the sha256 and the size of the file.

    Raises `Trouble` or `Rejected` (zoo.store.download.web), or `DoesNotFit` when the disk is full. What has
    arrived stays in the part whatever happens.
    """
    follower = Follower(part)
    follower.start()
    try:
        size = _Transfer(wanted, part, policy, advanced, said).run()
        return follower.result(size), size
    finally:
        follower.stop()


class _Transfer:
    """What is known of the file and of its server, and what to do when that turns out to be wrong."""

    def __init__(
        self,
        wanted: Wanted,
        part: Part,
        policy: Policy,
        advanced: Callable[[int, int | None], None],
        said: Callable[[str], None],
    ) -> None:
        self.wanted, self.part, self.policy = wanted, part, policy
        self.advanced, self.said = advanced, said
        self.total: int | None = None
        self.ranges = True  #: the server sends parts of the file
        self.conditional = True  #: it understands If-Range
        self.validators = True  #: its entity tags tell versions of the file apart
        self._answered = False  #: in this round
        self._comparing = threading.Lock()
        self._began_with = part.done
        self._synced = time.monotonic()

    def run(self) -> int:
        """Work until the file is complete; returns its size."""
        self._begin()
        changes = 0
        while not self._is_complete():
            try:
                self._round()
            except _NoRanges:
                self.ranges = False
                self._restart("the server sends whole files only")
            except _Changed as change:
                changes += 1
                if changes > MOST_CHANGES:
                    raise Trouble("the file keeps changing on the server") from change
                if not self._is_only_another_tag():
                    self._restart("the file has changed on the server")
        assert self.total is not None
        return self.total

    def _begin(self) -> None:
        """Decide whether what lies here can be gone on with."""
        part, size = self.part, self.wanted.size
        if size is not None and part.total not in (None, size):
            part.restart()
        # Without validator and digest nothing would tell afterwards that two versions were mixed.
        unguarded = part.done and part.validator is None and not self.wanted.digest_known
        if unguarded and not self._is_still_the_same():
            self._restart("the file may have changed on the server")
        self.total = size if size is not None else part.total
        self._report()

    def _restart(self, reason: str) -> None:
        if self.part.done:
            self.said(f"{reason}: starting again from its first byte")
        self.part.restart()
        self.total = self.wanted.size
        self._report()

    def _is_complete(self) -> bool:
        return self.total is not None and self.part.missing(self.total, Intervals()) is None

    def _round(self) -> None:
        """One crew, until the file is complete or something has to be decided."""
        # Where only the whole file can be had, one worker reads it to its end.
        total = self.total if self.ranges else None
        self._answered = False
        crew = Crew(self.part, self._fetch, self.policy, self.said, total, self._has_brought)
        crew.work(meanwhile=self._sync)
        if crew.dismissed:
            self.policy = replace(self.policy, connections=1)

    def _has_brought(self) -> bool:
        return self.part.done > self._began_with

    def _sync(self) -> None:
        if time.monotonic() - self._synced > SYNC_EVERY:
            _guarded(self.part.sync)
            self._synced = time.monotonic()

    def _fetch(self, crew: Crew, start: int, end: int, silence: float) -> None:
        if not self.ranges and self.part.done:
            self.part.restart()  # A whole file that broke off begins again.
        if not self.ranges:
            start = 0
        # Once is enough: later answers are held against the part by their heads.
        conditional = self.conditional and self.validators and not self._answered and self.part.done
        known = self.part.validator if conditional else None
        span = (start, end) if self.ranges else None
        with self._asked(span, known, silence) as answer:
            self._accept(answer, crew, start, known is not None)
            if answer.status == 206:
                assert self.total is not None
                crew.call_others(self.policy.connections)
                self._receive(answer, crew, start, min(end, self.total))
            else:
                self._receive(answer, crew, start, self.total)

    def _asked(self, span: tuple[int, int | None] | None, validator: str | None, silence: float) -> Answer:
        try:
            return request(self.wanted.target, span, validator, silence)
        except Rejected as rejected:
            if rejected.status == 416 and span is not None:
                raise _NoRanges from rejected  # There are no such bytes: what lies here is too long.
            raise

    def _accept(self, answer: Answer, crew: Crew, start: int, conditional: bool) -> None:
        """Check the head of an answer against what is known of the file."""
        whole, part = answer.status == 200, self.part
        if self.wanted.size is not None and answer.total not in (None, self.wanted.size):
            raise SizeDiffers(self.wanted.size, answer.total or 0)
        if part.done:
            self._check_unchanged(answer)
            if whole and conditional:
                self.conditional = False
                raise Trouble("the server does not know its own entity tag")
        unusable = answer.start != start or (not whole and answer.total is None)
        if unusable or (whole and (part.done or not crew.alone)):
            raise _NoRanges
        self.ranges = self.ranges and not whole
        self._answered = True
        if answer.total is not None:
            self.total = crew.total = answer.total
        _guarded(lambda: part.describe(self.total, answer.validator or part.validator))

    def _check_unchanged(self, answer: Answer) -> None:
        known = self.part
        if known.total is not None and answer.total not in (None, known.total):
            raise _Changed(gently=False)
        both = self.validators and known.validator and answer.validator
        if both and known.validator != answer.validator:
            if answer.status == 206 and self._is_only_another_tag():
                return
            # Where a digest decides in the end, what others are about to bring may still be of use.
            raise _Changed(gently=self.wanted.digest_known)

    def _is_only_another_tag(self) -> bool:
        """Whether the content seems to be the same; then the digest alone decides from here on."""
        with self._comparing:
            if self.validators and self.wanted.digest_known and self._is_still_the_same():
                self.validators = False
            return not self.validators

    def _receive(self, answer: Answer, crew: Crew, start: int, end: int | None) -> None:
        """Write the body of an answer from `start` on, up to `end`, or to its own end where nobody knows."""
        position = start
        since, counted = time.monotonic(), start
        while end is None or position < end:
            block = answer.read(READ if end is None else min(READ, end - position))
            if crew.stopped:
                return
            if not block:
                if end is not None:
                    raise Trouble("the connection ended early")
                self.total = crew.total = position  # Nobody knew the size: it ends where the answer does.
                return
            self._write(position, block)
            position += len(block)
            if time.monotonic() - since >= self.policy.silence:
                if position - counted < SLOWEST:
                    raise Trouble("the transfer has stalled")
                since, counted = time.monotonic(), position

    def _write(self, position: int, block: bytes) -> None:
        _guarded(lambda: self.part.write(position, block))
        self._report()

    def _is_still_the_same(self) -> bool:
        """Whether the last bytes of the first range are the same on the server as here."""
        there = next((end for _, end in self.part.ranges()), 0)
        start = max(next((start for start, _ in self.part.ranges()), 0), there - OVERLAP)
        patience = Patience(self.policy, time.sleep, self.said)
        while True:
            try:
                return start < there and self._has(start, there)
            except Rejected:
                return False
            except Trouble as trouble:
                patience.after(trouble, progressed=False, arrived=False)

    def _has(self, start: int, end: int) -> bool:
        with request(self.wanted.target, (start, end), None, self.policy.silence) as answer:
            if answer.status != 206 or answer.start != start or answer.total not in (None, self.part.total):
                return False
            theirs = b""
            while len(theirs) < end - start and (block := answer.read(end - start - len(theirs))):
                theirs += block
        return theirs == self.part.read(start, end - start)

    def _report(self) -> None:
        self.advanced(self.part.done, self.total)


def _guarded(action: Callable[[], None]) -> None:
    """Run an action on the disk; a full one is `DoesNotFit`, and what was written stays."""
    try:
        action()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DoesNotFit(
                f"the disk is full: {(error.strerror or str(error)).lower()}",
                "Make room; the same command goes on where it stopped.",
            ) from error
        raise OutputNotWritable(f"the download cannot be written: {error}") from error
