"""`zoo train`: runs, resumes, interrupts, and what comes out."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.training import run as training_run

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_writes_a_checkpoint_and_weights_for_the_card(zoo):
    result = zoo("train", "toy")
    model = Path("runs/toy-shapes/model.safetensors")
    assert result.code == 0
    assert result.lines == [
        str(model),
        f'sha256    = "{hashlib.sha256(model.read_bytes()).hexdigest()}"',
        f"size      = {model.stat().st_size}",
    ]
    assert load_file(model)["linear.weight"].dtype == torch.float16
    assert "step 12/12 loss" in result.err
    assert zoo("sample", "toy", "--weights", model).code == 0
    assert sorted(os.listdir(model.parent)) == ["checkpoint.safetensors", "model.safetensors"]


def test_json_and_steps_and_resume_are_exact(zoo):
    whole = zoo("train", "toy", "-o", "whole", "--json").json
    part = zoo("train", "toy", "-o", "part", "--steps", 5, "--save-every", 2, "--json").json
    assert (part["steps"], part["budget"], part["seed"], part["interrupted"]) == (5, 12, 3, False)
    rest = zoo("train", "toy", "-o", "part", "--resume", "--json").json
    assert rest["steps"] == 12 and rest["model"]["sha256"] == whole["model"]["sha256"]
    assert part["model"]["sha256"] != whole["model"]["sha256"]
    assert whole["model"]["dtype"] == "float16" and whole["loss"] > 0
    again = zoo("train", "toy", "-o", "part", "--resume", "--dtype", "float32", "--json").json
    assert again["steps"] == 12 and again["model"]["size"] > whole["model"]["size"]


def test_another_seed_is_another_model(zoo):
    one = zoo("train", "toy", "-o", "a", "--json").json
    other = zoo("train", "toy", "-o", "b", "--seed", 8, "--json").json
    assert other["seed"] == 8 and other["model"]["sha256"] != one["model"]["sha256"]
    result = zoo("train", "toy", "-o", "b", "--resume", "--seed", 9)
    assert result.code == 2 and "trained with seed 8, not 9" in result.err


def test_a_run_is_never_lost_silently(zoo):
    zoo("train", "toy", "-o", "run")
    before = Path("run/checkpoint.safetensors").read_bytes()
    result = zoo("train", "toy", "-o", "run", "--seed", 5)
    assert result.code == 1 and "checkpoint.safetensors exists already" in result.err
    assert "--resume" in result.err and "--overwrite" in result.err
    assert Path("run/checkpoint.safetensors").read_bytes() == before
    assert zoo("train", "toy", "-o", "run", "--seed", 5, "--overwrite", "-q").lines == [
        "run/model.safetensors"
    ]
    assert Path("run/checkpoint.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("toy:plain",), 3, "toy:plain has no training recipe"),
        (("toy", "--resume"), 1, "checkpoint.safetensors: no such checkpoint"),
        (("toy", "--resume", "--overwrite"), 2, "give one of them"),
        (("toy", "--steps", 0), 2, "'--steps'"),
        (("toy", "-o", "file/run"), 1, "file is a file, not a folder"),
        (("toy", "--device", "cuda:99"), 2, "is not on this machine"),
        (("nothing",), 3, "no model is called 'nothing'"),
    ],
)
def test_what_is_refused(zoo, arguments, code, text):
    Path("file").touch()
    result = zoo("train", *arguments)
    assert result.code == code and text in result.err
    assert os.listdir() == ["file"]


def test_weights_that_are_too_large_to_ship_are_told(zoo, monkeypatch):
    monkeypatch.setattr(training_run, "MAX_BUILT_IN_BYTES", 100)
    assert "built-in weights are at most 100 B" in zoo("train", "toy").err


def test_a_loss_that_is_not_a_number_stops_the_run(zoo, monkeypatch):
    from zoo_toy.recipe import ToyRecipe

    learn = ToyRecipe.loss

    def diverge(self, model, batch, noise):
        diverge.calls += 1
        return learn(self, model, batch, noise) * (float("nan") if diverge.calls == 7 else 1.0)

    diverge.calls = 0
    monkeypatch.setattr(ToyRecipe, "loss", diverge)
    result = zoo("train", "toy", "-o", "run", "--save-every", 5)
    assert result.code == 1 and "the loss is not a number at step 7" in result.err
    assert os.listdir("run") == ["checkpoint.safetensors"]
    assert all(t.isfinite().all() for t in load_file("run/checkpoint.safetensors").values())


def test_an_interrupt_saves_a_whole_step_and_the_run_goes_on_exactly(zoo, toy):
    zoo("train", "toy", "-o", "whole")
    program = (
        "import time, zoo_toy.recipe as recipe\n"
        "learn = recipe.ToyRecipe.loss\n"
        "def slow(self, *given):\n"
        "    print('step', flush=True); time.sleep(0.4); return learn(self, *given)\n"
        "recipe.ToyRecipe.loss = slow\n"
        "from zoo_cli.main import main; main()"
    )
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "cli", ROOT / "plugins", toy))
    process = subprocess.Popen(
        [sys.executable, "-c", program, "train", "toy", "-o", "part", "--save-every", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted after step 3; to go on: zoo train toy --out part --resume" in err
    assert os.listdir("part") == ["checkpoint.safetensors"]
    resumed = zoo("train", "toy", "-o", "part", "--resume")
    assert "continuing from step 3" in resumed.err
    assert Path("part/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
