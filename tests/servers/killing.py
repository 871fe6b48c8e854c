"""Kills a command at random moments, as a system that is out of memory does, and then lets it end."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Killed:
    """What became of the runs: `hits` kills met a live process, and `result` is the run to the end.

    `moments` are the seconds from the beginning of the window to each kill, `early` the runs that ended by
    themselves before their kill.
    """

    hits: int
    result: subprocess.CompletedProcess[str]
    moments: tuple[float, ...]
    early: tuple[subprocess.CompletedProcess[str], ...]


def kill_at_random(
    command: Sequence[str],
    times: int,
    seed: int,
    environment: Mapping[str, str] | None = None,
    *,
    first: float | Callable[[], bool] = 0.0,
    between: tuple[float, float] | None = None,
    rehearsal: Mapping[str, str] | None = None,
    after_each: Callable[[int], None] | None = None,
    folder: Path | None = None,
    timeout: float = 120.0,
) -> Killed:
    """Start `command` and kill it with SIGKILL, `times` times, each at a random moment; then let it end.

    `environment` is added to this process's. The window for the kills opens `first` seconds after the start,
    or once `first()` is true (something was sent, a file appeared). In it a moment is drawn uniformly from
    `between`, in seconds. Without `between` the command is run once to its end beforehand, with `rehearsal`
    added to the environment (another home, say), and the window is as long as that took. `after_each(i)` is
    called behind kill i, from 0, to look at what is left. The command's children are killed with it.

    Raises ValueError without a window, TimeoutError where a run takes longer than `timeout`, RuntimeError
    where the rehearsal fails.
    """
    variables = environment or {}
    if between is None:
        if rehearsal is None:
            raise ValueError("say between which seconds to kill, or with which environment to measure it")
        with _run(command, {**variables, **rehearsal}, folder) as run:
            between = 0.0, _rehearsed(run, first, timeout)
    numbers = random.Random(seed)
    moments = tuple(numbers.uniform(*between) for _ in range(times))
    early = []
    for number, moment in enumerate(moments):
        with _run(command, variables, folder) as run:
            ended = _killed(run, first, moment, timeout)
        if ended is not None:
            early.append(ended)
        if after_each is not None:
            after_each(number)
    with _run(command, variables, folder) as run:
        result = _to_the_end(run, timeout)
    return Killed(times - len(early), result, moments, tuple(early))


@contextlib.contextmanager
def _run(command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> Iterator[_Run]:
    """A run of the command, which does not outlive the block."""
    # A pipe that nobody reads would stop the run when full.
    files = functools.partial(tempfile.TemporaryFile, "w+", encoding="utf-8", errors="replace")
    with files() as output, files() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )
        run = _Run(process, output, errors)
        try:
            yield run
        finally:
            run.kill()


@dataclass(frozen=True)
class _Run:
    """One run of a command, and the files for what it writes."""

    process: subprocess.Popen[bytes]
    output: IO[str]
    errors: IO[str]

    def wait(self, seconds: float) -> bool:
        """Wait for at most so long; returns whether the run has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.returncode is not None

    def wait_for(self, first: float | Callable[[], bool], timeout: float) -> None:
        """Wait until the window opens, or the run has ended."""
        if not callable(first):
            self.wait(first)
            return
        end = time.monotonic() + timeout
        while not (self.wait(POLL_SECONDS) or first()):
            if time.monotonic() > end:
                raise TimeoutError(f"the window for kills did not open within {timeout} s")

    def result(self) -> subprocess.CompletedProcess[str]:
        """What the run, which has ended, wrote and returned."""
        texts = []
        for file in (self.output, self.errors):
            file.seek(0)
            texts.append(file.read())
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, *texts)

    def kill(self) -> None:
        """Kill the run and its children, if it has not been seen to end: its number may be another's then."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _to_the_end(run: _Run, timeout: float) -> subprocess.CompletedProcess[str]:
    if not run.wait(timeout):
        raise TimeoutError(f"{run.process.args!r} did not end within {timeout} s")
    return run.result()


def _rehearsed(run: _Run, first: float | Callable[[], bool], timeout: float) -> float:
    """Seconds from the opening of the window to the end of the run."""
    run.wait_for(first, timeout)
    begin = time.monotonic()
    result = _to_the_end(run, timeout)
    if result.returncode != 0:
        raise RuntimeError(f"the rehearsal ended with {result.returncode}:\n{result.stderr}")
    return time.monotonic() - begin


def _killed(
    run: _Run, first: float | Callable[[], bool], moment: float, timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Kill the run at a moment of the window; returns it if it ended by itself before."""
    run.wait_for(first, timeout)
    run.wait(moment)
    run.kill()
    return None if run.process.returncode == -signal.SIGKILL else run.result()
