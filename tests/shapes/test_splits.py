"""Held-out combinations never hide a colour or a shape as a whole."""

from __future__ import annotations

from zoo.shapes import CLASSES, COLOURS, HELD_OUT, SEEN, SHAPES, Item, Scene, is_held_out, sample_scene


def test_the_splits_divide_the_classes() -> None:
    assert set(HELD_OUT) | set(SEEN) == set(CLASSES)
    assert not set(HELD_OUT) & set(SEEN)
    assert len(HELD_OUT) == len(COLOURS)


def test_every_colour_and_shape_is_both_trained_and_tested() -> None:
    for part in (SEEN, HELD_OUT):
        assert {name.split()[0] for name in part} == set(COLOURS)
        assert {name.split()[1] for name in part} == set(SHAPES)


def test_scenes_are_held_out_by_any_object() -> None:
    seen, held_out = SEEN[0].split(), HELD_OUT[0].split()
    first = Item(seen[1], seen[0], cell=(0, 0))
    second = Item(held_out[1], held_out[0], cell=(2, 2))
    assert not is_held_out(Scene("white", (first,)))
    assert is_held_out(Scene("white", (second,)))
    assert is_held_out(Scene("white", (first, second)))


def test_scenes_sampled_from_seen_classes_are_not_held_out() -> None:
    assert not any(is_held_out(sample_scene(seed, classes=SEEN)) for seed in range(500))
    assert all(is_held_out(sample_scene(seed, classes=HELD_OUT)) for seed in range(500))
