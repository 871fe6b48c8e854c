"""Previews: beside the picture while it is drawn, gone when it is there, and never part of the result."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import PIL.Image
import pytest
import torch

import zoo as library
from zoo.errors import OutputNotWritable
from zoo.io.images import read_image
from zoo.io.metadata import png_metadata, read_provenance
from zoo.io.previews import Previews, preview_path
from zoo.runtime.sampling import Unwatched, wants_preview

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def seen(toy, monkeypatch):
    """A toy sampler that asks before it makes an estimate; keeps what it was asked for and what lay there."""
    import zoo_toy.sampling as sampling

    original, seen = sampling.sample, []

    def sample(loaded, batch, options, noise, on_step):
        side = loaded.model.config.size
        start = noise.normal("grain", (len(batch), 3, side, side))

        def asking(step, total, preview):
            wanted = wants_preview(on_step, step, total)
            estimate = torch.full_like(start, 2.0 * step / total - 1.0) if wanted else None
            on_step(step, total, estimate)
            seen.append((step, wanted, sorted(path.name for path in Path("out").glob("*.preview*"))))

        return original(loaded, batch, options, noise, asking)

    monkeypatch.setattr(sampling, "sample", sample)
    return seen


def listing(folder="out"):
    return sorted(path.name for path in Path(folder).iterdir())


# Files


def test_a_preview_lies_beside_the_picture_until_that_is_written(zoo, seen):
    arguments = ("sample", "toy", "-p", "a red circle", "--steps", 7, "-o", "out")
    result = zoo(*arguments, "--preview-every", 2)
    name = "toy-shapes-a-red-circle-seed0"
    assert result.code == 0 and result.lines == [str(Path("out", f"{name}.png"))]
    there = [f"{name}.preview.png"]
    assert seen == [
        (1, False, []),
        (2, True, there),
        (3, False, there),
        (4, True, there),
        (5, False, there),
        (6, True, there),
        (7, False, there),
    ]
    assert listing() == [f"{name}.png"]


def test_kept_previews_are_numbered_by_step_and_show_the_estimate(zoo, seen):
    arguments = ("sample", "toy", "-p", "a red circle", "--steps", 10, "-n", 2, "-o", "out")
    assert zoo(*arguments, "--preview-every", 4, "--keep-previews").code == 0
    stems = [f"toy-shapes-a-red-circle-seed{seed}" for seed in (0, 1)]
    assert listing() == sorted(
        f"{stem}{end}.png" for stem in stems for end in ("", ".preview-04", ".preview-08")
    )
    for step in (4, 8):
        pixels = read_image(Path("out", f"{stems[1]}.preview-{step:02d}.png"))
        assert pixels.shape == (3, 32, 32) and (pixels - step / 10).abs().max() <= 0.5 / 255


def test_previews_hold_no_metadata(zoo, seen):
    zoo("sample", "toy", "--steps", 4, "-o", "out", "--preview-every", 2, "--keep-previews")
    (path,) = Path("out").glob("*.preview-2.png")
    with PIL.Image.open(path) as picture:
        assert picture.info == {}
    assert png_metadata({}).chunks == []


def test_the_name_is_that_of_the_final_picture_whatever_its_form(zoo, seen):
    Path("out").mkdir()
    zoo("sample", "toy:plain", "-o", "out")
    arguments = ("sample", "toy:plain", "--steps", 4, "--preview-every", 3)
    zoo(*arguments, "-o", "out")
    assert seen[-1][2] == ["toy-plain-seed0-2.preview.png"]
    zoo(*arguments, "-o", "out/own.webp")
    assert seen[-1][2] == ["own.preview.png"]
    zoo(*arguments, "-o", "out", "--overwrite")
    assert seen[-1][2] == ["toy-plain-seed0.preview.png"]
    assert listing() == ["own.webp", "toy-plain-seed0-2.png", "toy-plain-seed0.png"]


def test_each_sample_of_each_batch_has_its_own(zoo, seen):
    zoo("sample", "toy:plain", "-n", 5, "--batch-size", 2, "--steps", 3, "-o", "out", "--preview-every", 2)
    lying = [names for step, _, names in seen if step == 2]
    assert [[name.partition(".")[0][-1] for name in names] for names in lying] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert listing() == [f"toy-plain-seed{seed}.png" for seed in range(5)]


def test_a_batch_that_is_drawn_again_in_halves(zoo, seen):
    arguments = ("sample", "toy:plain", "-n", 4, "-O", "limit=2", "--steps", 3, "-o", "out")
    assert zoo(*arguments, "--preview-every", 2, "--keep-previews").code == 0
    assert len(listing()) == 8
    assert [read_provenance(path).seed for path in sorted(Path("out").glob("*seed?.png"))] == [0, 1, 2, 3]


def test_previews_of_a_prompt_file(zoo, seen):
    Path("p.txt").write_text("a red circle\na blue ring\n")
    arguments = ("sample", "toy", "--prompts", "p.txt", "--steps", 5, "-o", "out", "--preview-every", 2)
    assert zoo(*arguments).code == 0
    names = ["line00001-toy-shapes-a-red-circle-seed0", "line00002-toy-shapes-a-blue-ring-seed0"]
    assert seen[-1][2] == [f"{name}.preview.png" for name in names]
    assert listing() == [*(f"{name}.png" for name in names), "manifest.jsonl"]
    Path("out", f"{names[0]}.png").unlink()
    assert zoo(*arguments, "--keep-previews").code == 0
    assert listing()[:3] == [f"{names[0]}.png", f"{names[0]}.preview-2.png", f"{names[0]}.preview-4.png"]
    assert len(listing()) == 5


def test_an_interrupted_run_leaves_no_preview(toy):
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "cli", ROOT / "plugins", toy))
    command = [sys.executable, "-m", "zoo_cli", "sample", "toy:plain"]
    process = subprocess.Popen(
        [*command, "--steps", "2000", "-O", "delay=0.02", "--preview-every", "1", "-o", "out"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not Path("out/toy-plain-seed0.preview.png").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert listing() == []


# Results


@pytest.mark.parametrize("reference", ["toy", "tarflow:shapes"])
def test_pictures_are_the_same_with_previews_on_and_off(zoo, reference):
    arguments = ("sample", reference, "-p", "a red circle", "-n", 3, "--seed", 5)
    zoo(*arguments, "-o", "off")
    zoo(*arguments, "-o", "on", "--preview-every", 1, "--keep-previews")
    previews = [name for name in listing("on") if ".preview-" in name]
    assert len(previews) >= 3 and len(listing("off")) == 3
    for name in listing("off"):
        assert Path("off", name).read_bytes() == Path("on", name).read_bytes()


def test_a_flow_that_has_an_estimate_after_each_block_shows_those(zoo):
    arguments = ("sample", "tarflow:shapes", "-o", "out", "--keep-previews")
    assert zoo(*arguments, "--preview-every", 100).code == 0
    steps = [int(name.split("-")[-1].removesuffix(".png")) for name in listing() if "preview" in name]
    # Six blocks of 63 steps: the first estimates that come a hundred steps after the last.
    assert steps == [126, 252]


def test_what_a_watcher_does_to_an_estimate_changes_nothing(zoo):
    model = library.load("tarflow:shapes", device="cpu")
    request = library.Request(prompts="a red circle", seed=2)
    (plain,) = model.sample(request)

    def spoil(step, total, preview):
        if preview is not None:
            assert not preview.requires_grad
            preview.fill_(9.0)

    (watched,) = model.sample(request, spoil)
    assert torch.equal(plain.pixels, watched.pixels)


def test_without_previews_no_estimate_is_asked_for(zoo, seen):
    zoo("sample", "toy", "--steps", 4, "-o", "out")
    assert [wanted for _, wanted, _ in seen] == [False] * 4
    seen.clear()
    (path,) = Path("out").iterdir()
    assert zoo("replay", path, "--check").code == 0
    assert [wanted for _, wanted, _ in seen] == [False] * 4


def test_who_wants_estimates():
    def plain(step, total, preview):
        return None

    assert wants_preview(plain, 1, 9)
    assert not wants_preview(Unwatched(), 1, 9)
    assert Unwatched()(1, 9, None) is None


def test_a_sampler_without_estimates_is_told_of(zoo, toy):
    result = zoo("sample", "toy", "--sampler", "toy-flat", "--preview-every", 1, "-o", "out")
    assert result.code == 0 and "Warning: there were no previews" in result.err
    Path("p.txt").write_text("a red circle\n")
    result = zoo(
        "sample", "toy", "--sampler", "toy-flat", "--preview-every", 1, "-o", "b", "--prompts", "p.txt"
    )
    assert result.code == 0 and "Warning: there were no previews" in result.err


# The writer


@dataclasses.dataclass
class Watch:
    """Previews that go to a folder, and what they complained of."""

    previews: Previews
    warnings: list[str]


@pytest.fixture
def watch(tmp_path):
    def make(every, keep=True, scratch=None):
        warnings: list[str] = []
        place = lambda index: tmp_path / f"{index}.png"  # noqa: E731
        return Watch(Previews(every, keep, place, warnings.append, scratch), warnings)

    return make


def test_the_estimate_is_left_as_it_is(watch, tmp_path):
    estimate = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, float("nan")]).view(1, 1, 2, 3)
    before = estimate.clone()
    watch(1).previews.show(0, 1, 9, estimate)
    assert torch.equal(estimate.nan_to_num(7.0), before.nan_to_num(7.0))
    with PIL.Image.open(tmp_path / "0.preview-1.png") as picture:
        assert list(picture.tobytes()) == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 16), (2, 3, 8, 8, 8), (2, 2, 8, 8)])
def test_tensors_that_are_no_pictures_are_passed_over(watch, tmp_path, shape):
    made = watch(1)
    made.previews.show(0, 1, 9, torch.zeros(shape))
    assert list(tmp_path.iterdir()) == [] and made.warnings == [] and made.previews.written == 0


def test_half_precision_and_grey_estimates(watch, tmp_path):
    watch(1).previews.show(3, 1, 9, torch.full((2, 1, 4, 4), 0.5, dtype=torch.bfloat16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.preview-1.png", "4.preview-1.png"]
    with PIL.Image.open(tmp_path / "4.preview-1.png") as picture:
        assert picture.mode == "L" and set(picture.tobytes()) == {191}


def test_a_place_that_cannot_be_written_is_told_once_and_stops_nothing(watch, monkeypatch):
    def full(*args, **kwargs):
        raise OutputNotWritable("cannot write: no space left on device")

    monkeypatch.setattr("zoo.io.writers.write_file", full)
    made = watch(1, keep=False)
    for step in (1, 2, 3):
        made.previews.show(0, step, 9, torch.zeros(1, 3, 4, 4))
    assert made.warnings == ["no further previews: cannot write: no space left on device"]
    assert not made.previews.due(4, 9)
    made.previews.close()


def test_unfinished_previews_are_never_seen_in_the_folder(watch, tmp_path):
    scratch = tmp_path / "scratch"
    made = watch(1, keep=False, scratch=scratch)
    made.previews.show(0, 1, 9, torch.zeros(1, 3, 4, 4))
    final = tmp_path / "0.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == [preview_path(final).name, "scratch"]
    assert list(scratch.iterdir()) == []
    made.previews.close()
    assert not preview_path(final).exists()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--keep-previews",), "--keep-previews keeps what --preview-every makes"),
        (("--preview-every", 0), "'--preview-every'"),
        (("--preview-every", 2, "--grid", "-o", "sheet.png"), "previews lie beside single pictures"),
    ],
)
def test_mistakes(zoo, arguments, text):
    result = zoo("sample", "toy", *arguments)
    assert result.code == 2 and text in result.err and os.listdir() == []
