"""Batches of captioned scenes: functions of noise, whose captions are true of their pictures."""

from __future__ import annotations

import pytest
import torch

from zoo.runtime.noise import BatchNoise, RecordedNoise
from zoo.shapes import (
    BACKGROUNDS,
    HELD_OUT,
    SEEN,
    SIZES,
    Description,
    Scene,
    agrees,
    matches,
    parse,
    render,
    sample_scene,
)
from zoo.shapes.batches import captioned_scenes
from zoo.shapes.captions import POSITIONS

MANY = 4000


@pytest.fixture(scope="module")
def said() -> list[Description]:
    _, captions = captioned_scenes(BatchNoise("captions"), MANY, 4)
    return [parse(text) for text in captions]


def drawn(noise: BatchNoise, count: int) -> list[Scene]:
    """The scenes of a batch: 48 bits of each row's two numbers are the seed."""
    rows = (noise.uniform("scene", (count, 2)).double() * 2**24).tolist()
    return [sample_scene(int(high) * 2**24 + int(low), classes=SEEN) for high, low in rows]


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def test_a_batch_is_a_function_of_noise() -> None:
    images, captions = captioned_scenes(BatchNoise("train", 0, 7), 16, 32)
    again, repeated = captioned_scenes(BatchNoise("train", 0, 7), 16, 32)
    assert torch.equal(images, again) and captions == repeated
    others, different = captioned_scenes(BatchNoise("train", 0, 8), 16, 32)
    assert not torch.equal(images, others) and captions != different
    assert len(set(captions)) == 16


def test_pictures_have_their_shape_and_range() -> None:
    images, captions = captioned_scenes(BatchNoise("range"), 64, 32)
    assert images.shape == (64, 3, 32, 32) and images.dtype == torch.float32
    assert float(images.min()) == -1.0 and float(images.max()) == 1.0
    assert len(captions) == 64
    smaller, same = captioned_scenes(BatchNoise("range"), 64, 16)
    assert smaller.shape == (64, 3, 16, 16) and same == captions
    assert float((smaller - torch.nn.functional.avg_pool2d(images, 2)).abs().mean()) < 0.01


def test_the_first_captions_of_a_run_stay_the_same() -> None:
    """Weights are trained on these: other captions would be another recipe."""
    _, captions = captioned_scenes(BatchNoise("train", 0, 0), 64, 4)
    assert captions[:4] == [
        "a purple diamond left of a large green triangle",
        "a pink diamond",
        "a small orange cross left of a blue cross on a black background",
        "a red circle above a yellow ring below a small orange square",
    ]


def test_noise_chooses_the_scene_and_what_is_said() -> None:
    scene = sample_scene((2**22 << 24) + 2**23, classes=SEEN)
    for flags in ([0.0] * 5, [0.9] * 5, [0.9, 0.1, 0.1, 0.9, 0.9]):
        noise = RecordedNoise({"scene": torch.tensor([[0.25, 0.5]]), "said": torch.tensor([flags])})
        images, (text,) = captioned_scenes(noise, 1, 32)
        assert torch.allclose(images[0], render(scene, 32) * 2 - 1, atol=1e-6)
        told = parse(text)
        assert matches(told, scene)
        position, background, *sizes = (flag < 0.5 for flag in flags)
        assert (told.cell is not None) == (position and len(scene.items) == 1)
        assert (told.background is not None) == background
        assert [mention.size is not None for mention in told.objects] == sizes[: len(scene.items)]


def test_the_largest_noise_makes_a_scene() -> None:
    most = torch.full((1, 2), 1.0 - 2**-24)
    images, (text,) = captioned_scenes(RecordedNoise({"scene": most, "said": torch.zeros(1, 5)}), 1, 32)
    assert matches(parse(text), sample_scene(2**48 - 1, classes=SEEN))
    assert bool(images.isfinite().all())


def test_captions_are_true_of_the_scenes_that_were_drawn(said: list[Description]) -> None:
    scenes = drawn(BatchNoise("captions"), MANY)
    assert all(matches(description, scene) for description, scene in zip(said, scenes, strict=True))
    mixed = [matches(description, scene) for description, scene in zip(said, scenes[1:], strict=False)]
    assert share(mixed) < 0.01


def test_captions_agree_with_the_pictures() -> None:
    images, captions = captioned_scenes(BatchNoise("judged"), 24, 32)
    judged = [agrees((image + 1) / 2, text) for image, text in zip(images, captions, strict=True)]
    assert share(judged) == 1.0
    assert not any(
        agrees((image + 1) / 2, text) for image, text in zip(images[:8], captions[1:], strict=False)
    )


def test_one_two_and_three_objects_are_as_likely(said: list[Description]) -> None:
    for count in (1, 2, 3):
        assert share([len(description.objects) == count for description in said]) == pytest.approx(
            1 / 3, abs=0.03
        )


def test_every_combination_is_shown_but_those_held_out(said: list[Description]) -> None:
    shown = {f"{mention.colour} {mention.shape}" for description in said for mention in description.objects}
    assert shown == set(SEEN)
    assert len(shown) == 40 and not shown & set(HELD_OUT)


def test_half_of_what_can_be_left_out_is_left_out(said: list[Description]) -> None:
    assert share([d.background is None for d in said]) == pytest.approx(0.5, abs=0.03)
    singles = [d for d in said if len(d.objects) == 1]
    assert share([d.cell is None for d in singles]) == pytest.approx(0.5, abs=0.05)
    for place in range(3):
        named = [d.objects[place] for d in said if len(d.objects) > place]
        assert share([mention.size is None for mention in named]) == pytest.approx(0.5, abs=0.05)


def test_each_part_is_left_out_whatever_happens_to_the_others(said: list[Description]) -> None:
    triples = [d for d in said if len(d.objects) == 3]
    patterns = {(d.background is None, *(m.size is None for m in d.objects)) for d in triples}
    assert len(patterns) == 16
    singles = [d for d in said if len(d.objects) == 1]
    told = {(d.cell is None, d.background is None, d.objects[0].size is None) for d in singles}
    assert len(told) == 8


def test_everything_that_can_be_said_is_said(said: list[Description]) -> None:
    assert {d.cell for d in said} == {None, *POSITIONS.values()}
    assert {d.background for d in said} == {None, *BACKGROUNDS}
    assert {mention.size for d in said for mention in d.objects} == {None, *SIZES}
    for relation in ("left of", "right of", "above", "below"):
        pairs = [d.relations[0] == relation for d in said if d.relations]
        assert share(pairs) > 0.15
