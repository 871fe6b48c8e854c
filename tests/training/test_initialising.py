"""Recipes that have a say in the first weights: before step 0, by the seed, and resumed exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from zoo.runtime.noise import NoiseSource
from zoo.session import Session
from zoo.training.recipe import Initialises
from zoo.training.run import resume, start
from zoo.training.trainer import train

pytestmark = pytest.mark.usefixtures("toy")


def initialise(self: object, model: nn.Module, noise: NoiseSource) -> None:
    with torch.no_grad():
        model.linear.weight.add_(noise.normal("more", model.linear.weight.shape))


@pytest.fixture
def initialising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the toy's recipe the optional method."""
    recipe = type(start(Session(), "toy:shapes", device="cpu").recipe)
    assert not issubclass(recipe, Initialises)
    monkeypatch.setattr(recipe, "initialise", initialise, raising=False)


def weight(seed: int | None = None) -> torch.Tensor:
    weights: torch.Tensor = start(Session(), "toy:shapes", device="cpu", seed=seed).model.linear.weight
    return weights.detach().clone()


def test_the_first_weights_are_the_recipes_by_the_seed(initialising: None) -> None:
    changed = weight()
    assert torch.equal(weight(), changed)
    assert not torch.equal(weight(seed=4), changed)


def test_a_recipe_without_a_say_starts_as_the_module_does(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = weight()
    recipe = type(start(Session(), "toy:shapes", device="cpu").recipe)
    monkeypatch.setattr(recipe, "initialise", initialise, raising=False)
    assert not torch.equal(weight(), plain)


def test_the_average_begins_with_the_recipes_weights(initialising: None) -> None:
    trainer = start(Session(), "toy:shapes", device="cpu")
    assert torch.equal(trainer.average["linear.weight"], weight())


def test_a_resumed_run_is_the_run_that_was_not_stopped(initialising: None, tmp_path: Path) -> None:
    whole, stopped = (start(Session(), "toy:shapes", device="cpu") for _ in range(2))
    assert train(whole, tmp_path / "whole", save_every=100)
    assert not train(stopped, tmp_path / "part", 100, stop=lambda: stopped.step == 4)
    resumed = start(Session(), "toy:shapes", device="cpu", seed=99)
    resume(resumed, tmp_path / "part")
    assert train(resumed, tmp_path / "part", save_every=100)
    left, right = whole.averaged_state(), resumed.averaged_state()
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
