"""What a pull shows: bars on a terminal, lines in a pipe, nothing where a program reads along."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from zoo.store.progress import PlannedFile
from zoo_cli import transfer_bars
from zoo_cli.output import Output
from zoo_cli.transfer_bars import Rate, clock_time
from zoo_cli.transfers import TransferView, duration

MIB = 1 << 20
URL = "https://example.org/weights/model.pth"


class Clock:
    """Time that passes when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """Everything that was ever drawn, without colours and movements."""
        plain = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return [line.rstrip() for line in re.split("[\r\n]+", plain) if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """stderr is a terminal of 100 columns, on which bars are drawn at the beginning and at the end only."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(transfer_bars, "REFRESHES", 0.001)

    def use() -> Terminal:
        # Not in the fixture: pytest puts its own streams in place before the test is called.
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return use


def planned(size: int | None = 400 * MIB, done: int = 0, role: str = "model", name: str = URL) -> PlannedFile:
    return PlannedFile(role, name, size, done)


# In a pipe


def test_a_pipe_gets_a_line_at_the_beginning_and_at_the_end(capsys):
    clock = Clock()
    with TransferView(Output(), "toy:remote", clock) as view:
        view.planned([planned()])
        assert capsys.readouterr().err == ""
        view.advanced("model", 0, 400 * MIB)
        assert capsys.readouterr().err == f"toy:remote model: 400.0 MiB from {URL}\n"
        for done in range(1, 400):
            view.advanced("model", done * MIB, 400 * MIB)
        assert capsys.readouterr().err == ""
        clock.now += 8
        view.advanced("model", 400 * MIB, 400 * MIB)
        assert capsys.readouterr().err == "toy:remote model: done in 8.0 s, 50.0 MiB/s\n"
        view.working("model", "checking")
        view.working("model", "converting")
    assert capsys.readouterr() == ("", "")


def test_what_lay_here_before_is_no_speed(capsys):
    clock = Clock()
    with TransferView(Output(), "toy:remote", clock) as view:
        view.planned([planned(done=300 * MIB)])
        view.advanced("model", 300 * MIB, 400 * MIB)
        clock.now += 10
        view.advanced("model", 400 * MIB, 400 * MIB)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"toy:remote model: 400.0 MiB from {URL}, 300.0 MiB of it here already"
    assert second == "toy:remote model: done in 10.0 s, 10.0 MiB/s"


def test_a_file_that_was_complete_has_no_speed(capsys):
    with TransferView(Output(), "toy:remote", Clock()) as view:
        view.planned([planned(done=400 * MIB)])
        view.advanced("model", 400 * MIB, 400 * MIB)
        view.working("model", "checking")
    assert capsys.readouterr().err.splitlines()[1:] == ["toy:remote model: done in 0.0 s"]


def test_starting_again_counts_from_there(capsys):
    clock = Clock()
    with TransferView(Output(), "", clock) as view:
        view.planned([planned()])
        view.advanced("model", 0, 400 * MIB)
        clock.now += 4
        view.advanced("model", 400 * MIB, 400 * MIB)
        view.working("model", "checking")
        view.said("the content is not what was promised")
        clock.now += 1
        view.advanced("model", 0, 400 * MIB)
        clock.now += 10
        view.advanced("model", 400 * MIB, 400 * MIB)
    assert capsys.readouterr().err.splitlines() == [
        f"model: 400.0 MiB from {URL}",
        "model: done in 4.0 s, 100.0 MiB/s",
        "the content is not what was promised",
        "model: done in 15.0 s, 40.0 MiB/s",
    ]


def test_a_file_of_unknown_size_is_done_when_it_is_checked(capsys):
    clock = Clock()
    with TransferView(Output(), "", clock) as view:
        view.planned([planned(size=None)])
        view.advanced("model", 0, None)
        clock.now += 2
        view.advanced("model", 6 * MIB, None)
        assert len(capsys.readouterr().err.splitlines()) == 1
        view.working("model", "checking")
        assert capsys.readouterr().err == "model: done in 2.0 s, 3.0 MiB/s\n"


def test_several_files_are_told_one_after_the_other(capsys):
    clock = Clock()
    with TransferView(Output(), "m:v", clock) as view:
        view.planned(
            [planned(MIB), planned(MIB, MIB, "tokenizer", "hf://o/r/t"), planned(0, 0, "config", "c")]
        )
        for role in ("model", "tokenizer", "config"):
            view.advanced(role, MIB * (role == "tokenizer"), MIB * (role != "config"))
            clock.now += 1
            view.advanced(role, MIB * (role != "config"), MIB * (role != "config"))
            view.working(role, "storing")
    assert capsys.readouterr().err.splitlines() == [
        f"m:v model: 1.0 MiB from {URL}",
        "m:v model: done in 1.0 s, 1.0 MiB/s",
        "m:v tokenizer: 1.0 MiB from hf://o/r/t, 1.0 MiB of it here already",
        "m:v tokenizer: done in 1.0 s",
        "m:v config: 0 B from c",
        "m:v config: done in 1.0 s",
    ]


def test_a_failure_is_not_called_done(capsys):
    with pytest.raises(OSError), TransferView(Output(), "", Clock()) as view:
        view.planned([planned()])
        view.advanced("model", MIB, 400 * MIB)
        raise OSError
    assert capsys.readouterr().err == f"model: 400.0 MiB from {URL}\n"


def test_nothing_planned_says_nothing(capsys):
    with TransferView(Output()) as view:
        assert not view.was_needed
        view.advanced("model", 1, 2)
        view.working("model", "checking")
    assert capsys.readouterr() == ("", "")
    with TransferView(Output()) as view:
        view.planned([])
        assert view.was_needed
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["json", "quiet"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_other_modes_are_silent(terminal, capsys, mode, is_terminal):
    stream = terminal() if is_terminal else None
    with TransferView(Output(mode)) as view:
        view.planned([planned()])
        view.said("a retry")
        view.advanced("model", MIB, 400 * MIB)
        view.working("model", "checking")
    assert capsys.readouterr() == ("", "")
    assert stream is None or stream.getvalue() == ""


def test_control_characters_of_names_and_words_are_removed(capsys):
    with TransferView(Output()) as view:
        view.planned([planned(name="https://e.org/\x1b[2Jx")])
        view.advanced("model", 0, 400 * MIB)
        view.said("retry\x1b]0;title\x07")
    assert capsys.readouterr().err.splitlines()[:2] == [
        "model: 400.0 MiB from https://e.org/[2Jx",
        "retry]0;title",
    ]


# On a terminal


def test_a_bar_shows_what_is_here_how_fast_and_how_long(terminal):
    stream, clock = terminal(), Clock()
    with TransferView(Output(), "toy:remote", clock) as view:
        view.planned([planned(done=100 * MIB)])
        view.advanced("model", 100 * MIB, 400 * MIB)
        clock.now += 4
        view.advanced("model", 200 * MIB, 400 * MIB)
    (first, last) = stream.lines
    assert re.fullmatch(r"model model\.pth  ━+╸?╺?━+ +100\.0 MiB/400\.0 MiB", first)
    # 100 MiB in 4 seconds, what lay here not counted; the other 200 MiB take 8.
    assert re.fullmatch(r"model model\.pth  ━+╸?╺?━+ +200\.0 MiB/400\.0 MiB  25\.0 MiB/s  0:08", last)


def test_several_bars_have_one_in_total(terminal):
    stream, clock = terminal(), Clock()
    with TransferView(Output(), "", clock) as view:
        view.planned([planned(), planned(100 * MIB, 40 * MIB, "tokenizer", "hf://o/r/tok.json")])
        view.advanced("model", 0, 400 * MIB)
        clock.now += 2
        view.advanced("model", 260 * MIB, 400 * MIB)
    model, tokenizer, total = (re.sub(" +", " ", line.replace("━", "")) for line in stream.lines[-3:])
    assert model.endswith(" 260.0 MiB/400.0 MiB 130.0 MiB/s 0:01")
    assert tokenizer.startswith("tokenizer tok.json")
    assert tokenizer.endswith(" 40.0 MiB/100.0 MiB")
    assert total.startswith("total ")
    assert total.endswith(" 300.0 MiB/500.0 MiB 130.0 MiB/s 0:02")


def test_a_total_is_not_known_where_a_size_is_not(terminal):
    stream = terminal()
    with TransferView(Output(), "", Clock()) as view:
        view.planned([planned(), planned(None, 0, "vae", "v")])
    shown = [re.sub(r".*━ +", "", line) for line in stream.lines[-3:]]
    assert shown == ["0 B/400.0 MiB", "0 B/?", "0 B/?"]


def test_steps_and_finished_files_are_named_in_their_bars(terminal):
    stream, clock = terminal(), Clock()
    with TransferView(Output(), "", clock) as view:
        view.planned([planned(), planned(MIB, 0, "vae", "v")])
        view.advanced("model", 400 * MIB, 400 * MIB)
        clock.now += 9
        view.working("model", "converting")
        clock.now += 1
    assert stream.lines[-3].endswith("400.0 MiB/400.0 MiB  converting")
    with TransferView(Output(), "", clock) as view:
        view.planned([planned(), planned(MIB, 0, "vae", "v")])
        view.working("model", "checking")
        clock.now += 2
        view.advanced("model", 400 * MIB, 400 * MIB)
        clock.now += 2
        view.working("vae", "checking")
    assert stream.lines[-3].endswith("400.0 MiB/400.0 MiB  done")
    assert stream.lines[-2].endswith("checking")


def test_a_step_that_counts_bytes_shows_its_speed(terminal):
    stream, clock = terminal(), Clock()
    with TransferView(Output(), "", clock) as view:
        view.planned([planned()])
        view.working("model", "checking")
        clock.now += 1
        view.advanced("model", 200 * MIB, 400 * MIB)
    assert stream.lines[-1].endswith("200.0 MiB/400.0 MiB  checking 200.0 MiB/s")


def test_many_calls_draw_nothing(terminal):
    stream = terminal()
    with TransferView(Output()) as view:
        view.planned([planned(100_000)])
        view.advanced("model", 0, 100_000)
        before = stream.getvalue()
        for done in range(100_000):
            view.advanced("model", done, 100_000)
        assert stream.getvalue() == before
    assert "97.7 KiB/97.7 KiB" in stream.lines[-1]


def test_bars_follow_without_being_asked(terminal, monkeypatch):
    monkeypatch.setattr(transfer_bars, "REFRESHES", 200)
    stream = terminal()
    with TransferView(Output()) as view:
        view.planned([planned()])
        for done in (100, 200):
            view.advanced("model", done * MIB, 400 * MIB)
            deadline = time.monotonic() + 30
            while f"{done}.0 MiB/400.0 MiB" not in stream.getvalue() and time.monotonic() < deadline:
                time.sleep(0.001)
            assert f"{done}.0 MiB/400.0 MiB" in stream.getvalue()


def test_words_stand_above_the_bars(terminal):
    stream = terminal()
    with TransferView(Output()) as view:
        view.said("waiting for another process")
        view.planned([planned()])
        view.said("the server hung up: \x1b[2Jonce more [bold]")
        after = stream.getvalue()
        view.advanced("model", 0, 400 * MIB)
    assert stream.lines[0] == "waiting for another process"
    assert "the server hung up: [2Jonce more [bold]" in stream.lines
    assert "\x1b[2J" not in after


def test_the_bars_are_gone_at_the_end_also_of_a_failure(terminal):
    for failure in (None, KeyboardInterrupt):
        stream = terminal()
        try:
            with TransferView(Output()) as view:
                view.planned([planned(), planned(MIB, 0, "vae", "v")])
                if failure:
                    raise failure
        except KeyboardInterrupt:
            pass
        # Shown again, and the lines of the bars erased.
        assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
        assert stream.getvalue().rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize("width", [24, 40, 60, 79, 100, 200])
def test_no_line_is_wider_than_the_terminal(terminal, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stream, clock = terminal(), Clock()
    name = "https://example.org/" + "a-very-long-name-of-weights-" * 8 + ".safetensors"
    with TransferView(Output(), "", clock) as view:
        view.planned([planned(name=name), planned(MIB, 0, "tokenizer", "hf://o/r/t.json")])
        view.advanced("model", MIB, 400 * MIB)
        clock.now += 1
        view.advanced("model", 2 * MIB, 400 * MIB)
    assert len(stream.lines) == 6, "every bar is one line"
    assert max(map(len, stream.lines)) <= width
    assert all("2.0 MiB/400.0 MiB" in line or not line.startswith("mod") for line in stream.lines[3:])


def test_where_bars_have_no_room_those_that_move_stay(terminal, monkeypatch):
    monkeypatch.setenv("LINES", "6")
    stream = terminal()
    with TransferView(Output(), "", Clock()) as view:
        view.planned([planned(MIB, 0, f"part{index}", f"p{index}") for index in range(20)])
        for index in range(8):
            view.advanced(f"part{index}", MIB, MIB)
        view.advanced("part8", 5, MIB)
    assert [line.split()[0] for line in stream.lines[-2:]] == ["part8", "total"]


def test_a_terminal_that_cannot_erase_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = terminal()
    with TransferView(Output(), "", Clock()) as view:
        view.planned([planned(MIB)])
        view.advanced("model", MIB, MIB)
    assert stream.lines == [f"model: 1.0 MiB from {URL}", "model: done in 0.0 s"]


# Figures


def test_a_speed_is_that_of_the_last_seconds():
    rate = Rate()
    assert rate.at(0, 500) is None
    assert rate.at(1, 600) == 100
    assert rate.at(2, 800) == 150
    for second in range(3, 20):
        assert rate.at(second, 800) is not None
    assert rate.at(20, 800) == 0, "a stall shows"
    assert rate.at(21, 1300) == 100, "500 bytes in five seconds"


def test_a_speed_begins_anew_where_the_file_does():
    rate = Rate.beginning(0, 0)
    assert rate.at(1, 1000) == 1000
    assert rate.at(2, 10) is None
    assert rate.at(3, 30) == 20


@pytest.mark.parametrize(
    ("seconds", "clock", "words"),
    [
        (0.04, "0:00", "0.0 s"),
        (12.34, "0:12", "12.3 s"),
        (200, "3:20", "3 min 20 s"),
        (3725, "1:02:05", "1 h 2 min"),
        (360_000, "days", "100 h 0 min"),
    ],
)
def test_times(seconds, clock, words):
    assert (clock_time(seconds), duration(seconds)) == (clock, words)
