"""The judge: right on ground truth, robust to defects of generated pictures, strict with the rest."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from math import cos, pi, sin

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from wrong_captions import altered

from zoo.shapes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    CaptionError,
    Item,
    Scene,
    Unjudgeable,
    agrees,
    caption,
    describe,
    examine,
    judge,
    masks,
    matches,
    parse,
    render,
    sample_scene,
)
from zoo.shapes.rendering import coverage

Truth = tuple[str, frozenset[tuple[str, str, str, tuple[int, int]]]]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def truth(scene: Scene) -> Truth:
    items = frozenset((item.shape, item.colour, item.size, item.cell) for item in scene.items)
    return scene.background, items


def verdict(image: Tensor) -> Truth | None:
    try:
        return truth(judge(image))
    except Unjudgeable:
        return None


def single(seed: int) -> Scene:
    """One object of any look, up to 0.06 of the side from the picture's centre."""
    rng = random.Random(f"single {seed}")
    offset = (rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06))
    item = Item(rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(list(SIZES)), (1, 1), offset)
    return Scene(rng.choice(list(BACKGROUNDS)), (item,))


def colour_of(scene: Scene) -> tuple[Tensor, Tensor]:
    table = (COLOURS[scene.items[0].colour], BACKGROUNDS[scene.background])
    return tuple(torch.tensor(colour)[:, None, None] / 255 for colour in table)


def paint(scene: Scene, mask: Tensor) -> Tensor:
    """The colours of a single object's scene, but another shape."""
    colour, background = colour_of(scene)
    return background * (1 - mask) + colour * mask


def blur(image: Tensor, softness: float) -> Tensor:
    weight = torch.exp(-0.5 * (torch.arange(-3, 4) / softness).square())
    kernel = torch.outer(weight, weight) / weight.sum() ** 2
    padded = functional.pad(image[:, None], (3, 3, 3, 3), mode="replicate")
    return functional.conv2d(padded, kernel[None, None])[:, 0]


def noise(seed: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def tinted(scene: Scene, seed: int, size: int) -> Tensor:
    """The picture of a single object, each channel of both colours off by up to 0.08."""
    offsets = 0.16 * torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(seed)) - 0.08
    colour, background = colour_of(scene)
    mask = masks(scene.items, size)[0]
    return ((background + offsets[1]) * (1 - mask) + (colour + offsets[0]) * mask).clamp(0, 1)


@pytest.mark.parametrize(("size", "scenes"), [(32, 200), (64, 50), (24, 30), (48, 10), (100, 5)])
def test_ground_truth_is_read_back(size: int, scenes: int) -> None:
    wrong = [
        seed
        for seed in range(70_000, 70_000 + scenes)
        if verdict(render(sample_scene(seed), size)) != truth(sample_scene(seed))
    ]
    assert wrong == []


def test_places_are_measured() -> None:
    for seed in range(30):
        scene = sample_scene(seed)
        placed = {item.cell: item.offset for item in judge(render(scene, 32)).items}
        for item in scene.items:
            assert placed[item.cell] == pytest.approx(item.offset, abs=1e-3)


def test_depth_order_is_read_where_it_shows() -> None:
    red = Item("square", "red", "large", (1, 0), (0.01, 0.0))
    blue = Item("circle", "blue", "large", (1, 1), (-0.01, 0.0))
    for order in ((red, blue), (blue, red)):
        found = judge(render(Scene("white", order), 32))
        assert [item.colour for item in found.items] == [item.colour for item in order]


def test_touching_objects_of_one_colour_are_told_apart() -> None:
    for shapes in [("square", "circle"), ("cross", "ring"), ("diamond", "triangle"), ("circle", "circle")]:
        items = tuple(Item(shape, "green", "large", (1, column)) for column, shape in enumerate(shapes))
        scene = Scene("black", items)
        assert verdict(render(scene, 32)) == truth(scene)


def test_a_shape_that_its_own_colour_hides_is_found() -> None:
    circle = Item("circle", "blue", "large", (1, 1), (0.0173, 0.0016))
    hidden = Item("cross", "blue", "large", (1, 2), (-0.0184, 0.0127))
    front = Item("cross", "pink", "large", (2, 2), (0.0108, -0.0138))
    scene = Scene("silver", (circle, hidden, front))
    assert verdict(render(scene, 64)) == truth(scene)


def test_true_captions_agree_and_captions_with_one_wrong_word_do_not() -> None:
    rng = random.Random("wrong captions")
    for seed in range(40):
        scene = sample_scene(seed)
        seen = judge(render(scene, 32))
        assert matches(describe(scene), seen)
        assert not any(matches(wrong, seen) for wrong in altered(describe(scene)))
    for seed in range(10):
        scene = sample_scene(seed)
        image = render(scene, 64)
        assert agrees(image, caption(scene))
        assert not agrees(image, str(rng.choice(altered(describe(scene)))))


def test_captions_must_name_every_object() -> None:
    scene = Scene("white", (Item("circle", "red", "large", (1, 0)), Item("ring", "blue", "small", (1, 2))))
    image = render(scene, 32)
    assert agrees(image, "a red circle left of a blue ring")
    assert not agrees(image, "a red circle")
    assert not agrees(image, "a red circle left of a blue ring above a green cross")
    assert agrees(image, parse("a small blue ring right of a red circle"))


def test_impossible_captions_are_errors_not_disagreement() -> None:
    with pytest.raises(CaptionError):
        agrees(render(single(0), 32), "a red hexagon")


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("defect", ["noise", "soft", "tint", "all"])
def test_defects_of_generated_pictures_do_not_mislead(defect: str, size: int) -> None:
    for seed in range(30):
        scene = single(seed)
        image = tinted(scene, seed, size) if defect in ("tint", "all") else render(scene, size)
        if defect in ("soft", "all"):
            image = blur(image, 0.6)
        if defect in ("noise", "all"):
            image = (image + 0.05 * noise(seed, image)).clamp(0, 1)
        assert verdict(image) == truth(scene), (seed, scene)


def test_defects_are_measured() -> None:
    scene = Scene("gray", (Item("square", "yellow"),))
    clean = render(scene, 32)
    assert examine(clean).noise < 1e-3
    assert examine(clean).softness == 0.0
    assert examine(clean).ambiguity == pytest.approx(0.0, abs=1e-3)
    assert examine(clean + 0.05 * noise(0, clean)).noise == pytest.approx(0.05, rel=0.1)
    assert examine(blur(clean, 0.6)).softness == 0.6
    assert examine(clean).residue < examine(blur(clean, 1.0)).residue


def refusal(image: Tensor) -> str:
    with pytest.raises(Unjudgeable) as caught:
        judge(image.clamp(0, 1))
    return str(caught.value)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_blank_pictures_are_refused(background: str) -> None:
    blank = torch.tensor(BACKGROUNDS[background])[:, None, None].expand(3, 32, 32) / 255
    assert refusal(blank) == "the picture holds no object"
    assert refusal(blank + 0.03 * noise(0, blank)) == "the picture holds no object"


def test_noise_is_refused() -> None:
    for seed in range(8):
        white = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed))
        assert "no even background" in refusal(white)
        refusal(blur(0.5 + noise(seed, white), 2.0))
        scene = render(single(seed), 32)
        refusal(scene + 0.3 * noise(seed, scene))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("first", "second"), list(combinations(SHAPES, 2)))
def test_pictures_half_way_between_two_shapes_are_refused(first: str, second: str, size: int) -> None:
    for look in SIZES:
        items = [Item(shape, "blue", look, (1, 1), (0.02, -0.01)) for shape in (first, second)]
        mask = masks(items, size).mean(0)
        refusal(paint(Scene("white", (items[0],)), mask))


@pytest.mark.parametrize("size", [32, 64])
def test_half_objects_are_refused(size: int) -> None:
    axis = (torch.arange(size) + 0.5) / size - 0.5
    for shape in SHAPES:
        scene = Scene("silver", (Item(shape, "purple", "large"),))
        for turn in range(2):
            kept = (cos(turn * pi / 2) * axis[None] + sin(turn * pi / 2) * axis[:, None] > 0).float()
            refusal(paint(scene, masks(scene.items, size)[0] * kept))


def test_blobs_are_refused() -> None:
    axis = (torch.arange(32) + 0.5) / 32 - 0.5
    distance = torch.hypot(axis[None], axis[:, None])
    for seed in range(8):
        wobble = blur(noise(seed, torch.empty(1, 32, 32)), 2.5)[0]
        mask = (0.5 - (distance - 0.17 + 0.06 * wobble / wobble.std()) * 32).clamp(0, 1)
        refusal(paint(single(seed), mask))
        refusal(paint(single(seed), torch.exp(-0.5 * (distance / 0.1).square())))


def test_objects_of_two_colours_are_refused() -> None:
    names = list(COLOURS)
    for seed in range(8):
        scene = single(seed)
        (item,) = scene.items
        item = replace(item, size="large")
        other = replace(item, colour=names[names.index(item.colour) - 3])
        upper = torch.arange(32)[:, None] < 16
        pair = [render(Scene(scene.background, (each,)), 32) for each in (item, other)]
        refusal(torch.where(upper, *pair))


def test_sizes_and_colours_between_two_names_are_refused() -> None:
    for shape in SHAPES:
        scene = Scene("white", (Item(shape, "red"),))
        index, radius = torch.tensor([SHAPES.index(shape)]), torch.tensor([0.16])
        refusal(paint(scene, coverage(index, torch.tensor([[0.5, 0.5]]), radius, 32)[0]))
    for first, second in [("red", "orange"), ("orange", "yellow"), ("blue", "purple")]:
        pair = [render(Scene("white", (Item("square", colour),)), 32) for colour in (first, second)]
        reason = refusal((pair[0] + pair[1]) / 2)
        assert reason.endswith((f"between {first} and {second}", f"between {second} and {first}"))
    pair = [render(Scene(name, (Item("square", "red"),)), 32) for name in ("white", "silver")]
    assert "the background has colour" in refusal((pair[0] + pair[1]) / 2)


def test_something_else_in_the_picture_is_refused() -> None:
    image = render(Scene("white", (Item("circle", "red", "small"),)), 32)
    image[:, 4:6, 25:27] = 0.0
    assert "comes near enough" in refusal(image)


def test_refused_pictures_agree_with_nothing() -> None:
    scene = single(3)
    half = render(scene, 32)
    half[:, :, :16] = half[:, :1, :1]
    assert not agrees(half, caption(scene))
    assert not agrees(torch.full((3, 32, 32), torch.nan), caption(scene))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(32, 32), "square RGB picture"),
        (torch.zeros(1, 32, 32), "square RGB picture"),
        (torch.zeros(3, 32, 48), "square RGB picture"),
        (torch.zeros(3, 16, 16), "at least 24 pixels"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "float picture"),
    ],
)
def test_tensors_that_are_no_pictures_are_errors(image: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        judge(image)
    assert not isinstance(caught.value, Unjudgeable)


def test_half_precision_and_larger_pictures_are_taken() -> None:
    scene = sample_scene(7)
    assert verdict(render(scene, 32).half()) == truth(scene)
    assert verdict(render(scene, 256)) == truth(scene)
