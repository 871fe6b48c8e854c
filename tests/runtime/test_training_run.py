"""Training: seeded starts, exact resume, and the weights that come out."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.errors import InvalidInput, NotFound, WeightsError, ZooError
from zoo.runtime.noise import generator
from zoo.session import Session
from zoo.training.run import export, resume, start
from zoo.training.trainer import learning_rate, train


def fresh(**given):
    return start(Session(), "toy:shapes", device="cpu", **given)


def state(trainer):
    tensors = {**trainer.model.state_dict(), **{f"average.{k}": v for k, v in trainer.average.items()}}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_start_depends_on_the_seed_alone(toy):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fresh()
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    torch.manual_seed(2)
    assert equal(state(fresh()), state(first))
    assert not equal(state(fresh(seed=4)), state(first))
    assert first.seed == 3, "the recipe's seed"


def test_the_formula_of_the_seeded_start_is_pinned(toy):
    with torch.random.fork_rng():
        torch.manual_seed(int(generator("initialise", 3).initial_seed()))
        linear = torch.nn.Linear(4, 4)
    assert torch.equal(fresh().model.linear.weight, linear.weight)


def test_a_resumed_run_is_the_run_that_was_not_stopped(toy, tmp_path):
    whole = fresh()
    assert train(whole, tmp_path / "a.safetensors", save_every=100)
    stopped = fresh()
    assert not train(stopped, tmp_path / "b.safetensors", 100, stop=lambda: stopped.step == 5)
    resumed = fresh(seed=99)
    resume(resumed, tmp_path / "b.safetensors")
    assert (resumed.step, resumed.seed) == (5, 3)
    assert train(resumed, tmp_path / "b.safetensors", save_every=2)
    assert equal(state(resumed), state(whole))
    assert equal(load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors"))


def test_stopping_earlier_does_not_change_the_schedule(toy, tmp_path):
    whole, short, rates = fresh(), fresh(), []
    list(whole.run(6))
    assert train(short, tmp_path / "c", 100, until=6)
    assert equal(state(short), state(whole))
    rates = [learning_rate(short.recipe.budget, step) for step in (0, 1, 2, 6, 12)]
    assert rates[:3] == pytest.approx([0.025, 0.05, 0.05]) and rates[3] < 0.05 and rates[4] == 0.0


def test_a_step_that_fails_leaves_the_last_checkpoint(toy, tmp_path):
    trainer, path = fresh(), tmp_path / "c"

    def fail(step, loss):
        if step == 4:
            trainer.recipe.loss = None

    with pytest.raises(TypeError):
        train(trainer, path, save_every=2, report=fail)
    other = fresh()
    resume(other, path)
    assert other.step == 4


def test_the_recipe_is_learnt(toy):
    losses = [loss for _, loss in fresh().run()]
    assert losses[-1] < 0.9 * losses[0]


def test_export_casts_floats_only_and_names_the_file(toy, tmp_path):
    trainer = fresh()
    list(trainer.run(3))
    exported = export(trainer, tmp_path / "run" / "model.safetensors")
    tensors = load_file(exported.path)
    assert tensors["linear.weight"].dtype == torch.float16
    assert torch.equal(tensors["linear.weight"], trainer.average["linear.weight"].half())
    assert tensors["count"].dtype == torch.int64
    assert exported.sha256 == hashlib.sha256(exported.path.read_bytes()).hexdigest()
    assert exported.size == exported.path.stat().st_size


def test_weights_that_half_precision_cannot_hold_are_refused(toy, tmp_path):
    trainer = fresh()
    trainer.average["linear.bias"].fill_(1e6)
    with pytest.raises(ZooError, match=r"linear.bias holds values that are not finite in float16"):
        export(trainer, tmp_path / "model.safetensors")
    assert export(trainer, tmp_path / "model.safetensors", "bfloat16").size > 0


def test_what_cannot_be_resumed(toy, tmp_path):
    with pytest.raises(WeightsError, match="no such checkpoint"):
        resume(fresh(), tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(WeightsError, match="is not a checkpoint of this model"):
        resume(fresh(), tmp_path / "text")
    save_file({"linear.weight": torch.eye(4)}, tmp_path / "weights")
    with pytest.raises(WeightsError, match="is not a checkpoint of this model"):
        resume(fresh(), tmp_path / "weights")


def test_what_cannot_be_started(toy):
    with pytest.raises(NotFound, match="toy:plain has no training recipe"):
        start(Session(), "toy:plain")
    with pytest.raises(InvalidInput, match="seed is -1"):
        fresh(seed=-1)
