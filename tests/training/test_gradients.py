"""Slices of a batch side by side: the same loss and gradients as the whole batch at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.runtime.noise import BatchNoise
from zoo.training.gradients import Gradients
from zoo.training.recipe import Budget
from zoo.training.trainer import Trainer


class Noisy:
    """Errors of a small network on noisy data; remembers the rows of every call."""

    seed = 0
    budget = Budget(steps=4, batch_size=37, learning_rate=0.01, autocast=None)

    def __init__(self):
        self.rows = []

    def batch(self, noise, size):
        return {"x": noise.normal("x", (size, 5)), "scale": noise.uniform("scale", (size,))}

    def loss(self, model, batch, noise):
        rows = len(batch["x"])
        self.rows.append(rows)
        wanted = noise.normal("wanted", (rows, 3)) * noise.uniform("weight", (rows, 1))
        error = (model(batch["x"]) - wanted).square().mean(1)
        return (batch["scale"] * error).mean()


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    module.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return module


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_slices_give_the_loss_and_gradients_of_the_whole_batch(threads):
    recipe, noise = Noisy(), BatchNoise("train", 0, 7)
    found = {}
    for count in (1, 2, 4):
        threads(count)
        module, recipe.rows = network(), []
        gradients = Gradients(recipe, module, torch.device("cpu"))
        loss = gradients.of(recipe.batch(noise, 37), noise)
        found[count] = (loss, [parameter.grad for parameter in module.parameters()])
        assert gradients.workers == count
        assert sorted(recipe.rows) == {1: [37], 2: [18, 19], 4: [9, 9, 9, 10]}[count]
    whole = network()
    loss = recipe.loss(whole, recipe.batch(noise, 37), noise)
    loss.backward()
    for made, gradients in found.values():
        torch.testing.assert_close(made, loss.detach(), atol=1e-6, rtol=1e-6)
        for parameter, gradient in zip(whole.parameters(), gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-5)


def test_training_in_slices_is_the_same_every_time(threads):
    threads(3)
    runs = []
    for _ in range(2):
        trainer = Trainer(Noisy(), network())
        runs.append([loss for _, loss in trainer.run(4)])
    assert runs[0] == runs[1]
    threads(1)
    alone = Trainer(Noisy(), network())
    assert [loss for _, loss in alone.run(4)] == pytest.approx(runs[0], rel=1e-5)


def test_small_batches_and_large_models_are_not_cut(threads, monkeypatch):
    threads(4)
    small = Noisy()
    small.budget = Budget(steps=1, batch_size=15, learning_rate=0.01)
    assert Gradients(small, network(), torch.device("cpu")).workers == 1
    monkeypatch.setattr("zoo.training.gradients.MOST_BYTES", 2 * 4 * (5 * 8 + 8 + 8 * 3 + 3 + 2))
    assert Gradients(Noisy(), network(), torch.device("cpu")).workers == 2


def test_an_error_in_a_slice_ends_the_step(threads):
    threads(2)

    class Failing(Noisy):
        def loss(self, model, batch, noise):
            raise ValueError("no such word")

    trainer = Trainer(Failing(), network())
    with pytest.raises(ValueError, match="no such word"):
        trainer.train_step()
    assert trainer.step == 0
