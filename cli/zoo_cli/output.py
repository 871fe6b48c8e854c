"""What the command line prints: results to stdout; progress, warnings, hints and errors to stderr.

Rich is imported only where colour or a table is wanted on a terminal, and it alone decides about colour.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


class ReaderLeft(BaseException):
    """The reader of a pipe left. Click makes exit code 1 of the BrokenPipeError itself.

    No Exception: what prints while a plugin's code runs must not look like that plugin's failure.
    """


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
            print(as_json(document, ascii_only=not _is_unicode(sys.stdout)))
        elif self.mode == "quiet":
            for value in quiet:
                print(value)
        else:
            text()

    def line(self, text: str = "") -> None:
        """A line of the result, in text mode only."""
        if self.mode == "text":
            print(clean(text))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table of the result; columns whose name ends in ">" are aligned right."""
        cells = [["" if cell is None else clean(str(cell)) for cell in row] for row in rows]
        if sys.stdout.isatty():
            _rich_table(columns, cells)
        else:
            _plain_table(columns, cells)

    def warning(self, text: str) -> None:
        """A warning, each text once."""
        if text not in self._said:
            self._said.add(text)
            _say(sys.stderr, "Warning", "yellow", text)

    def warnings(self, texts: Iterable[str]) -> None:
        """Several warnings, such as those of a session or a catalogue."""
        for text in texts:
            self.warning(text)

    def hint(self, text: str) -> None:
        """What the user may want to do next."""
        if self.mode == "text" and text:
            _say(sys.stderr, "Hint", "cyan", text)

    def note(self, text: str) -> None:
        """Progress in words, on stderr, in text mode only."""
        if self.mode == "text":
            print(clean(text), file=sys.stderr)

    def detail(self, text: str) -> None:
        """A note that only --verbose shows."""
        if self.verbose:
            print(clean(text), file=sys.stderr)

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
        # Else rich would send what is printed meanwhile to stderr, even where stdout is a file.
        settings: dict[str, Any] = {"transient": True, "redirect_stdout": sys.stdout.isatty()}
        with Progress(*columns, TimeRemainingColumn(), console=console(sys.stderr), **settings) as bar:
            task = bar.add_task(text, total=total)

            def step(done: float, total: float | None = None, text: str | None = None) -> None:
                bar.update(task, completed=done, total=total, description=text)

            yield step


def console(stream: IO[str]) -> Any:
    """A rich console on a stream. Texts are printed as they are: no markup, no emoji codes."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def as_json(document: Any, ascii_only: bool = False) -> str:
    """A JSON document; dataclasses become objects, and numbers that JSON does not have become null."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=ascii_only, default=str, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        right = column.endswith(">")
        table.add_column(
            column.rstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=not last
        )
    for row in rows:
        table.add_row(*row)
    console(sys.stdout).print(table)


def _plain_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    """What a pipe gets: aligned, one line for each row whatever its length, nothing at the end of a line."""
    lines = [[column.rstrip(">") for column in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        padded = [
            cell.rjust(width) if column.endswith(">") else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        print("  ".join(padded).rstrip())


#: Control characters are removed from whatever is shown: a card must not be able to steer the terminal.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """`text` without control characters, other than line ends and tabs."""
    return text.translate(_CONTROL)


def _is_unicode(stream: IO[str]) -> bool:
    return "utf" in (getattr(stream, "encoding", None) or "utf-8").lower()


def _say(stream: IO[str], label: str, style: str, text: str) -> None:
    first, *rest = clean(text).splitlines() or [""]
    if stream.isatty() and not os.environ.get("NO_COLOR"):
        console(stream).print(f"{label}:", style=style, end=" ")
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
    # Click keeps the parameters of a function that is not a command yet in this attribute.
    own: list[click.Parameter] = command.__dict__["__click_params__"]
    own += function.__dict__.get("__click_params__", [])
    return command  # type: ignore[return-value]
