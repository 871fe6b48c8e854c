"""The training loop: it learns, it resumes exactly, its schedule and average are what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo.runtime.noise import NoiseSource
from zoo.training.recipe import Budget, Recipe
from zoo.training.trainer import Trainer, learning_rate, train


class Line:
    """Fits y = 3 x - 1 with a `Linear(1, 1)`."""

    seed = 4
    budget = Budget(
        steps=300, batch_size=16, learning_rate=0.05, warmup_steps=10, ema_decay=0.9, autocast=None
    )

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        x = noise.normal("x", (size, 1))
        return {"x": x, "y": 3 * x - 1}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        target = batch["y"] + 0.01 * noise.normal("jitter", batch["y"].shape)
        return (model(batch["x"]) - target).square().mean()


class Offset(Line):
    """Fits the bias alone, to y = 3 x + 1."""

    budget = Budget(
        steps=200, batch_size=16, learning_rate=0.05, warmup_steps=5, ema_decay=0.9, autocast=None
    )

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        x = noise.normal("x", (size, 1))
        return {"x": x, "y": 3 * x + 1}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        assert isinstance(model, nn.Linear)
        drawn = nn.functional.linear(batch["x"], model.weight.detach(), model.bias)
        return (drawn - batch["y"]).square().mean()


class LineThenOffset(Line):
    """Both, one after the other."""

    next_stage = Offset()


def trainer(recipe: Recipe | None = None) -> Trainer:
    torch.manual_seed(0)
    return Trainer(recipe or Line(), nn.Linear(1, 1))


def test_training_finds_the_line() -> None:
    run = trainer()
    losses = [loss for _, loss in run.run()]
    assert losses[-1] < 1e-3 * losses[0]
    average = run.averaged_state()
    assert average["weight"].item() == pytest.approx(3, abs=0.02)
    assert average["bias"].item() == pytest.approx(-1, abs=0.02)


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    whole, first, second = trainer(), trainer(), trainer()
    list(whole.run(60))
    list(first.run(25))
    first.save(tmp_path / "checkpoint.safetensors")
    second.load(tmp_path / "checkpoint.safetensors")
    assert second.step == 25
    list(second.run(60))
    for name, tensor in whole.averaged_state().items():
        assert torch.equal(second.averaged_state()[name], tensor)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True)
    )


def test_a_stopped_run_leaves_its_checkpoint(tmp_path: Path) -> None:
    path, run = tmp_path / "runs" / "checkpoint.safetensors", trainer()
    assert not train(run, path, 100, stop=lambda: run.step == 7)
    again = trainer()
    again.load(path)
    assert again.step == 7
    assert train(again, path, 100, until=12)
    assert again.step == 12


def test_schedule_warms_up_and_falls_to_its_end() -> None:
    budget = Budget(steps=110, batch_size=1, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=10)
    assert learning_rate(budget, 0) == pytest.approx(0.1)
    assert learning_rate(budget, 9) == pytest.approx(1.0)
    assert learning_rate(budget, 60) == pytest.approx(0.55)
    assert learning_rate(budget, 110) == pytest.approx(0.1)
    rates = [learning_rate(budget, step) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


def test_average_follows_its_decay() -> None:
    run = trainer()
    list(run.run(1))
    weight, average = run.model.weight.item(), run.average["weight"].item()
    torch.manual_seed(0)
    start = nn.Linear(1, 1).weight.item()
    assert math.isclose(average, start + (1 - 2 / 11) * (weight - start), rel_tol=1e-4)


def test_a_next_stage_begins_with_the_averaged_weights_and_changes_what_it_uses() -> None:
    alone, run = trainer(), trainer(LineThenOffset())
    assert (alone.steps, run.steps) == (300, 500)
    list(alone.run())
    list(run.run(300))
    averaged = alone.averaged_state()
    assert torch.equal(run.averaged_state()["weight"], averaged["weight"])
    list(run.run(301))
    assert torch.equal(run.model.weight, averaged["weight"])
    # The first step of AdamW is one of the learning rate, which warms up anew.
    assert abs(run.model.bias.item() - averaged["bias"].item()) == pytest.approx(0.05 / 5, rel=0.01)
    list(run.run())
    assert run.step == 500
    assert torch.equal(run.averaged_state()["weight"], averaged["weight"])
    assert run.averaged_state()["bias"].item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("stop", [299, 300, 301, 310])
def test_a_run_that_stopped_about_the_next_stage_goes_on_exactly(tmp_path: Path, stop: int) -> None:
    whole, first, second = (trainer(LineThenOffset()) for _ in range(3))
    list(whole.run(320))
    list(first.run(stop))
    first.save(tmp_path / "checkpoint.safetensors")
    second.load(tmp_path / "checkpoint.safetensors")
    list(second.run(320))
    for name, tensor in whole.averaged_state().items():
        assert torch.equal(second.averaged_state()[name], tensor)
    assert torch.equal(whole.model.bias, second.model.bias)
