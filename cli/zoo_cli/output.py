"""What the command line prints: results to stdout; progress, warnings, hints and errors to stderr.

Rich is imported only where colour or a table is wanted, and it alone decides about colour (NO_COLOR, terminals).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


class Step(Protocol):
    """Moves a progress bar: `done` of `total`, with an optional new description."""

    def __call__(self, done: float, total: float | None = None, text: str | None = None) -> None: ...


@dataclass
class Output:
    """One command's output. `mode` is "text", "json" (one document on stdout) or "quiet" (bare values)."""

    mode: str = "text"
    verbose: bool = False
    _said: set[str] = field(default_factory=set)

    def result(self, document: Any, text: Callable[[], None], quiet: Iterable[object] = ()) -> None:
        """Show a result: `document` as JSON, or what `text` prints, or one line for each of `quiet`."""
        if self.mode == "json":
            print(json.dumps(document, indent=2, ensure_ascii=False, default=str))
        elif self.mode == "quiet":
            for value in quiet:
                print(value)
        else:
            text()

    def line(self, text: str = "") -> None:
        """A line of the result, in text mode only."""
        if self.mode == "text":
            print(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table of the result; columns whose name ends in ">" are aligned right."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            right = column.endswith(">")
            table.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        console(sys.stdout).print(table)

    def warning(self, text: str) -> None:
        """A warning, each text once."""
        if text not in self._said:
            self._said.add(text)
            _say(sys.stderr, "Warning", "yellow", text)

    def hint(self, text: str) -> None:
        """What the user may want to do next."""
        if self.mode == "text":
            _say(sys.stderr, "Hint", "cyan", text)

    def note(self, text: str) -> None:
        """Progress in words, on stderr, in text mode only."""
        if self.mode == "text":
            print(text, file=sys.stderr)

    def detail(self, text: str) -> None:
        """A note that only --verbose shows."""
        if self.verbose:
            print(text, file=sys.stderr)

    def error(self, message: str, hint: str = "") -> None:
        """What went wrong and what to do next."""
        _say(sys.stderr, "Error", "bold red", message)
        if hint:
            _say(sys.stderr, "Hint", "cyan", hint)

    @contextmanager
    def progress(self, text: str, total: float | None = None) -> Iterator[Step]:
        """A progress bar on a terminal's stderr; without a terminal or in other modes, nothing."""
        if self.mode != "text" or not sys.stderr.isatty():
            yield lambda done, total=None, text=None: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        with Progress(*columns, TimeRemainingColumn(), console=console(sys.stderr), transient=True) as bar:
            task = bar.add_task(text, total=total)

            def step(done: float, total: float | None = None, text: str | None = None) -> None:
                bar.update(task, completed=done, total=total, description=text)

            yield step


def console(stream: IO[str]) -> Any:
    """A rich console on a stream; as wide as the terminal, unlimited for a pipe."""
    from rich.console import Console

    width = None if stream.isatty() else 10_000
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def _say(stream: IO[str], label: str, style: str, text: str) -> None:
    first, *rest = text.splitlines() or [""]
    if stream.isatty() and "NO_COLOR" not in os.environ:
        console(stream).print(f"[{style}]{label}:[/]", end=" ")
    else:
        stream.write(f"{label}: ")
    print(first, file=stream)
    for line in rest:
        print(" " * (len(label) + 2) + line, file=stream)


def error_console() -> Output:
    """Output for errors that no command handles."""
    return Output()


def output_options(function: Function) -> Function:
    """Add --json, -q, -v and --no-color to a command, which receives an `Output` as `out`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print bare values only.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
    @click.option("--no-color", is_flag=True, help="Print without colour (as NO_COLOR=1).")
    def command(*args: Any, as_json: bool, quiet: bool, verbose: bool, no_color: bool, **kwargs: Any) -> Any:
        if no_color:
            os.environ["NO_COLOR"] = "1"
        mode = "json" if as_json else "quiet" if quiet else "text"
        return function(*args, out=Output(mode, verbose), **kwargs)

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    command.__click_params__ = [*getattr(command, "__click_params__", []), *getattr(function, "__click_params__", [])]  # type: ignore[attr-defined]
    return command  # type: ignore[return-value]
