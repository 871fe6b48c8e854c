"""What is printed where: pipes get plain text, terminals tables and colour, JSON one document."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from pathlib import Path

import pytest

from zoo_cli import output
from zoo_cli.output import Output, as_json


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def use() -> tuple[Terminal, Terminal]:
        # Not in the fixture: pytest puts its own streams in place before the test is called.
        streams = Terminal(), Terminal()
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        return streams

    return use


ROWS = [["a", 1, "first [bold]row[/] :smile:"], ["bcd", 20, None]]


def test_a_pipe_gets_aligned_plain_lines(capsys):
    Output().table(["name", "count>", "text"], ROWS)
    assert capsys.readouterr().out == (
        "name  count  text\na         1  first [bold]row[/] :smile:\nbcd      20\n"
    )


def test_a_terminal_gets_a_table_with_texts_as_they_are(terminal):
    stdout, _ = terminal()
    Output().table(["name", "count>", "text"], ROWS)
    printed = stdout.getvalue()
    assert "\x1b[1m" in printed
    assert "first [bold]row[/] :smile:" in printed


def test_long_texts_fold_and_names_do_not(terminal):
    stdout, _ = terminal()
    reference = "method:a-variant-with-a-long-name"
    Output().table(["reference", "summary"], [[reference, "word " * 30]])
    lines = re.sub("\x1b\\[[0-9;]*m", "", stdout.getvalue()).splitlines()
    assert any(reference in line for line in lines)
    assert len(lines) > 4
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("rows", [[], [["", "", ""]]])
def test_small_tables(capsys, rows):
    Output().table(["a", "b>", "c"], rows)
    assert capsys.readouterr().out.splitlines()[0] == "a  b  c"


def test_labels_are_coloured_on_a_terminal_only(terminal):
    _, stderr = terminal()
    out = Output()
    out.error("what [red]", "next")
    out.warning("careful")
    printed = stderr.getvalue()
    assert "\x1b[1;31mError:" in printed
    assert "\x1b[36mHint:" in printed
    assert "\x1b[33mWarning:" in printed
    plain = re.sub("\x1b\\[[0-9;]*m", "", printed)
    assert plain == "Error: what [red]\nHint: next\nWarning: careful\n"


def test_no_color(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, stderr = terminal()
    Output().error("what")
    assert stderr.getvalue() == "Error: what\n"


def test_pipes_get_no_colour(capsys):
    out = Output()
    out.error("what", "next\nand then")
    out.warning("careful")
    out.warning("careful")
    out.warnings(["careful", "twice"])
    assert capsys.readouterr().err == (
        "Error: what\nHint: next\n      and then\nWarning: careful\nWarning: twice\n"
    )


@pytest.mark.parametrize(
    ("mode", "out", "err"),
    [
        ("text", "line\nshown\n", "Warning: w\nHint: h\nnote\n"),
        ("json", '{\n  "a": 1\n}\n', "Warning: w\n"),
        ("quiet", "q\n7\n", "Warning: w\n"),
    ],
)
def test_modes(capsys, mode, out, err):
    output = Output(mode)
    output.line("line")
    output.result({"a": 1}, lambda: print("shown"), quiet=["q", 7])
    output.warning("w")
    output.hint("h")
    output.note("note")
    output.detail("detail")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (out, err)


def test_verbose_shows_details_on_stderr(capsys):
    Output("json", verbose=True).detail("detail")
    assert capsys.readouterr() == ("", "detail\n")


def test_control_characters_cannot_steer_the_terminal(capsys):
    out = Output()
    out.line("a\x1b[2Jb\x07\x9bc\td")
    out.table(["x"], [["\x1b]0;title\x07y"]])
    out.warning("w\x1b[31m")
    printed = capsys.readouterr()
    assert printed.out == "a[2Jbc\td\nx\n]0;titley\n"
    assert printed.err == "Warning: w[31m\n"


@dataclasses.dataclass(frozen=True)
class Thing:
    path: Path
    values: tuple[float, ...]


def test_documents_hold_what_json_can():
    document = json.loads(
        as_json([Thing(Path("/x"), (1.0, float("nan"), float("inf"))), {"ü": None, 3: True}])
    )
    assert document == [{"path": "/x", "values": [1.0, None, None]}, {"ü": None, "3": True}]


def test_progress_is_for_terminals(terminal):
    stdout, stderr = terminal()
    with Output().progress("work", total=2) as step:
        step(1)
        step(2, text="more")
    with Output("json").progress("hidden", total=2) as step:
        step(1)
    assert "work" in stderr.getvalue()
    assert "hidden" not in stderr.getvalue()
    assert stdout.getvalue() == ""


def test_no_progress_in_a_pipe(capsys):
    with Output().progress("work", total=2) as step:
        step(1, 2, "text")
    assert capsys.readouterr() == ("", "")


def test_options_reach_the_command(capsys):
    import click
    from click.testing import CliRunner

    @click.command()
    @click.argument("name")
    @output.output_options
    @click.option("--count", default=1)
    def command(name: str, count: int, out: Output) -> None:
        """Help."""
        out.result({"name": name, "count": count, "verbose": out.verbose}, lambda: None)

    result = CliRunner().invoke(command, ["x", "--count", "2", "--json", "-v"])
    assert json.loads(result.stdout) == {"name": "x", "count": 2, "verbose": True}
    assert [parameter.name for parameter in command.params][:2] == ["name", "count"]
