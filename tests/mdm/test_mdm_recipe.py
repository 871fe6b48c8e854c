"""The training of mdm:shapes: what the card and the recipe agree on, what is told, and what is learnt."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.runtime.loading import build
from zoo.runtime.noise import BatchNoise
from zoo.session import Session
from zoo.shapes import HELD_OUT, SEEN, parse, vocabulary
from zoo.shapes.batches import captioned_scenes
from zoo.shapes.words import WordEncoder
from zoo.training.run import start
from zoo.training.trainer import Trainer
from zoo_mdm.recipe import SIZE, ShapesRecipe


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def fresh(session: Session, seed: int | None = None, batch_size: int = 4, steps: int = 4) -> Trainer:
    """A run of the public trainer with a small batch and without the slow beginning."""
    started = start(session, "mdm:shapes", device="cpu", seed=seed)
    recipe = started.recipe
    recipe.budget = replace(recipe.budget, batch_size=batch_size, steps=steps, warmup_steps=0)
    return Trainer(recipe, started.model, "cpu", started.seed)


def alive(trainer: Trainer) -> nn.Module:
    """The network with random last layers: fresh ones are zero, and so is what they predict."""
    torch.manual_seed(0)
    for parameter in trainer.model.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.05)
    return trainer.model


# Card and recipe


def test_the_card_has_the_words_that_the_recipe_trains_with(session: Session) -> None:
    card, variant = session.resolve("mdm:shapes")
    component = variant.components["text_encoder"]
    assert tuple(component.config["words"]) == vocabulary()
    encoder = build(session.component(card, variant, "text_encoder"), component.config)
    assert isinstance(encoder, WordEncoder)
    assert encoder.config == ShapesRecipe().encoder.config
    texts = ["", "a red circle", "a large orange ring left of a blue square on a gray background"]
    ours, theirs = encoder.encode(texts), ShapesRecipe().encoder.encode(texts)
    assert torch.equal(ours.features, theirs.features)


def test_the_network_reads_features_of_that_width(session: Session) -> None:
    config = fresh(session).model.config
    encoder = ShapesRecipe().encoder
    assert config.innermost.text_dim == encoder.config.width == 312
    assert config.innermost.text_tokens == encoder.config.tokens
    assert config.innermost.text_characters == 0
    assert config.image_size == SIZE == 32
    assert session.resolve("mdm:shapes")[1].captions == "shapes"


def test_the_recipe_holds_out_what_the_world_holds_out() -> None:
    assert ShapesRecipe.held_out == HELD_OUT


# Batches


def read(recipe: ShapesRecipe, features: Tensor, valid: Tensor) -> list[str]:
    """Features back to texts."""
    words = ["", *recipe.encoder.config.words]
    numbers = features[:, :, : len(words)].argmax(dim=2)
    return [
        " ".join(words[int(number)] for number in row[:length] if number)
        for row, length in zip(numbers, valid.sum(dim=1).int().tolist(), strict=True)
    ]


def test_a_batch_is_the_captioned_scenes_of_its_noise() -> None:
    recipe, noise = ShapesRecipe(), BatchNoise("train", 0, 3)
    batch = recipe.batch(noise, 64)
    images, captions = captioned_scenes(noise, 64, 32)
    assert set(batch) == {"images", "features", "valid"}
    assert torch.equal(batch["images"], images)
    told = read(recipe, batch["features"], batch["valid"])
    assert all(text in ("", caption) for text, caption in zip(told, captions, strict=True))
    assert told.count("") < 20
    again = recipe.batch(BatchNoise("train", 0, 3), 64)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_a_tenth_of_the_captions_is_dropped() -> None:
    recipe = ShapesRecipe()
    told: list[str] = []
    for step in range(25):
        batch = recipe.batch(BatchNoise("train", 0, step), 64)
        told += read(recipe, batch["features"], batch["valid"])
    assert told.count("") / len(told) == pytest.approx(0.1, abs=0.025)
    names = {f"{m.colour} {m.shape}" for text in told if text for m in parse(text).objects}
    assert names == set(SEEN)


# The loss


def signal(time: int, steps: int) -> float:
    """alpha^2 at times of 1 .. steps: a squared cosine whose last step keeps a thousandth of it."""

    def cosine(at: int) -> float:
        return (
            math.cos((at / steps + 0.008) / 1.008 * math.pi / 2) ** 2
            / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        )

    return cosine(time) if time < steps else 0.001 * cosine(steps - 1)


def written_out(model: Any, batch: dict[str, Tensor], noise: BatchNoise) -> list[float]:
    """Each level's mean squared error of v = alpha eps - sigma x0, with nothing borrowed from the toolkit.

    The outer level has twice the inner one's side, and half of its ratio alpha^2 / sigma^2.
    """
    count, steps = len(batch["images"]), model.config.training_steps
    times = [1 + int(u * steps) for u in (noise.uniform("time", (count,)) ** (2 / 3)).double().tolist()]
    assert len(set(times)) == count, "each picture has a time of its own"
    inner = torch.tensor([signal(time, steps) for time in times])[:, None, None, None]
    states, targets = [], []
    clean = (batch["images"], avg_pool2d(batch["images"], 2))
    for level, (x0, gamma) in enumerate(zip(clean, (inner / (2 - inner), inner), strict=True)):
        eps = noise.normal(f"eps.{level}", x0.shape)
        states.append(gamma.sqrt() * x0 + (1 - gamma).sqrt() * eps)
        targets.append(gamma.sqrt() * eps - (1 - gamma).sqrt() * x0)
    told = torch.tensor([time - 1.0 for time in times])
    predictions = model(tuple(states), told, batch["features"], batch["valid"])
    return [float((p - v).square().mean()) for p, v in zip(predictions, targets, strict=True)]


@torch.no_grad()
def test_the_loss_adds_up_the_errors_of_all_levels(session: Session) -> None:
    trainer = fresh(session)
    model, noise = alive(trainer), BatchNoise("loss")
    batch = trainer.recipe.batch(noise, 6)
    errors = written_out(model, batch, noise)
    assert min(errors) > 0.1, "no level is left out unnoticed"
    assert float(trainer.recipe.loss(model, batch, noise)) == pytest.approx(sum(errors), rel=1e-4)


@torch.no_grad()
def test_the_loss_depends_on_what_is_told(session: Session) -> None:
    trainer = fresh(session)
    model, noise, encoder = alive(trainer), BatchNoise("told"), trainer.recipe.encoder
    batch = trainer.recipe.batch(noise, 4)

    def told(text: str) -> float:
        encoded = encoder.encode([text] * 4)
        return float(
            trainer.recipe.loss(model, {**batch, "features": encoded.features, "valid": encoded.valid}, noise)
        )

    losses = {
        told(text) for text in ("", "a red circle", "a blue circle", "a red circle left of a blue circle")
    }
    assert len(losses) == 4
    assert told("a red circle") == told("a red circle")


# Training


def test_training_is_deterministic_and_depends_on_the_seed(session: Session) -> None:
    first, again, other = (fresh(session, seed) for seed in (0, 0, 1))
    assert fresh(session).seed == ShapesRecipe.seed == 0
    losses = [[loss for _, loss in trainer.run()] for trainer in (first, again, other)]
    assert losses[0] == losses[1] and losses[0] != losses[2]
    assert len(losses[0]) == 4 and all(math.isfinite(loss) for loss in losses[0])
    states = [trainer.averaged_state() for trainer in (first, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_few_steps_reduce_the_loss(session: Session) -> None:
    trainer = fresh(session, batch_size=8, steps=10)
    noise = BatchNoise("never trained on")
    batch = trainer.recipe.batch(noise, 32)

    @torch.no_grad()
    def loss() -> float:
        return float(trainer.recipe.loss(trainer.model, batch, noise))

    before = loss()
    list(trainer.run())
    assert loss() < 0.9 * before


def test_every_parameter_is_learnt(session: Session) -> None:
    trainer = fresh(session)
    model, noise = alive(trainer), BatchNoise("gradients")
    trainer.recipe.loss(model, trainer.recipe.batch(noise, 4), noise).backward()
    idle = [name for name, p in trainer.parameters.items() if p.grad is None or not bool(p.grad.any())]
    assert idle == []
