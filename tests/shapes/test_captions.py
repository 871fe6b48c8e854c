"""Captions say what is true of a scene, read back exactly, and reject everything else by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from wrong_captions import altered

from zoo.shapes import (
    CaptionError,
    Description,
    Item,
    Mention,
    Scene,
    caption,
    describe,
    matches,
    parse,
    sample_scene,
    vocabulary,
)
from zoo.shapes.captions import RELATIONS

CIRCLE = Item("circle", "red", "large", (0, 0))
SQUARE = Item("square", "blue", "small", (0, 1))
RING = Item("ring", "orange", "small", (2, 1))


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene("white", (CIRCLE,)), "a large red circle at the top left on a white background"),
        (Scene("gray", (RING,)), "a small orange ring at the bottom on a gray background"),
        (
            Scene("white", (CIRCLE, SQUARE)),
            "a large red circle left of a small blue square on a white background",
        ),
        (
            Scene("black", (CIRCLE, SQUARE, RING)),
            "a large red circle left of a small blue square above a small orange ring on a black background",
        ),
    ],
)
def test_captions_of_known_scenes(scene: Scene, text: str) -> None:
    assert caption(scene) == text


def test_captions_can_say_less() -> None:
    scene = Scene("white", (replace(RING, cell=(1, 1)),))
    assert caption(scene) == "a small orange ring in the centre on a white background"
    assert caption(scene, position=False) == "a small orange ring on a white background"
    assert caption(scene, position=False, background=False) == "a small orange ring"
    assert caption(scene, sizes=False, position=False, background=False) == "an orange ring"


def test_parse_keeps_unsaid_things_open() -> None:
    assert parse("a red circle") == Description((Mention("circle", "red"),))
    assert parse("  An ORANGE ring ") == Description((Mention("ring", "orange"),))


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_caption_and_parse_are_inverse_and_true(sizes: bool, position: bool, background: bool) -> None:
    for seed in range(1000):
        scene = sample_scene(seed)
        said = describe(scene, sizes, position, background)
        text = caption(scene, sizes, position, background)
        assert parse(text) == said
        assert str(said) == text
        assert matches(said, scene)


def test_every_word_of_a_caption_is_in_the_vocabulary() -> None:
    said = [caption(sample_scene(seed), sizes=seed % 2 == 0) for seed in range(3000)]
    used = {word for text in said for word in text.split()}
    assert used == set(vocabulary())
    assert list(vocabulary()) == sorted(set(vocabulary()))


def test_one_wrong_word_makes_a_caption_false() -> None:
    for seed in range(500):
        scene = sample_scene(seed)
        for wrong in altered(describe(scene)):
            assert not matches(wrong, scene), f"{wrong} / {caption(scene)}"
            assert parse(str(wrong)) == wrong


def test_the_number_of_objects_must_match() -> None:
    scene = Scene("white", (CIRCLE, SQUARE))
    assert not matches(parse("a red circle"), scene)
    assert not matches(parse("a red circle left of a blue square above an orange ring"), scene)


def test_objects_match_in_any_order() -> None:
    scene = Scene("white", (CIRCLE, SQUARE))
    assert matches(parse("a blue square right of a red circle"), scene)
    assert not matches(parse("a blue square left of a red circle"), scene)


def test_objects_of_one_column_are_neither_left_nor_right() -> None:
    above = Item("square", "blue", "small", (0, 1), (-0.02, 0.0))
    below = Item("ring", "orange", "small", (2, 1), (0.02, 0.0))
    holding = {
        relation
        for relation in RELATIONS
        if matches(parse(f"a blue square {relation} an orange ring"), Scene("white", (above, below)))
    }
    assert holding == {"above"}


def test_unknown_words_are_named() -> None:
    with pytest.raises(CaptionError) as caught:
        parse("a red hexagon above a mauve circle")
    assert caught.value.unknown == ("hexagon", "mauve")
    assert caught.value.known == vocabulary()
    assert "'hexagon', 'mauve'" in str(caught.value)
    assert all(word in str(caught.value) for word in ("circle", "orange", "above"))


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ("", "'a'", "the end"),
        ("red circle", "'a'", "'red'"),
        ("a orange ring", "'an'", "'a'"),
        ("an red ring", "'a'", "'an'"),
        ("a circle", "'red'", "'circle'"),
        ("a red small circle", "'circle'", "'small'"),
        ("a red circle left a blue ring", "'left of'", "'left'"),
        ("a red circle above", "'a'", "the end"),
        ("a red circle on a red background", "'white'", "'red'"),
        ("a red circle on a white", "'background'", "the end"),
        ("a red circle at the top left above a blue ring", "'on'", "'above'"),
        ("a red circle on a white background in the centre", "the end", "'in'"),
        (" above ".join(["a red circle"] * 4), "'on'", "'above'"),
    ],
)
def test_known_words_that_are_no_caption_say_what_was_expected(text: str, expected: str, got: str) -> None:
    with pytest.raises(CaptionError) as caught:
        parse(text)
    message = str(caught.value)
    assert caught.value.unknown == ()
    assert expected in message.partition("expected")[2].rpartition(", got ")[0]
    assert message.endswith(f"got {got}")


def test_words_need_no_torch() -> None:
    program = (
        "import sys; from zoo.shapes import CLASSES, HELD_OUT, caption, parse, sample_scene; "
        "parse(caption(sample_scene(0))); raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
