"""Terms of weights at `zoo pull`: shown, asked for on a terminal, refused without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from zoo.errors import ExitCode
from zoo.store.layout import licences_path, manifest_path

CARD = """
schema = 1
method = "far"
title = ""
summary = ""
tasks = []
default = "base"
"""
VARIANT = """
[variant.{name}]
summary = ""
architecture = "toy"
licence = {{ weights = "CC-BY-NC-4.0", url = "https://example.org/nc", accept = true }}
[[variant.{name}.files]]
role = "words"
source = ["file://{source}"]
format = "raw"
"""


@pytest.fixture
def cards(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variants with the same terms; their files lie on this machine."""
    folder = tmp_path / "cards"
    folder.mkdir()
    text = CARD
    for name in ("base", "other"):
        source = tmp_path / f"{name}.json"
        source.write_bytes(b"words")
        text += VARIANT.format(name=name, source=source)
    (folder / "far.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(folder))


def test_terms_are_refused_without_a_terminal(zoo, cards):
    result = zoo("pull", "far:base")
    assert result.code == ExitCode.LICENCE
    assert result.err.splitlines() == [
        "Error: the licence of far:base has to be accepted first: CC-BY-NC-4.0 (https://example.org/nc)",
        "Hint: zoo pull far:base --accept-licence",
    ]
    assert not manifest_path("far", "base").exists()


def test_terms_are_shown_when_they_are_accepted_and_hold_for_the_method(zoo, cards):
    result = zoo("pull", "far:base", "--accept-licence")
    assert result.code == 0
    assert result.err.splitlines()[:3] == [
        "The weights of far:base come with terms: CC-BY-NC-4.0",
        "  https://example.org/nc",
        "Accepted by --accept-licence.",
    ]
    (entry,) = json.loads(licences_path().read_text(encoding="utf-8"))["accepted"]
    assert (entry["reference"], entry["text"]) == ("far:base", "CC-BY-NC-4.0")
    again = zoo("pull", "far:other")
    assert again.code == 0
    assert "terms: CC" not in again.err


def own_terminal() -> None:
    """In the new process: its stdin becomes the terminal whose Ctrl-C it gets."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A shell without job control starts what it puts in the background, and all below, deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def at_a_terminal(typed: bytes, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and what the terminal shows of a command whose stdin and stderr are one."""
    controller, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo_cli", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb"},
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        preexec_fn=own_terminal,
    )
    os.close(end)
    shown, answered = b"", False
    while select.select([controller], [], [], 60)[0]:
        try:
            block = os.read(controller, 4096)
        except OSError:  # The other end is closed.
            break
        if not block:
            break
        shown += block
        if b"[y/N]" in shown and not answered:
            answered = True
            os.write(controller, typed)
    os.close(controller)
    try:
        out = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    return process.returncode, out, shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("typed", [b"y\n", b" YES \n"])
def test_a_terminal_is_asked(zoo, cards, typed):
    code, out, shown = at_a_terminal(typed, "pull", "far:base")
    assert (code, out.splitlines()[0]) == (0, "far:base: pulled, 5 B")
    assert shown.startswith(
        "The weights of far:base come with terms: CC-BY-NC-4.0\n  https://example.org/nc\nAccept? [y/N] "
    )
    assert zoo("pull", "far:base").code == 0


@pytest.mark.parametrize("typed", [b"\n", b"n\n", b"yess\n", b"\x04"], ids=["nothing", "no", "typo", "end"])
def test_anything_but_yes_is_no(cards, typed):
    code, out, shown = at_a_terminal(typed, "pull", "far:base")
    assert (code, out) == (ExitCode.LICENCE, "")
    assert "\nHint: zoo pull far:base --accept-licence\n" in shown
    assert not licences_path().exists()


def test_ctrl_c_at_the_question_is_an_interrupt(cards):
    code, out, shown = at_a_terminal(b"\x03", "pull", "far:base")
    assert (code, out) == (ExitCode.INTERRUPTED, "")
    assert "the same command resumes" in shown


@pytest.mark.parametrize("mode", ["--json", "-q"])
def test_programs_are_not_asked(cards, mode):
    code, out, shown = at_a_terminal(b"y\n", "pull", "far:base", mode)
    assert (code, out) == (ExitCode.LICENCE, "")
    assert "[y/N]" not in shown
