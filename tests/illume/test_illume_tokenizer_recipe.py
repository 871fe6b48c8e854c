"""The training of illume:shapes-tokenizer: the teacher, the first codes, the loss, and what is learnt."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.runtime.loading import build
from zoo.runtime.noise import BatchNoise
from zoo.session import Session
from zoo.shapes import BACKGROUNDS, HELD_OUT, Item, Scene, judge, sample_scene
from zoo.shapes.rendering import render_all
from zoo.training.gradients import Gradients
from zoo.training.trainer import Trainer
from zoo_illume.config import DualViTokConfig
from zoo_illume.convolutions import SpatialNorm
from zoo_illume.dualvitok import DualViTok
from zoo_illume.shapes_teacher import CONTENT, cell_contents, teacher_features
from zoo_illume.tokenizer_recipe import (
    BLURRED,
    CELL,
    CHANNELS,
    DRAWING,
    HOLDING,
    MODULATION,
    NOISE,
    PACE,
    REACH,
    RETURNING,
    SIZE,
    TEACHING,
    ShapesTokenizerRecipe,
    object_weights,
)

#: A tokenizer with the card's codes and a tenth of its weights.
SMALL: dict[str, Any] = {
    "semantic": {
        "vit": {
            "depth": 1,
            "width": 16,
            "heads": 2,
            "expansion": 2,
            "out_channels": CHANNELS,
            "patch": 4,
            "merge": 2,
            "frames": 1,
        },
        "quantiser": {"codes": 64, "dim": 4, "frozen_dim": 8},
        "width": 64,
        "blocks": 1,
        "decoder_width": 64,
        "decoder_blocks": 1,
    },
    "pixel": {
        "encoder": {
            "channels": 8,
            "multipliers": [1, 1, 1, 2],
            "latent": 4,
            "residual_blocks": 1,
            "attention_levels": [],
            "norm_groups": 4,
        },
        "quantiser": {"codes": 64, "dim": 4, "frozen_dim": 8},
        "decoder": {
            "channels": 8,
            "multipliers": [1, 1, 1, 2],
            "latent": 8,
            "residual_blocks": 1,
            "attention_levels": [],
            "norm_groups": 4,
        },
    },
}


def small(seed: int = 0) -> DualViTok:
    torch.manual_seed(seed)
    tokenizer = DualViTok(DualViTokConfig(**SMALL))
    ShapesTokenizerRecipe().initialise(tokenizer, BatchNoise("initialise", seed))
    return tokenizer


# The card


def test_the_card_and_the_recipe_agree() -> None:
    session = Session()
    card, variant = session.resolve("illume:shapes-tokenizer")
    tokenizer = build(session.architecture(card, variant), variant.config)
    assert isinstance(tokenizer, DualViTok) and isinstance(
        session.recipe(card, variant), ShapesTokenizerRecipe
    )
    assert tokenizer.grids(SIZE, SIZE) == ((SIZE // CELL,) * 2, (8, 8))
    assert tokenizer.config.semantic is not None
    assert tokenizer.config.semantic.vit.out_channels == CHANNELS
    assert tokenizer.config.semantic.vit.cell == CELL
    # Its decoder is shown every combination.
    assert not hasattr(ShapesTokenizerRecipe, "held_out")


# The teacher

RED_CIRCLE = Item("circle", "red", "large", (1, 1))
GREEN_RING = Item("ring", "green", "small", (0, 0))


def test_contents_say_what_is_seen_in_each_cell() -> None:
    (contents,) = cell_contents([Scene("black", (RED_CIRCLE, GREEN_RING))], SIZE, CELL)
    assert contents.shape == (CONTENT, 4, 4)
    circle, ring, red, green, black = (contents[index] for index in (0, 5, 6, 9, -1))
    assert torch.equal(circle, red) and torch.equal(ring, green)
    covered = circle.square().sum() * CELL**2
    assert float(covered) == pytest.approx(math.pi * (0.19 * SIZE) ** 2, rel=0.03)
    assert bool((circle[1:3, 1:3] > 0.5).all()) and float(circle[3].max()) == 0.0
    assert float(ring[0, 0]) > 0.3 and float(ring[2:].max()) == 0.0
    seen = circle.square() + ring.square() + black
    assert torch.allclose(seen, torch.ones(4, 4), atol=0.02), "shares of a cell are all of it"


def test_what_is_hidden_does_not_count() -> None:
    hidden = Item("circle", "blue", "small", (1, 1))
    over = Item("square", "red", "large", (1, 2), (-0.29, 0.0))
    (contents,) = cell_contents([Scene("white", (hidden, over))], SIZE, CELL)
    circle, square = contents[0].square(), contents[1].square()
    assert float(circle.sum()) < 0.02 < 1.0 < float(square.sum())


def test_contents_tell_where_the_centre_is() -> None:
    (contents,) = cell_contents([Scene("white", (RED_CIRCLE,))], SIZE, CELL)
    places = contents[-6:-4] / contents[0].clamp_min(1e-6)
    assert places[:, 1, 1].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert places[:, 2, 1].tolist() == pytest.approx([0.5, -0.5], abs=1e-4)


def test_features_are_a_fixed_projection_without_mean_and_scale() -> None:
    scenes = [sample_scene(seed) for seed in range(8)]
    features = teacher_features(scenes, SIZE, CELL, CHANNELS)
    assert features.shape == (8, CHANNELS, 4, 4)
    assert torch.allclose(features.mean(1), torch.zeros(8, 4, 4), atol=1e-5)
    assert torch.allclose(features.var(1, unbiased=False), torch.ones(8, 4, 4), atol=1e-3)
    assert torch.equal(features, teacher_features(scenes, SIZE, CELL, CHANNELS))
    alone = torch.cat([teacher_features([scene], SIZE, CELL, CHANNELS) for scene in scenes])
    assert torch.allclose(features, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "colour", "background"), [("small", "pink", "silver"), ("large", "red", "white")]
)
def test_a_missing_object_is_an_error_of_one(size: str, colour: str, background: str) -> None:
    scene = Scene(background, (Item("square", colour, size, (1, 1)),))
    ground = torch.tensor(BACKGROUNDS[background]).view(1, 3, 1, 1) / 255
    missing = (render_all([scene], SIZE) - ground).square()
    weights = object_weights([scene], SIZE)
    assert weights.shape == (1, 1, SIZE, SIZE)
    # Antialiased edges are squared here and not in the area.
    assert float((missing * weights).sum()) == pytest.approx(1.0, abs=0.15)


def test_errors_count_at_objects_and_right_beside_them_alone() -> None:
    both = Scene("black", (Item("ring", "pink", "large", (1, 1)), Item("cross", "blue", "small", (0, 0))))
    alone = [Scene("black", (item,)) for item in both.items]
    together, *parts = object_weights([both, *alone], SIZE)
    assert torch.allclose(together, (parts[0] + parts[1]) / 2)
    touched = render_all([both], SIZE)[0].amax(0) > 0.05
    assert bool((together[0][touched] > 0).all()) and float((together > 0).float().mean()) < 0.3


def test_different_contents_have_different_features() -> None:
    scenes = [
        Scene(background, (Item(shape, colour, size, (1, 1)),))
        for background in ("white", "black")
        for shape in ("circle", "square")
        for colour in ("red", "blue")
        for size in ("small", "large")
    ]
    cells = teacher_features(scenes, SIZE, CELL, CHANNELS)[:, :, 1, 1]
    distances = torch.cdist(cells, cells) + 100 * torch.eye(len(scenes))
    assert float(distances.min()) > 1.0


# The start


def test_the_first_features_are_white_and_use_many_codes() -> None:
    tokenizer = small()
    batch = ShapesTokenizerRecipe().batch(BatchNoise("other pictures"), 128)
    with torch.no_grad():
        encoded = tokenizer.encode(batch["images"])
    for codes in (encoded.semantic, encoded.pixel):
        rows = codes.features.movedim(1, -1).flatten(0, -2)
        assert torch.allclose(rows.mean(0), torch.zeros(4), atol=0.25)
        assert torch.allclose(torch.cov(rows.T).diag(), torch.ones(4), atol=0.5)
        assert len(codes.quantised.indices.unique()) >= 32


def test_the_first_codes_are_standard_normal() -> None:
    tokenizer = small()
    assert tokenizer.semantic is not None and tokenizer.pixel is not None
    for quantiser in (tokenizer.semantic.quantiser, tokenizer.pixel.quantiser):
        transform = quantiser.transform.weight.detach() * PACE
        assert torch.allclose(transform @ transform.T, 8.0 * torch.eye(4), atol=1e-4)
        assert float(quantiser.implicit_codebook().detach().std()) == pytest.approx(1.0, abs=0.15)


@torch.no_grad()
def test_the_first_norms_of_the_decoder_hardly_read_the_codes() -> None:
    tokenizer = small()
    assert tokenizer.pixel is not None
    norms = [part for part in tokenizer.pixel.decoder.modules() if isinstance(part, SpatialNorm)]
    assert len(norms) > 8
    for norm in norms:
        assert torch.equal(norm.scale.bias, torch.ones(norm.norm.num_channels))
        assert not norm.shift.bias.any()
        # A fresh convolution has weights up to the inverse root of its inputs.
        largest = MODULATION * norm.scale.in_channels**-0.5
        for layer in (norm.scale, norm.shift):
            assert 0.8 * largest < float(layer.weight.abs().max()) <= largest


def test_the_start_depends_on_the_noise_alone() -> None:
    states = [small().state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# Batches and the loss


def test_a_batch_is_a_function_of_noise_and_shows_what_training_may_show() -> None:
    recipe = ShapesTokenizerRecipe()
    batch = recipe.batch(BatchNoise("train", 0, 3), 16)
    again = recipe.batch(BatchNoise("train", 0, 3), 16)
    assert set(batch) == {"images", "meaning", "weights"}
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["images"].shape == (16, 3, 32, 32) and batch["meaning"].shape == (16, CHANNELS, 4, 4)
    assert (float(batch["images"].min()), float(batch["images"].max())) == (-1.0, 1.0)
    assert not shown(batch["images"][:8]) & set(HELD_OUT)


def shown(images: Tensor) -> set[str]:
    """The combinations in pictures in [-1, 1]."""
    return {item.name for image in images for item in judge((image + 1) / 2).items}


def test_the_decoder_is_shown_every_combination() -> None:
    batch = ShapesTokenizerRecipe.next_stage.batch(BatchNoise("train", 0, 3), 16)
    assert set(batch) == {"images", "weights"}
    assert shown(batch["images"]) & set(HELD_OUT)


def written_out(tokenizer: DualViTok, batch: dict[str, Tensor], noise: BatchNoise) -> float:
    """The loss row by row, with nothing borrowed from the recipe but its numbers."""
    count, total = len(batch["images"]), 0.0
    raw = noise.uniform("blurred", (count, 2)) < BLURRED
    assert 0 < int(raw.sum()) < 2 * count
    near = [noise.normal(name, (count, 4, 4, 4)) for name in ("meaning", "details")]
    for row in range(count):
        images, meaning = batch["images"][row : row + 1], batch["meaning"][row : row + 1]
        encoded = tokenizer.encode(images)
        passed = [
            codes.features + NOISE * near[branch][row] if raw[row, branch] else codes.quantised.values
            for branch, codes in enumerate((encoded.semantic, encoded.pixel))
        ]
        difference = tokenizer.decode_codes(passed[0], passed[1]) - images
        relative = (difference.square() / 4 * batch["weights"][row]).sum()
        total += DRAWING * float(difference.abs().mean() + difference.square().mean() + relative)
        total += TEACHING * float((encoded.semantic.target - meaning).square().mean())
        returned = tokenizer.decode_features(passed[0]) - encoded.semantic.target
        total += RETURNING * float(returned.square().mean())
        looked_up = (tokenizer.semantic_codes, tokenizer.pixel_codes)
        for codes, look_up in zip((encoded.semantic, encoded.pixel), looked_up, strict=True):
            error = codes.features - look_up(codes.quantised.indices)
            total += 1.25 * float(error.square().mean())
            beyond = (codes.features.square().mean(1) - REACH).clamp_min(0.0)
            total += HOLDING * float(beyond.square().mean())
    return total / count


@torch.no_grad()
def test_the_loss_is_the_sum_of_its_parts_and_a_mean_over_rows() -> None:
    tokenizer, recipe, noise = small(), ShapesTokenizerRecipe(), BatchNoise("loss")
    batch = recipe.batch(noise, 6)
    expected = written_out(tokenizer, batch, noise)
    assert float(recipe.loss(tokenizer, batch, noise)) == pytest.approx(expected, rel=1e-4)


def test_slices_of_a_batch_add_up_to_the_whole() -> None:
    tokenizer, recipe, noise = small(), ShapesTokenizerRecipe(), BatchNoise("slices")
    gradients = Gradients(recipe, tokenizer, torch.device("cpu"))
    batch = recipe.batch(noise, 8)
    gradients.workers = 1
    whole = gradients.of(batch, noise)
    grads = [parameter.grad for parameter in gradients.parameters]
    gradients.workers = 2
    assert float(gradients.of(batch, noise)) == pytest.approx(float(whole), rel=1e-5)
    for parameter, before in zip(gradients.parameters, grads, strict=True):
        assert parameter.grad is not None and before is not None
        assert torch.allclose(parameter.grad, before, atol=1e-5, rtol=1e-3)


def test_everything_learns_but_the_codebooks() -> None:
    tokenizer, recipe, noise = small(), ShapesTokenizerRecipe(), BatchNoise("gradients")
    recipe.loss(tokenizer, recipe.batch(noise, 8), noise).backward()
    idle = [name for name, p in tokenizer.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == []
    assert "semantic.quantiser.codebook" in dict(tokenizer.named_buffers())


def test_a_few_steps_draw_better() -> None:
    recipe = ShapesTokenizerRecipe()
    recipe.budget = replace(recipe.budget, batch_size=8, steps=16, warmup_steps=4)
    tokenizer = small()
    images = recipe.batch(BatchNoise("never trained on"), 32)["images"]

    @torch.no_grad()
    def error() -> float:
        finished = small()
        finished.load_state_dict(tokenizer.state_dict())
        return float((finished(images).images - images).abs().mean())

    before = error()
    trainer = Trainer(recipe, tokenizer)
    codebook = tokenizer.state_dict()["pixel.quantiser.codebook"].clone()
    list(trainer.run(16))
    assert error() < 0.9 * before
    assert torch.equal(tokenizer.state_dict()["pixel.quantiser.codebook"], codebook)


def test_the_second_stage_teaches_the_decoder_alone() -> None:
    tokenizer, recipe, noise = small(), ShapesTokenizerRecipe().next_stage, BatchNoise("decoder")
    recipe.loss(tokenizer, recipe.batch(noise, 8), noise).backward()
    taught = {name for name, p in tokenizer.named_parameters() if p.grad is not None}
    decoding = ("pixel.decoder.", "pixel.from_codes.")
    assert taught == {name for name, _ in tokenizer.named_parameters() if name.startswith(decoding)}
