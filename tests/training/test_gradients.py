"""Slices of a batch side by side: the same loss and gradients as the whole batch at once."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal

import pytest
import torch
from torch import nn

from zoo.errors import DoesNotFit
from zoo.runtime.noise import BatchNoise
from zoo.training import slices
from zoo.training.gradients import Gradients
from zoo.training.recipe import Budget
from zoo.training.trainer import Trainer


class Noisy:
    """Errors of a small network on noisy data; writes down the rows of every call, in whatever process."""

    seed = 0
    budget = Budget(steps=4, batch_size=37, learning_rate=0.01, autocast=None)

    def __init__(self, seen=os.devnull):
        self.seen = seen

    def batch(self, noise, size):
        return {"x": noise.normal("x", (size, 5)), "scale": noise.uniform("scale", (size,))}

    def loss(self, model, batch, noise):
        rows = len(batch["x"])
        with open(self.seen, "a") as seen:
            seen.write(f"{rows}\n")
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


@pytest.fixture(params=[slices.InProcesses, slices.InThreads])
def team(request, monkeypatch):
    """Both ways to work side by side, whatever this machine would choose."""
    if request.param is slices.InProcesses and not slices.may_fork():
        pytest.skip("processes are forked on Linux alone, where no other device is")
    monkeypatch.setattr("zoo.training.slices.may_fork", lambda: request.param is slices.InProcesses)


def test_slices_give_the_loss_and_gradients_of_the_whole_batch(threads, team, tmp_path):
    noise = BatchNoise("train", 0, 7)
    found = {}
    for count in (1, 2, 4):
        threads(count)
        module, recipe = network(), Noisy(tmp_path / f"{count}.txt")
        gradients = Gradients(recipe, module, torch.device("cpu"))
        loss = gradients.of(recipe.batch(noise, 37), noise)
        found[count] = (loss, [parameter.grad for parameter in module.parameters()])
        assert gradients.workers == count
        rows = recipe.seen.read_text().split()
        assert sorted(rows) == {1: ["37"], 2: ["18", "19"], 4: ["10", "9", "9", "9"]}[count]
    whole = network()
    loss = recipe.loss(whole, recipe.batch(noise, 37), noise)
    loss.backward()
    for made, gradients in found.values():
        torch.testing.assert_close(made, loss.detach(), atol=1e-6, rtol=1e-6)
        for parameter, gradient in zip(whole.parameters(), gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-5)


def test_training_in_slices_is_the_same_every_time(threads, team):
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


def test_an_error_in_a_slice_ends_the_step(threads, team):
    threads(2)

    class Failing(Noisy):
        def loss(self, model, batch, noise):
            raise ValueError("no such word")

    trainer = Trainer(Failing(), network())
    with pytest.raises(ValueError, match="no such word"):
        trainer.train_step()
    assert trainer.step == 0


def test_workers_see_weights_and_buffers_as_they_are(threads, team):
    class Shifted(Noisy):
        def loss(self, model, batch, noise):
            return super().loss(model, batch, noise) + model.shift.mean()

    def shifted():
        module = network()
        module.register_buffer("shift", torch.zeros(3))
        return module

    noise, device = BatchNoise("train", 0, 1), torch.device("cpu")
    threads(2)
    module = shifted()
    gradients = Gradients(Shifted(), module, device)
    batch = gradients.recipe.batch(noise, 37)
    gradients.of(batch, noise)
    with torch.no_grad():
        module[0].weight.mul_(3.0)
        module.shift.fill_(2.0)
    changed = gradients.of(batch, noise)
    kept = module[0].weight.grad.clone()
    threads(1)
    alone = Gradients(Shifted(), module, device)
    torch.testing.assert_close(changed, alone.of(batch, noise), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(kept, module[0].weight.grad, atol=1e-6, rtol=1e-5)


def test_gradients_are_kept_when_the_next_batch_comes(threads, team):
    threads(2)
    module = network()
    gradients = Gradients(Noisy(), module, torch.device("cpu"))
    first, second = BatchNoise("train", 0, 1), BatchNoise("train", 0, 2)
    gradients.of(gradients.recipe.batch(first, 37), first)
    held, before = module[0].weight.grad, module[0].weight.grad.clone()
    gradients.of(gradients.recipe.batch(second, 37), second)
    assert torch.equal(held, before)
    assert not torch.equal(module[0].weight.grad, before)


@pytest.mark.skipif(not slices.may_fork(), reason="processes are forked on Linux alone")
def test_a_process_that_is_ended_ends_the_training_with_a_clear_error(threads):
    class Ended(Noisy):
        def loss(self, model, batch, noise):
            os.kill(os.getpid(), signal.SIGKILL)

    threads(2)
    trainer = Trainer(Ended(), network())
    with pytest.raises(DoesNotFit, match="a process of the training was ended"):
        trainer.train_step()
    assert trainer.step == 0


@pytest.mark.skipif(not slices.may_fork(), reason="processes are forked on Linux alone")
def test_no_process_is_left_behind(threads):
    threads(2)
    gc.collect()
    first, second = Trainer(Noisy(), network()), Trainer(Noisy(), network())
    first.train_step()
    second.train_step()
    assert len(multiprocessing.active_children()) == 4
    first.gradients.close()
    assert len(multiprocessing.active_children()) == 2
    del second
    gc.collect()
    assert not multiprocessing.active_children()
    # A new team is there when it is needed.
    first.train_step()
    assert len(multiprocessing.active_children()) == 2
    first.gradients.close()
