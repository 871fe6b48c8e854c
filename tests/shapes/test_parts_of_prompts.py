"""Prompts of parts: what one layer shows, and the layers that a whole prompt asks for."""

from __future__ import annotations

import pytest

from zoo.errors import ExitCode, InvalidInput
from zoo.shapes import BACKGROUNDS, caption, sample_scene
from zoo.shapes.prompts import (
    background_part,
    caption_of,
    caption_or_part,
    check_parts,
    part_of,
    parts_of,
)

BACKGROUNDS_ALONE = {
    "white": [
        "a white background",
        "white background",
        "on white",
        "against a white background",
        "ON WHITE!",
    ],
    "silver": [
        "a picture of a silver background",
        "in front of a silver background",
        "solid silver background",
    ],
    "gray": ["a plain gray background", "grey background", "on a plain, grey background", "on gray"],
    "black": [
        "The black background.",
        "there is a black background",
        "against black",
        "on the black background",
    ],
}
ALONE = [(text, name) for name, texts in BACKGROUNDS_ALONE.items() for text in texts]


@pytest.mark.parametrize(("text", "name"), ALONE)
def test_a_background_alone_is_a_part(text, name):
    assert part_of(text) == caption_or_part(text) == background_part(name) == f"a {name} background"


@pytest.mark.parametrize("text", [text for text, _ in ALONE])
def test_a_background_alone_is_no_caption(text):
    with pytest.raises(InvalidInput, match="not a caption"):
        caption_of(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        (" . ", ""),
        ("a red circle", "a red circle"),
        ("Big orange disc", "a large orange circle"),
        ("a blue ring in the top left corner", "a blue ring at the top left"),
        ("red circle on black", "a red circle on a black background"),
    ],
)
def test_a_part_of_one_object_is_its_caption(text, part):
    assert part_of(text) == caption_of(text) == caption_or_part(text) == part


def test_parts_and_captions_mean_themselves():
    for name in BACKGROUNDS:
        assert part_of(background_part(name)) == background_part(name)
    for seed in range(100):
        text = caption(sample_scene(seed, (1,)), sizes=seed % 2 == 0)
        assert part_of(text) == text
        more = caption(sample_scene(seed, (2, 3)), sizes=seed % 2 == 0)
        assert caption_or_part(more) == more


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red circle left of a blue ring", "is no part: it names 2 objects, expected one"),
        ("a red circle, a blue ring, a pink cross", "is no part: it names 3 objects, expected one"),
        ("a red hexagon", "this model does not know the word 'hexagon'"),
        ("a white", "expected one of 'small', 'large', 'red'"),
        ("a white background on black", "not a caption"),
        ("the", "not a caption"),
        ("white background with a plan", "does not know the words 'with', 'plan'"),
    ],
)
def test_what_is_no_part_is_refused_with_what_a_part_is(text, message):
    with pytest.raises(InvalidInput) as caught:
        part_of(text)
    assert message in caught.value.message and caught.value.exit_code == ExitCode.USAGE
    assert "A part is one object by its colour and shape, such as 'a large red circle', or a background" in (
        caught.value.hint
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a red circle at the top on a black background", ("a black background", "a red circle at the top")),
        ("A big red disc", ("", "a large red circle")),
        (
            "a small red circle left of an orange ring on white",
            ("a white background", "a small red circle", "an orange ring"),
        ),
        (
            "a red circle above a large blue ring below a pink cross",
            ("", "a red circle", "a large blue ring", "a pink cross"),
        ),
        ("", ()),
    ],
)
def test_the_layers_that_a_prompt_asks_for(text, parts):
    assert parts_of(text) == parts
    assert tuple(map(part_of, parts)) == parts


def test_what_is_no_prompt_has_no_layers():
    for text in ("a white background", "a red hexagon"):
        with pytest.raises(InvalidInput):
            parts_of(text)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("a red circle", "a blue square"), "part 0 is 'a red circle', an object, expected a background"),
        (("", "a red circle", "on black"), "part 2 is 'on black', a background, expected an object"),
        (("a white background", "a red hexagon"), "hexagon"),
    ],
)
def test_the_background_is_the_first_part_and_no_other(parts, said):
    with pytest.raises(InvalidInput, match=said):
        check_parts(parts)


@pytest.mark.parametrize(
    "parts", [(), ("", ""), ("a plain white background", "a red circle"), ("on gray", "", "the blue ring")]
)
def test_parts_in_their_places_are_taken(parts):
    check_parts(parts)
