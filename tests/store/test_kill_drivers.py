"""The drivers that kill, at every step on the disk and at random moments, find what they are made for."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.crashing import ChildFailed, CrashingProcess, every_crash
from servers.faulty import FaultyServer
from servers.killing import kill_at_random

OLD, NEW = "old" * 5000, "new" * 5000

WRITERS = """
import os, sys, tempfile, time
from os import replace
from pathlib import Path

def in_place(path, text):
    with open(path, "w") as file:
        file.write(text)

def atomic(path, text):
    temporary = Path(path).with_suffix(".part")
    with temporary.open("w") as file:
        file.write(text)
        assert file.mode == "w"
        file.flush()
        os.fsync(file.fileno())
    replace(temporary, path)

def by_position(path, text):
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(handle, text.encode(), 0)
    os.close(handle)

def everything(folder):
    folder = Path(folder)
    (folder / "a" / "b").mkdir(parents=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write("text")
    os.link(file.name, folder / "link")
    os.rename(folder / "link", folder / "renamed")
    os.unlink(file.name)
    with os.fdopen(os.open(folder / "renamed", os.O_RDWR), "r+b", buffering=0) as raw:
        raw.truncate(2)
    (folder / "renamed").read_text()
    os.remove(folder / "renamed")
    os.rmdir(folder / "a" / "b")
    os.write(1, b"")
    print("said")

def fails():
    raise LookupError("on purpose")

def leaves(code):
    sys.exit(code)

def waits():
    time.sleep(3600)
"""


@pytest.fixture
def writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "some_writers.py").write_text(WRITERS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def states(writer: str, moment: str, tmp_path: Path) -> list[str | None]:
    """What the target holds after the kill at each step, in order; the last is the run to the end."""

    def arguments(at: int) -> list[object]:
        (tmp_path / f"{at}.txt").write_text(OLD, encoding="utf-8")
        return [tmp_path / f"{at}.txt", NEW]

    found = []
    for outcome in every_crash(f"some_writers:{writer}", arguments, moment=moment):
        assert outcome.at == len(found)
        assert outcome.killed is (outcome.at < len(outcome.steps))
        found.append((tmp_path / f"{outcome.at}.txt").read_text(encoding="utf-8"))
    return found


# At every step


@pytest.mark.usefixtures("writers")
@pytest.mark.parametrize("moment", ["before", "after", "torn"])
def test_an_atomic_writer_leaves_the_old_or_the_new(moment: str, tmp_path: Path) -> None:
    found = states("atomic", moment, tmp_path)
    assert set(found) == {OLD, NEW}
    assert found == sorted(found, reverse=True), "once new, always new"
    assert len(found) >= 5  # open, write, fsync, replace, and the end


@pytest.mark.usefixtures("writers")
def test_the_half_written_state_is_found(tmp_path: Path) -> None:
    assert "" in states("in_place", "after", tmp_path), "opened, nothing written yet"
    torn = states("in_place", "torn", tmp_path)
    assert [text for text in torn if text not in (OLD, NEW, "")] != []
    assert torn[-1] == NEW


@pytest.mark.usefixtures("writers")
def test_a_write_at_a_position_is_torn_in_its_middle(tmp_path: Path) -> None:
    found = states("by_position", "torn", tmp_path)
    assert found == [OLD, NEW[:7500] + OLD[7500:], NEW]


@pytest.mark.usefixtures("writers")
def test_all_kinds_of_steps_are_counted(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with CrashingProcess("some_writers:everything") as process:
        outcome = process.run([tmp_path / "made"])
    assert not outcome.killed
    # Making a folder with its parents tries the deepest first.
    kinds = "mkdir mkdir mkdir open write link rename unlink open truncate remove rmdir"
    assert [step.split(" ")[0] for step in outcome.steps] == kinds.split()
    assert outcome.steps[6] == f"rename {tmp_path / 'made' / 'link'} {tmp_path / 'made' / 'renamed'}"


@pytest.mark.usefixtures("writers")
def test_one_step_before_or_after(tmp_path: Path) -> None:
    with CrashingProcess("some_writers:everything") as process:
        for at, moment, exists in ((0, "before", False), (1, "before", False), (1, "after", True)):
            (tmp_path / f"{at}-{moment}").mkdir()
            outcome = process.run([tmp_path / f"{at}-{moment}"], at, moment)
            assert (outcome.killed, outcome.at, len(outcome.steps)) == (True, at, at + 1)
            assert (tmp_path / f"{at}-{moment}" / "a").exists() is exists


@pytest.mark.usefixtures("writers")
def test_failures_of_the_callable_are_told() -> None:
    with CrashingProcess("some_writers:fails") as process, pytest.raises(ChildFailed, match="on purpose"):
        process.run()
    with CrashingProcess("some_writers:leaves") as process:
        assert not process.run([0]).killed
        with pytest.raises(ChildFailed, match="SystemExit: 3"):
            process.run([3])
    with CrashingProcess("some_writers:waits", timeout=0.5) as process, pytest.raises(TimeoutError):
        process.run()


def test_a_module_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        CrashingProcess("no_such_module:f") as process,
        pytest.raises(ChildFailed, match="cannot be imported"),
    ):
        process.run()
    assert "no_such_module" in capfd.readouterr().err


# At random moments

#: Appends a line a moment until there are 40; starts where it ended.
APPENDS = """
import sys, time
from pathlib import Path
path = Path(sys.argv[1])
while not path.exists() or len(path.read_text().splitlines()) < 40:
    with path.open("a") as file:
        file.write("line\\n")
    time.sleep(0.005)
print("complete")
"""


@pytest.fixture
def appends(tmp_path: Path) -> Iterator[list[str]]:
    script = tmp_path / "appends.py"
    script.write_text(textwrap.dedent(APPENDS), encoding="utf-8")
    yield [sys.executable, str(script), str(tmp_path / "lines.txt")]


def test_kills_hit_and_the_last_run_ends(appends: list[str], tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    seen: list[int] = []
    killed = kill_at_random(
        appends,
        3,
        seed=1,
        first=lambda: lines.exists(),
        between=(0.0, 0.03),
        after_each=lambda i: seen.append(len(lines.read_text(encoding="utf-8").splitlines())),
    )
    assert (killed.hits, killed.early) == (3, ())
    assert (killed.result.returncode, killed.result.stdout) == (0, "complete\n")
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[2] < 40
    assert len(lines.read_text(encoding="utf-8").splitlines()) == 40


def test_moments_follow_from_the_seed(tmp_path: Path) -> None:
    def moments(seed: int) -> tuple[float, ...]:
        killed = kill_at_random([sys.executable, "-c", "pass"], 3, seed, between=(5.0, 6.0))
        assert killed.hits == 0
        assert [run.returncode for run in killed.early] == [0, 0, 0]
        return killed.moments

    late = kill_at_random([sys.executable, "-c", "pass"], 1, seed=0, first=5.0, between=(0.0, 0.0))
    assert late.hits == 0
    assert moments(1) == moments(1) != moments(2)
    assert all(5.0 <= moment <= 6.0 for moment in moments(3))


def test_the_window_is_measured(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, pathlib, time\n"
        "with open('runs', 'a') as file: file.write(os.environ['PLACE'] + '\\n')\n"
        "time.sleep(0.1)\n",
        encoding="utf-8",
    )
    killed = kill_at_random(
        [sys.executable, "script.py"],
        2,
        seed=3,
        environment={"PLACE": "real"},
        rehearsal={"PLACE": "rehearsal"},
        first=lambda: (tmp_path / "runs").exists(),
        folder=tmp_path,
    )
    runs = (tmp_path / "runs").read_text(encoding="utf-8").split()
    assert runs[0] == "rehearsal"
    assert set(runs[1:]) == {"real"}
    assert all(moment > 0 for moment in killed.moments)
    with pytest.raises(ValueError, match="say between which seconds"):
        kill_at_random(["true"], 1, seed=0)
    with pytest.raises(RuntimeError, match=r"rehearsal ended with 3"):
        kill_at_random([sys.executable, "-c", "raise SystemExit(3)"], 1, seed=0, rehearsal={})


def test_children_are_killed_too_and_much_output_stops_nothing(tmp_path: Path) -> None:
    number = tmp_path / "number"
    script = (
        "import pathlib, subprocess, sys, time\n"
        "print('x' * 300_000, flush=True)\n"
        f"number = pathlib.Path({str(number)!r})\n"
        "if number.exists(): sys.exit()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "number.write_text(str(child.pid))\n"
        "time.sleep(3600)\n"
    )
    killed = kill_at_random(
        [sys.executable, "-c", script],
        1,
        seed=0,
        first=lambda: number.exists() and number.stat().st_size > 0,
        between=(0.0, 0.0),
    )
    assert (killed.hits, killed.result.returncode, len(killed.result.stdout)) == (1, 0, 300_001)
    child = Path("/proc") / number.read_text(encoding="utf-8") / "stat"
    for _ in range(1000):
        if not child.exists() or ") Z " in child.read_text(encoding="utf-8"):
            return
        time.sleep(0.01)
    pytest.fail("the child of the killed process lives on")


def test_a_run_that_does_not_end() -> None:
    with pytest.raises(TimeoutError, match="did not end"):
        kill_at_random(["sleep", "3600"], 0, seed=0, between=(0, 0), timeout=0.05)
    with pytest.raises(TimeoutError, match="did not open"):
        kill_at_random(["sleep", "3600"], 1, seed=0, first=lambda: False, between=(0, 0), timeout=0.05)


def test_a_client_that_is_killed_in_the_middle_of_a_body(tmp_path: Path) -> None:
    """The drivers and the server together: the child dies while it receives, and the server goes on."""
    with FaultyServer({"/a.bin": bytes(1_000_000)}) as server:
        rule = server.fault(path="/a.bin", stall_after=300_000, times=2)
        fetch = f"import urllib.request; print(len(urllib.request.urlopen({server.url('/a.bin')!r}).read()))"

        def stalled() -> bool:
            return server.sent("/a.bin") == 300_000

        killed = kill_at_random(
            [sys.executable, "-c", fetch],
            2,
            seed=0,
            environment={"no_proxy": "127.0.0.1"},
            first=stalled,
            between=(0.0, 0.01),
            after_each=lambda i: (server.wait_idle(), server.reset()),
        )
        assert (killed.hits, server.hits(rule)) == (2, 2)
        assert killed.result.stdout == "1000000\n"
    assert killed.result.returncode != -signal.SIGKILL
