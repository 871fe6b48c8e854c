"""`zoo sample --prompts` again: what is finished stays, and a run that was killed is completed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from prompt_folders import NAMES, PROMPTS, manifest, pictures, prompts, watched

ROOT = Path(__file__).resolve().parents[2]

__all__ = ["prompts", "watched"]


def test_finished_lines_are_skipped_without_loading_the_model(zoo, prompts, monkeypatch):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    before, lines = pictures(), manifest()

    def load(*args, **kwargs):
        raise AssertionError("there is nothing to draw")

    monkeypatch.setattr("zoo.runtime.model.load", load)
    result = zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    assert (result.code, result.lines) == (0, [])
    assert "all 4 samples of prompts.txt lay there already" in result.err
    assert pictures() == before and manifest() == lines


def test_only_what_is_missing_is_drawn(zoo, prompts, watched):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    before = pictures()
    Path("out", NAMES[2]).unlink()
    watched.clear()
    result = zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    assert result.lines == [str(Path("out", NAMES[2]))] and len(watched[0]) == len(watched) == 1
    assert "3 samples of prompts.txt lay there already" in result.err
    assert pictures() == before


def test_a_file_that_no_line_of_the_manifest_tells_of_is_not_taken_for_finished(zoo, prompts):
    Path("out").mkdir()
    Path("out", NAMES[0]).write_bytes(b"mine")
    assert len(zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines) == 4
    assert pictures()[NAMES[0]] == b"mine"
    assert NAMES[0].replace("seed0", "seed0-2") in pictures()


def test_a_changed_line_is_drawn_again_under_a_new_name(zoo, prompts):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    before = pictures()
    prompts.write_text(
        PROMPTS.replace("a green cross", '{"prompt": "a green cross", "options": {"grain": 0.5}}')
    )
    (path,) = zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines
    assert Path(path).name == "line00005-toy-shapes-a-green-cross-seed0-2.png"
    after = pictures()
    assert after.pop(Path(path).name) != before[NAMES[3]] and after == before
    assert zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines == []


@pytest.mark.parametrize(
    "change",
    [
        ("--seed", 1),
        ("--steps", 4),
        ("--sampler", "toy-flat"),
        ("--size", 32),
        ("-O", "grain=0.5"),
        ("--format", "webp"),
        ("--no-metadata",),
    ],
)
def test_what_changes_the_identity_of_a_sample(zoo, prompts, change):
    prompts.write_text("a red circle\n")
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    assert len(zoo("sample", "toy", "--prompts", prompts, "-o", "out", *change).lines) == 1
    assert zoo("sample", "toy", "--prompts", prompts, "-o", "out", *change).lines == []
    assert zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines == []


def test_other_weights_and_other_models_are_other_samples(zoo, prompts, toy):
    from safetensors.torch import save_file
    from toy_method import tensors

    prompts.write_text("a red circle\n")
    arguments = ("sample", "toy", "--prompts", prompts, "-o", "out")
    zoo(*arguments)
    own = Path("own.safetensors")
    own.write_bytes(Path(toy, "zoo_toy/cards/weights/toy.safetensors").read_bytes())
    assert zoo(*arguments, "--weights", own).lines == [], "the same weights in another place"
    save_file({**tensors(), "linear.bias": tensors()["linear.bias"] + 1}, own)
    assert len(zoo(*arguments, "--weights", own).lines) == 1
    assert len(zoo("sample", "toytext", "--prompts", prompts, "-o", "out").lines) == 1


def test_moved_lines_stay_finished(zoo, prompts):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    prompts.write_text("a red square\n" + "\n".join(reversed(PROMPTS.splitlines())))
    (path,) = zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines
    assert Path(path).name == "line00001-toy-shapes-a-red-square-seed0.png"


CRASH = """
import os, sys
import zoo.io.finished

def die(*args, **kwargs):
    os._exit(9)

count = 0
def at_second(function, before):
    def wrapper(*args, **kwargs):
        global count
        count += 1
        if count == 2 and before:
            die()
        result = function(*args, **kwargs)
        if count == 2:
            die()
        return result
    return wrapper

def torn(self, values):
    global count
    count += 1
    if count == 2:
        with self.path.open("ab") as file:
            file.write(b'{"digest": "sha256:12')
        die()
    append(self, values)

append = zoo.io.finished.FinishedSamples._append
point = sys.argv.pop(1)
if point == "noted":
    zoo.io.finished.publish_new = at_second(zoo.io.finished.publish_new, before=True)
elif point == "published":
    # The first link publishes the picture to the place for unfinished files, the second one for good.
    os.link = at_second(os.link, before=False)
elif point == "torn":
    zoo.io.finished.FinishedSamples._append = torn
elif point == "preview":
    os.replace = at_second(os.replace, before=False)
from zoo_cli.main import run
run(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("point", "files", "lines"), [("preview", 0, 0), ("published", 1, 1), ("torn", 1, 1), ("noted", 1, 2)]
)
def test_a_killed_run_is_completed_by_the_same_command(zoo, prompts, toy, point, files, lines):
    arguments = ["sample", "toy", "--prompts", "prompts.txt", "-o"]
    zoo(*arguments, "whole")
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "cli", ROOT / "plugins", toy))
    killed = subprocess.run(
        [sys.executable, "-c", CRASH, point, *arguments, "out", "--preview-every", "2"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    assert Path("out/.zoo-unfinished").is_dir(), "it died before it could clean up"
    assert len([name for name in os.listdir("out") if name in NAMES]) == files
    assert files or any(name.endswith(".preview.png") for name in os.listdir("out"))
    told = Path("out", "manifest.jsonl").read_text().splitlines() if lines else []
    assert len([line for line in told if line.endswith("}")]) == lines
    result = zoo(*arguments, "out")
    assert result.code == 0 and len(result.lines) == 4 - files
    assert pictures() == pictures("whole"), "no file is missing, changed or left over"
    assert zoo(*arguments, "out").lines == []


def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(zoo, prompts, monkeypatch):
    import zoo_toy.sampling as sampling

    original = sampling.sample
    monkeypatch.setattr(sampling, "sample", stop_at_second := Interrupting(original))
    arguments = ("sample", "toy", "--prompts", prompts, "-o", "out", "--json")
    result = zoo(*arguments)
    assert result.code == 130 and result.json["interrupted"]
    assert [entry["line"] for entry in result.json["outputs"]] == [2, 5]
    assert (
        "interrupted: 2 samples of prompts.txt are left; the same command draws what is missing" in result.err
    )
    assert sorted(pictures()) == [NAMES[0], NAMES[3]] and stop_at_second.calls == 2
    monkeypatch.setattr(sampling, "sample", original)
    assert [entry["line"] for entry in zoo(*arguments).json["outputs"]] == [4, 4]
    assert sorted(pictures()) == NAMES


class Interrupting:
    """A sampler that is interrupted in its second batch."""

    def __init__(self, sample):
        self.sample = sample
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return self.sample(*args)


def test_progress_runs_over_all_lines(zoo, prompts, monkeypatch):
    moves, totals = [], []

    @contextmanager
    def progress(self, text, total=None):
        totals.append(total)
        yield lambda done, total=None, text=None: moves.append(done)

    monkeypatch.setattr("zoo_cli.output.Output.progress", progress)
    zoo("sample", "toy", "--prompts", prompts, "-o", "out", "--steps", 2)
    # Two groups of two samples, each of two steps, and every sample by itself when it is written.
    assert totals == [4] and moves == [0, 1, 2, 2, 2, 3, 4, 4, 4]
    Path("out", NAMES[0]).unlink()
    moves.clear()
    zoo("sample", "toy", "--prompts", prompts, "-o", "out", "--steps", 2)
    assert moves == [3, 3.5, 4, 4]


def test_a_manifest_without_its_last_line_end_is_continued(zoo, prompts):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    path = Path("out", "manifest.jsonl")
    path.write_text(path.read_text()[:-30])
    assert len(zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines) == 1
    assert zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines == []
    assert len(path.read_text().splitlines()) == 5


def test_one_command_at_a_time_draws_into_a_folder(zoo, prompts):
    Path("out").mkdir()
    handle = os.open("out", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    finally:
        os.close(handle)
    assert result.code == 1 and "another process is drawing into out" in result.err
    assert os.listdir("out") == []
    assert zoo("sample", "toy", "--prompts", prompts, "-o", "out").code == 0


def test_a_file_system_without_hard_links(zoo, prompts, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    zoo("sample", "toy", "--prompts", prompts, "-o", "whole")
    monkeypatch.setattr("zoo.io.files.os.link", link)
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    assert pictures() == pictures("whole")
