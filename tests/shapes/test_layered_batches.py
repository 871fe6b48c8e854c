"""Batches of scenes as layers: what they show, hide and say."""

from __future__ import annotations

import pytest
import torch

from zoo.runtime.noise import BatchNoise
from zoo.shapes import HELD_OUT, Description, Mention, Scene, layers, matches, parse
from zoo.shapes.batches import captioned_scenes, drawn_scenes
from zoo.shapes.layered_batches import LayeredBatch, layered_scenes
from zoo.shapes.prompts import caption_or_part, part_of
from zoo.shapes.rendering import render_all

MANY = 3000


@pytest.fixture(scope="module")
def many() -> LayeredBatch:
    return layered_scenes(BatchNoise("many"), MANY, 4)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return drawn_scenes(BatchNoise("many"), MANY)


def half(flags: list[bool]) -> bool:
    """Whether about half of many flags are set, to five standard deviations."""
    return abs(sum(flags) / len(flags) - 0.5) < 2.5 / len(flags) ** 0.5


def test_a_batch_is_a_function_of_noise():
    first, again = (layered_scenes(BatchNoise("train", 0, 7), 16, 32) for _ in range(2))
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.masks, again.masks)
    assert (first.captions, first.parts) == (again.captions, again.parts)
    other = layered_scenes(BatchNoise("train", 0, 8), 16, 32)
    assert not torch.equal(first.pictures, other.pictures) and first.captions != other.captions


def test_shapes_ranges_and_unused_layers():
    batch = layered_scenes(BatchNoise("shapes"), 48, 32)
    assert batch.pictures.shape == (48, 4, 3, 32, 32) and batch.pictures.dtype == torch.float32
    assert batch.masks.shape == (48, 4, 1, 32, 32) and batch.masks.dtype == torch.float32
    assert batch.present.shape == (48, 4) and batch.present.dtype == torch.bool
    assert float(batch.pictures.min()) == -1.0 and float(batch.pictures.max()) <= 1.0
    assert float(batch.masks.min()) == 0.0 and float(batch.masks.max()) == 1.0
    assert batch.present[:, :2].all() and {2, 3, 4} == set(batch.present.sum(dim=1).tolist())
    assert (batch.pictures[~batch.present] == 0).all() and (batch.masks[~batch.present] == 0).all()
    assert (batch.masks[:, 0] == 1).all()
    assert (batch.masks[:, 1:][batch.present[:, 1:]].sum(dim=(1, 2, 3)) > 20).all()
    assert [len(parts) for parts in batch.parts] == batch.present.sum(dim=1).tolist()


def test_layers_laid_over_each_other_are_the_picture():
    batch, drawn = layered_scenes(BatchNoise("train"), 64, 32), drawn_scenes(BatchNoise("train"), 64)
    picture = batch.pictures[:, 0]
    for layer in range(1, 4):
        # The neutral grey is 0, so the colours are multiplied with their masks already.
        picture = batch.pictures[:, layer] + (1.0 - batch.masks[:, layer]) * picture
    assert float((picture - (render_all(drawn, 32) * 2.0 - 1.0)).abs().max()) < 1e-5
    alone, captions = captioned_scenes(BatchNoise("train"), 64, 32)
    assert float((picture - alone).abs().max()) < 1e-5 and captions == batch.captions


def test_every_layer_is_the_whole_object_on_neutral_grey():
    batch, drawn = layered_scenes(BatchNoise("whole"), 24, 32), drawn_scenes(BatchNoise("whole"), 24)
    for row, scene in enumerate(drawn):
        truth = layers(scene, 32)
        count = len(truth)
        assert batch.present[row].tolist() == [index < count for index in range(4)]
        assert float((batch.masks[row, :count] - truth[:, 3:]).abs().max()) < 1e-6
        expected = (truth[:, :3] * 2.0 - 1.0) * truth[:, 3:]
        assert float((batch.pictures[row, :count] - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("objects", [(1,), (2,), (3,), (2, 3)])
def test_the_numbers_of_objects_are_a_choice(objects):
    batch = layered_scenes(BatchNoise("objects"), 40, 8, objects)
    assert set((batch.present.sum(dim=1) - 1).tolist()) == set(objects)
    assert {len(parse(text).objects) for text in batch.captions} == set(objects)


def test_captions_are_true_of_the_scenes_and_name_the_objects_back_to_front(many, scenes):
    for text, scene in zip(many.captions, scenes, strict=True):
        said = parse(text)
        assert matches(said, scene)
        assert [(m.colour, m.shape) for m in said.objects] == [(i.colour, i.shape) for i in scene.items]


def test_parts_are_true_of_their_layers(many, scenes):
    for (behind, *parts), scene in zip(many.parts, scenes, strict=True):
        assert behind in ("", f"a {scene.background} background")
        for part, item in zip(parts, scene.items, strict=True):
            (mention,) = parse(part).objects
            assert mention in (Mention(item.shape, item.colour), Mention(item.shape, item.colour, item.size))
            assert parse(part) == Description((mention,), cell=parse(part).cell)
            assert part_of(part) == caption_or_part(part) == part
            assert parse(part).cell in (None, item.cell)


def test_held_out_combinations_are_in_no_part(many):
    names = {
        f"{m.colour} {m.shape}" for _, *parts in many.parts for part in parts for m in parse(part).objects
    }
    assert len(names) == 40 and names.isdisjoint(HELD_OUT)


def test_parts_say_half_of_what_they_could_whatever_the_caption_says(many):
    captions = [parse(text) for text in many.captions]
    for said in (True, False):
        rows = [row for row, text in enumerate(captions) if (text.background is not None) == said]
        assert half([many.parts[row][0] != "" for row in rows])
        sizes = [
            parse(part).objects[0].size is not None
            for text, (_, *parts) in zip(captions, many.parts, strict=True)
            for part, mention in zip(parts, text.objects, strict=True)
            if (mention.size is not None) == said
        ]
        assert len(sizes) > 1000 and half(sizes)


def test_half_of_the_parts_say_where_their_object_is_whatever_the_caption_says(many):
    told = {True: [], False: []}
    for text, (_, *parts) in zip(many.captions, many.parts, strict=True):
        told[len(parts) == 1 and parse(text).cell is not None] += [
            parse(part).cell is not None for part in parts
        ]
    assert all(len(cells) > 100 and half(cells) for cells in told.values())
