"""Drawing: areas, layers and occlusion agree with geometry and with one another."""

from __future__ import annotations

import math

import pytest
import torch

import zoo.shapes
from zoo.runtime.noise import BatchNoise
from zoo.shapes import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    SHAPES,
    SIZES,
    Item,
    Scene,
    layers,
    masks,
    render,
    sample_scene,
    visible_masks,
)
from zoo.shapes.batches import CENTRE_OFFSET, single_objects
from zoo.shapes.rendering import composite, render_all

#: Area of each shape in units of its radius squared.
AREAS = {
    "circle": math.pi,
    "square": 4 * 0.86**2,
    "triangle": 1.8,
    "diamond": 2.0,
    "cross": 4 * 0.36 * 2 - 4 * 0.36**2,
    "ring": math.pi * (1 - 0.44**2),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_masks_have_the_area_of_their_shape(shape: str, size: str) -> None:
    for side in (32, 64, 128):
        item = Item(shape, "red", size, offset=(0.013, -0.007))
        area = float(masks([item], side).sum()) / side**2
        assert area == pytest.approx(AREAS[shape] * SIZES[size] ** 2, rel=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_fill_the_radius_and_no_more(shape: str) -> None:
    mask = masks([Item(shape, "red", "large")], 128)[0]
    axis = (torch.arange(128) + 0.5) / 128 - 0.5
    reach = axis[mask.amax(0) > 0.5].abs().max()
    assert 0.8 * SIZES["large"] < float(reach) <= SIZES["large"]


def test_layers_compose_to_the_picture() -> None:
    for seed in range(100):
        scene = sample_scene(seed)
        stack = layers(scene, 32)
        assert stack.shape == (1 + len(scene.items), 4, 32, 32)
        assert torch.equal(composite(stack), render(scene, 32))
        assert torch.equal(stack[1:, 3], masks(scene.items, 32))
        assert (stack[0, 3] == 1).all()


@pytest.mark.parametrize("size", [8, 32])
def test_several_scenes_are_drawn_as_each_alone(size: int) -> None:
    scenes = [sample_scene(seed) for seed in range(60)]
    assert {len(scene.items) for scene in scenes} == {1, 2, 3}
    pictures = render_all(scenes, size)
    assert pictures.shape == (60, 3, size, size)
    for picture, scene in zip(pictures, scenes, strict=True):
        assert torch.allclose(picture, render(scene, size), rtol=0, atol=1e-6)
    assert render_all([], size).shape == (0, 3, size, size)


def test_visible_masks_weigh_the_colours_of_the_picture() -> None:
    for seed in range(100):
        scene = sample_scene(seed)
        visible = visible_masks(scene, 32)
        table = torch.tensor([COLOURS[item.colour] for item in scene.items]) / 255
        background = torch.tensor(BACKGROUNDS[scene.background]) / 255
        picture = torch.einsum("nc,nhw->chw", table, visible)
        picture += background[:, None, None] * (1 - visible.sum(0))
        assert torch.allclose(picture, render(scene, 32), atol=1e-5)
        assert (visible <= masks(scene.items, 32) + 1e-6).all()


def test_later_objects_hide_earlier_ones() -> None:
    red = Item("square", "red", "large", (1, 0), (0.02, 0.0))
    blue = Item("square", "blue", "large", (1, 1), (-0.02, 0.0))
    between = int(0.355 * 64)
    assert render(Scene("white", (red, blue)), 64)[2, 32, between] > 0.8
    assert render(Scene("white", (blue, red)), 64)[0, 32, between] > 0.8


def test_scenes_are_reproducible_and_distinct() -> None:
    assert [sample_scene(seed) for seed in range(200)] == [sample_scene(seed) for seed in range(200)]
    assert len({sample_scene(seed) for seed in range(200)}) == 200
    assert {len(sample_scene(seed, objects=(2,)).items) for seed in range(50)} == {2}
    for seed in range(500):
        names = [item.name for item in sample_scene(seed).items]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "hexagon"}, "unknown shape 'hexagon'"),
        ({"colour": "mauve"}, "unknown colour 'mauve'"),
        ({"size": "huge"}, "unknown size 'huge'"),
        ({"cell": (0, 3)}, "outside the 3x3 grid"),
    ],
)
def test_items_reject_what_the_world_does_not_hold(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Item(**{"shape": "circle", "colour": "red", **change})


def test_scenes_reject_what_cannot_be_drawn() -> None:
    item = Item("circle", "red")
    with pytest.raises(ValueError, match="1 to 3 objects, got 0"):
        Scene("white", ())
    with pytest.raises(ValueError, match="unknown background 'red'"):
        Scene("red", (item,))
    with pytest.raises(ValueError, match="same cell"):
        Scene("white", (item, item))


def test_batches_of_single_objects_are_pictures_of_scenes() -> None:
    images, labels = single_objects(BatchNoise("test", 0), 64, 32)
    again, _ = single_objects(BatchNoise("test", 0), 64, 32)
    assert torch.equal(images, again)
    assert images.shape == (64, 3, 32, 32)
    assert float(images.min()) >= -1 and float(images.max()) <= 1
    for image, label in zip(images, labels, strict=True):
        (item,) = zoo.shapes.judge((image + 1) / 2).items
        assert item.name == CLASSES[int(label)]
        assert max(abs(part) for part in item.offset) <= CENTRE_OFFSET + 1e-3


def test_public_names_resolve_to_functions_not_modules() -> None:
    for name in zoo.shapes.__all__:
        value = getattr(zoo.shapes, name)
        assert not isinstance(value, type(zoo.shapes)), name
    assert sorted(zoo.shapes.__all__) == sorted(set(zoo.shapes.__all__))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        zoo.shapes.nonsense  # noqa: B018
