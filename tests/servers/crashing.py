"""Runs a callable in a process that kills itself at a chosen step on the disk, to look at what is left then.

    for outcome in every_crash("this_test:save_new", lambda at: [copy_of_old(folder / str(at))]):
        assert read(folder / str(outcome.at)) in (OLD, NEW)

Steps are the calls that change files: creating and opening for writing, each write that leaves the process,
fsync, rename, replace, link, symlink, unlink, mkdir, rmdir, truncate. What extension modules write by
themselves, and through a memory map, is not seen; what they do between two steps is.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import io
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

#: "before": the step is not done; "after": it is; "torn": of a write, half is; else as "after".
Moment = Literal["before", "after", "torn"]
#: More steps than any publication takes.
MANY = 10_000

_NAMED = ("replace", "rename", "link", "symlink", "unlink", "remove", "mkdir", "rmdir", "truncate")
#: With the position of the descriptor among their arguments.
_ON_DESCRIPTORS = {
    "fsync": 0,
    "fdatasync": 0,
    "ftruncate": 0,
    "posix_fallocate": 0,
    "writev": 0,
    "pwritev": 0,
}
_ON_DESCRIPTORS |= {"sendfile": 0, "copy_file_range": 1}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Outcome:
    """One run: `killed` at step `at`, or else it came to its end. `steps` are those that it had begun."""

    at: int
    killed: bool
    steps: tuple[str, ...]


class ChildFailed(Exception):
    """The callable raised, or the process ended in another way than by its own hand."""


def every_crash(
    call: str,
    arguments: Sequence[Any] | Callable[[int], Sequence[Any]] = (),
    *,
    moment: Moment = "before",
    environment: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Iterator[Outcome]:
    """Run `module:function` again and again: killed at step 0, at step 1, ..., until it ends by itself.

    Look at the disk after each outcome; the last is the run that was not killed. `arguments` (JSON values and
    paths, which arrive as text), or what it returns for the number of the step, are the function's. The
    module is imported once, with this process's `sys.path`; each run is a fork of that. `environment` is
    added to this process's. Raises ChildFailed where the function raises, TimeoutError where a run takes
    longer than `timeout` seconds.
    """
    with CrashingProcess(call, environment=environment, timeout=timeout) as process:
        for at in range(MANY):
            outcome = process.run(arguments(at) if callable(arguments) else arguments, at, moment)
            yield outcome
            if not outcome.killed:
                return
    raise ChildFailed(f"{call} takes more than {MANY} steps")


class CrashingProcess:
    """A process that has imported `module:function` and forks for each run of it."""

    def __init__(self, call: str, *, environment: Mapping[str, str] | None = None, timeout: float = 60.0):
        self.call = call
        self.timeout = timeout
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "servers.crashing", call],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {}), "PYTHONPATH": path},
            start_new_session=True,
        )

    def run(self, arguments: Sequence[Any] = (), at: int | None = None, moment: Moment = "before") -> Outcome:
        """Run the function, which kills itself at step `at`; None lets it end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "at": at, "moment": moment}
        late = threading.Timer(self.timeout, self._kill)
        late.start()
        try:
            self._process.stdin.write(json.dumps(order, default=os.fspath) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line:
            late.join()
            if self._process.wait() == -signal.SIGKILL:
                raise TimeoutError(f"{self.call} did not end within {self.timeout} s")
            raise ChildFailed(f"{self.call} cannot be imported")
        told = json.loads(line)
        if told["error"]:
            raise ChildFailed(f"{self.call}, to be killed at step {at}:\n{told['error']}")
        return Outcome(-1 if at is None else at, told["killed"], tuple(told["steps"]))

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


# In the child


class _Steps:
    """Once armed: counts the steps and tells each to the parent, and kills the process at its step."""

    def __init__(self) -> None:
        self._told: int | None = None
        self._tell = os.write

    def arm(self, at: int | None, moment: Moment, told: int) -> None:
        self._at, self._moment, self._told = at, moment, told
        self._numbers = itertools.count()

    def take(self, text: str, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Do `act`, or what is left of it if this is the step."""
        if self._told is None:
            return act()
        number = next(self._numbers)
        self._tell(self._told, text.encode(errors="backslashreplace").replace(b"\n", b" ")[:4000] + b"\n")
        if number != self._at:
            return act()
        if self._moment == "torn" and half is not None:
            half()
        elif self._moment != "before":
            # A step that fails is behind us as well: a folder that is made anew with its parents, say.
            with contextlib.suppress(OSError):
                act()
        os.kill(os.getpid(), signal.SIGKILL)


class _CountedFile(io.FileIO):
    """A file whose every write to the system is a step."""

    steps: _Steps

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        put = super().write
        half = functools.partial(put, view[: len(view) // 2])
        count: int = self.steps.take(f"write {len(view)} {self.name}", functools.partial(put, view), half)
        return count

    def truncate(self, size: int | None = None) -> int:
        cut = super().truncate
        length: int = self.steps.take(f"truncate {self.name}", functools.partial(cut, size))
        return length


def _watch(steps: _Steps) -> None:
    """Put counting functions in the place of those that change files, before anybody imports these."""
    replaced: dict[str, Callable[..., Any]] = {"open": functools.partial(_open_descriptor, steps, os.open)}
    for name in _NAMED:
        replaced[name] = functools.partial(_named, steps, name, getattr(os, name))
    for name, position in _ON_DESCRIPTORS.items():
        if hasattr(os, name):
            replaced[name] = functools.partial(_on_descriptor, steps, name, position, getattr(os, name))
    for name in ("write", "pwrite"):
        replaced[name] = functools.partial(_write, steps, name, getattr(os, name))
    for name, function in replaced.items():
        setattr(os, name, function)
    counted = type("CountedFile", (_CountedFile,), {"steps": steps})
    builtins.open = io.open = functools.partial(_open_file, steps, counted, io.open)


def _named(steps: _Steps, name: str, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
    text = " ".join(
        [name, *(os.fsdecode(each) for each in args if isinstance(each, str | bytes | os.PathLike))]
    )
    return steps.take(text, functools.partial(original, *args, **options))


def _on_descriptor(
    steps: _Steps, name: str, position: int, original: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    act = functools.partial(original, *args, **options)
    return steps.take(f"{name} {args[position]}", act) if _is_on_disk(args[position]) else act()


def _write(
    steps: _Steps, name: str, original: Callable[..., int], descriptor: int, data: Any, *at: int
) -> Any:
    view = memoryview(data).cast("B")
    act = functools.partial(original, descriptor, view, *at)
    half = functools.partial(original, descriptor, view[: len(view) // 2], *at)
    return steps.take(f"{name} {len(view)} {descriptor}", act, half) if _is_on_disk(descriptor) else act()


def _is_on_disk(descriptor: int) -> bool:
    """Whether it is a file or a folder that the function opened, no pipe, socket or standard stream."""
    return descriptor > 2 and stat.S_IFMT(os.fstat(descriptor).st_mode) in (stat.S_IFREG, stat.S_IFDIR)


def _open_descriptor(
    steps: _Steps, original: Callable[..., int], path: Any, flags: int, *args: Any, **options: Any
) -> Any:
    act = functools.partial(original, path, flags, *args, **options)
    return steps.take(f"open {path}", act) if flags & _WRITING else act()


def _open_file(
    steps: _Steps,
    counted: type[io.FileIO],
    original: Callable[..., Any],
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Any:
    if not set(mode) & set("wax+"):
        return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
    make = functools.partial(counted, file, mode.replace("b", "").replace("t", ""), closefd, opener)
    opens = not isinstance(file, int) and opener is None  # an opener opens by a function that counts
    raw = steps.take(f"open {file}", make) if opens else make()
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
    if "b" in mode:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text


def _forked(steps: _Steps, function: Callable[..., Any], order: Mapping[str, Any]) -> dict[str, Any]:
    """Run the function in a fork; returns what became of it."""
    reading, writing = os.pipe()
    failing, failed = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.close(failing)
        steps.arm(order["at"], order["moment"], writing)
        os._exit(_obey(function, order["arguments"], failed))
    os.close(writing)
    os.close(failed)
    with open(failing, encoding="utf-8") as failures, open(reading, encoding="utf-8") as log:
        begun, error = log.read().splitlines(), failures.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killed = code == -signal.SIGKILL
    if not killed and code != 0 and not error:
        error = f"the process ended with {code}"
    return {"killed": killed, "steps": begun, "error": error}


def _obey(function: Callable[..., Any], arguments: Sequence[Any], failed: int) -> int:
    try:
        function(*arguments)
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            return 0
        os.write(failed, traceback.format_exc().encode(errors="backslashreplace")[-30_000:])
        return 1
    return 0


def main() -> None:
    """Obey orders, one JSON document a line, until there are no more."""
    module, _, name = sys.argv[1].partition(":")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What the function prints is no answer.
    steps = _Steps()
    _watch(steps)
    function = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        answers.write(json.dumps(_forked(steps, function, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
