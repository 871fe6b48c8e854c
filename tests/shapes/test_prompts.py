"""Prompts: what users write means the caption that they meant, or the error says what to write instead."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from zoo.errors import ExitCode, InvalidInput
from zoo.shapes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    Description,
    Mention,
    describe,
    parse,
    sample_scene,
    vocabulary,
)
from zoo.shapes.captions import POSITIONS, RELATIONS
from zoo.shapes.prompts import caption_of, unknown_words


def any_description(rng: random.Random) -> Description:
    """Any sentence of the grammar, also of scenes that nobody would draw."""
    count = rng.choice([1, 2, 3])
    objects = tuple(
        Mention(rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice([None, *SIZES]))
        for _ in range(count)
    )
    relations = tuple(rng.choice(list(RELATIONS)) for _ in range(count - 1))
    cell = rng.choice([None, *POSITIONS.values()]) if count == 1 else None
    return Description(objects, relations, cell, rng.choice([None, *BACKGROUNDS]))


def refusal(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        caption_of(text)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value


# Captions stay


@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_captions_of_scenes_mean_themselves(position: bool, background: bool) -> None:
    for seed in range(400):
        said = describe(sample_scene(seed), position=position, background=background)
        sizes = random.Random(seed).choices([True, False], k=3)
        objects = [m if kept else replace(m, size=None) for m, kept in zip(said.objects, sizes, strict=False)]
        text = str(replace(said, objects=tuple(objects)))
        assert caption_of(text) == text


def test_every_sentence_of_the_grammar_means_itself() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = str(any_description(rng))
        assert caption_of(text) == text


# Captions written with less care

CARELESS = {
    "gray": ["gray", "grey", "GREY"],
    "centre": ["center", "middle", "centre", "Middle"],
    "large": ["big", "large"],
    "small": ["little", "Small"],
    "left of": ["left of", "to the left of", "to left of", "on the left of", "is to the left of", "Left-of"],
    "right of": ["right of", "to the right of", "on the right side of", "that is right of"],
    "above": ["above", "over", "on top of", "which is above"],
    "below": ["below", "under", "beneath", "underneath"],
    "top": ["top", "upper"],
    "bottom": ["lower", "bottom"],
    "circle": ["disc", "circle", "disk"],
    "diamond": ["rhombus", "diamond"],
}
LEADS = [
    "",
    "",
    "a picture of ",
    "An image of ",
    "the photo of ",
    "drawing of ",
    "Draw ",
    "There is ",
    "Show me ",
]


def carelessly(said: Description, rng: random.Random) -> str:
    """The description in the words of someone who has not read the grammar."""

    def say(words: str) -> str:
        return rng.choice(CARELESS.get(words, [words]))

    def thing(mention: Mention) -> str:
        words = [say(word) for word in (mention.size, mention.colour, mention.shape) if word]
        article = rng.choice(["", "a ", "an ", "the ", "A "])
        return article + " ".join(words)

    parts = [thing(said.objects[0])]
    for relation, mention in zip(said.relations, said.objects[1:], strict=True):
        parts += [say(relation), thing(mention)]
    for name, cell in POSITIONS.items():
        if cell == said.cell:
            place = " ".join(say(word) for word in name.split()[2:])
            parts.append(rng.choice(["at ", "in ", "at the ", "in the ", "on the ", ""]) + place)
    if said.background:
        shown = say(said.background)
        ways = [f"on {shown}", f"on a {shown} background", f"on the {shown} background"]
        parts.append(rng.choice([*ways, f"with a {shown} background", f"{shown} background"]))
    text = rng.choice(LEADS) + rng.choice([" ", ", ", "  "]).join(parts) + rng.choice(["", ".", "!", " "])
    return rng.choice([text, text.capitalize(), text.upper()])


def test_careless_spellings_mean_the_caption() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        said = any_description(rng)
        text = carelessly(said, rng)
        assert caption_of(text) == str(said), text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("red circle", "a red circle"),
        ("A red circle.", "a red circle"),
        ("one red circle", "a red circle"),
        ("red_circle", "a red circle"),
        ("orange ring", "an orange ring"),
        ("the orange ring", "an orange ring"),
        ("a orange ring", "an orange ring"),
        ("an red ring", "a red ring"),
        ("a red big circle", "a large red circle"),
        ("a red coloured disc", "a red circle"),
        ("red circle on white", "a red circle on a white background"),
        ("red circle on grey", "a red circle on a gray background"),
        ("red circle, black background", "a red circle on a black background"),
        ("a red circle against black", "a red circle on a black background"),
        ("a red circle over a plain white background", "a red circle on a white background"),
        ("a red circle in front of a silver background", "a red circle on a silver background"),
        ("on black, a red circle", "a red circle on a black background"),
        (
            "white background, a red circle above a blue ring",
            "a red circle above a blue ring on a white background",
        ),
        ("a red circle on black at the top", "a red circle at the top on a black background"),
        ("red circle in the middle", "a red circle in the centre"),
        ("a red circle centered on a white background", "a red circle in the centre on a white background"),
        ("a red circle in the center of the picture", "a red circle in the centre"),
        ("a red circle at top left", "a red circle at the top left"),
        ("a red circle in the top left", "a red circle at the top left"),
        ("a red circle in the top-left corner", "a red circle at the top left"),
        ("a red circle in the upper right corner of the image", "a red circle at the top right"),
        ("a red circle, lower left", "a red circle at the bottom left"),
        ("a red circle left bottom", "a red circle at the bottom left"),
        ("a red circle, bottom center", "a red circle at the bottom"),
        ("a red circle, center left", "a red circle at the left"),
        ("a red circle on the left", "a red circle at the left"),
        ("a red circle to the right", "a red circle at the right"),
        ("a red circle on the right hand side", "a red circle at the right"),
        ("a red circle at the bottom edge of the canvas", "a red circle at the bottom"),
        ("a red circle on top", "a red circle at the top"),
        ("a centered red circle", "a red circle in the centre"),
        ("at the top left, a red circle on black", "a red circle at the top left on a black background"),
        ("red circle left of a blue square", "a red circle left of a blue square"),
        ("a red circle on the left side of the blue square", "a red circle left of a blue square"),
        ("a red circle at the left of a blue square", "a red circle left of a blue square"),
        ("the red circle is to the right of the orange ring", "a red circle right of an orange ring"),
        ("a red circle over a blue square", "a red circle above a blue square"),
        ("a red circle on top of a blue square", "a red circle above a blue square"),
        ("a red circle under a blue square", "a red circle below a blue square"),
        (
            "A red circle, left of a blue square, which is above a green ring.",
            "a red circle left of a blue square above a green ring",
        ),
        ("Please draw me a picture of a red circle!", "a red circle"),
        ("there is a red circle", "a red circle"),
    ],
)
def test_what_users_write(text: str, meant: str) -> None:
    assert caption_of(text) == meant


@pytest.mark.parametrize("text", ["", "  ", "\n", "...", " , "])
def test_no_words_ask_for_anything(text: str) -> None:
    assert caption_of(text) == ""


# Nothing is guessed

THINGS = [
    "red circle",
    "a large blue square",
    "an orange ring",
    "the small green cross",
    "circle",
    "green ring",
]
LINKS = [
    *(
        "left of",
        "to the right of",
        "above",
        "under",
        "on top of",
        "left",
        "top left corner",
        "in the middle",
    ),
    *(
        "on",
        "on black",
        "with white background",
        "on grey",
        "background",
        "at",
        "in",
        "of",
        "the",
        "a",
        "top",
    ),
    *("is", "side", "on the left", "center", "small", "white"),
]
SPELLINGS = {"grey": "gray", "under": "below", "on top of": "above", "center": "centre", "middle": "centre"}
CONTENT = {*COLOURS, *SHAPES, *SIZES, *BACKGROUNDS, "above", "below"}


def content(text: str) -> list[str]:
    """The words for objects and backgrounds, and the relations that are words."""
    return sorted(word for word in text.split() if word in CONTENT)


def test_an_accepted_prompt_keeps_what_it_says_about_objects() -> None:
    rng, accepted = random.Random(2), set()
    for _ in range(8000):
        pieces = [rng.choice(THINGS if rng.random() < 0.45 else LINKS) for _ in range(rng.randint(1, 5))]
        text = " ".join(pieces)
        try:
            meant = caption_of(text)
        except InvalidInput as error:
            assert error.message and error.hint
            continue
        accepted.add(meant)
        for other, usual in SPELLINGS.items():
            text = text.replace(other, usual)
        assert str(parse(meant)) == meant == caption_of(meant)
        assert content(meant) == content(text), text
        for word in ("left", "right"):
            assert meant.count(f"{word} of") <= text.count(f"{word} of") + text.count("left side"), text
        for word in ("top", "left", "centre"):
            assert meant.count(word) <= text.count(word), text
    assert len(accepted) > 100


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("a red hexagon", "the word 'hexagon'"),
        ("two red circles", "the words 'two', 'circles'"),
        ("a red circle and a blue square", "the word 'and'"),
        ("a red circle next to a blue square", "the words 'next', 'to'"),
        ("a red circle in the corner", "the word 'corner'"),
        ("a red circle inside a blue square", "the word 'inside'"),
        ("no red circle", "the word 'no'"),
        ("a light blue ring", "the word 'light'"),
        ("a HEXAGON above a hexagon", "the word 'hexagon'"),
        ("ein roter Kreis", "the words 'ein', 'roter', 'kreis'"),
        (
            "a cat, a dog, a cow, a pig, a hen, a fox and a rat",
            "the words 'cat', 'dog', 'cow', 'pig', 'hen' and 3 more",
        ),
    ],
)
def test_unknown_words_are_named_and_the_known_ones_listed(text: str, unknown: str) -> None:
    error = refusal(text)
    assert error.message == f"this model does not know {unknown}"
    assert f"It knows: {', '.join(vocabulary())}." in error.hint
    assert "left of, right of, above or below between them" in error.hint
    assert_example_in(error.hint)


def assert_example_in(hint: str) -> None:
    example = hint.rpartition("such as '")[2].removesuffix("'.")
    assert caption_of(example) == example
    assert len(parse(example).objects) == 2


@pytest.mark.parametrize(
    ("text", "meant"),
    [("a red cirlce", "circle"), ("a gren triangel", "green, triangle"), ("two red circles", "circle")],
)
def test_slips_of_the_pen_are_recognised_but_not_corrected(text: str, meant: str) -> None:
    assert refusal(text).hint.startswith(f"Did you mean: {meant}? It knows: ")


def test_the_error_for_a_smaller_vocabulary() -> None:
    error = unknown_words(["ring"], ["a", "red", "circle"])
    assert error.message == "this model does not know the word 'ring'"
    assert error.hint.startswith("It knows: a, red, circle. Name one to three objects")


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ("a circle", "'red'", "'circle'"),
        ("large circle", "'red'", "'circle'"),
        ("a circle left of a square", "'red'", "'circle'"),
        ("circle red", "'red'", "'circle'"),
        ("red", "'circle'", "the end"),
        ("a white circle", "'red'", "'white'"),
        ("a small large red circle", "'red'", "'large'"),
        ("a red circle, a blue square", "'left of'", "'blue'"),
        ("a red circle left a blue square", "'left of'", "'left'"),
        ("a red circle in a blue square", "'below'", "'in'"),
        ("a red circle on a blue square", "'white'", "'blue'"),
        ("a red circle on a blue background", "'white'", "'blue'"),
        ("a red circle with a blue background", "'white'", "'blue'"),
        ("a red circle on a black circle", "'background'", "'circle'"),
        ("a red circle on white on black", "'background'", "'on'"),
        ("a red circle above", "'a'", "the end"),
        ("left of a blue square", "'red'", "'left'"),
        ("white background", "'red'", "'on'"),
        ("the", "'a'", "the end"),
    ],
)
def test_known_words_in_a_wrong_order_say_what_was_expected(text: str, expected: str, got: str) -> None:
    error = refusal(text)
    assert error.message.startswith(f"prompt '{text}' is not a caption: ")
    assert expected in error.message.partition("expected")[2].rpartition(", got ")[0]
    assert error.message.endswith(f", got {got}")
    assert error.hint.startswith("Name one to three objects, each by its colour and shape, with left of, ")
    assert_example_in(error.hint)


@pytest.mark.parametrize("count", [4, 5])
def test_more_than_three_objects_are_refused(count: int) -> None:
    error = refusal(" above ".join(["a red circle"] * count))
    assert error.message.endswith(f"is not a caption: it names {count} objects, expected one to three")
    assert error.hint.startswith("Name one to three objects")


@pytest.mark.parametrize(
    "text",
    [
        "a red circle at the top left above a blue ring",
        "a red circle at top left, a blue ring at bottom right",
        "a red circle above a blue ring in the middle",
        "a red circle to the top left of a blue square",
        "a red circle in the centre left of a blue square",
        "a red circle at the centre, left of a blue square",
        "a red circle on the left, a blue square on the right",
    ],
)
def test_a_place_for_one_of_several_objects_is_refused(text: str) -> None:
    reason = "a place is for an object alone, expected a relation between several"
    assert refusal(text).message == f"prompt '{text}' is not a caption: {reason}"


def test_long_prompts_are_quoted_in_part() -> None:
    error = refusal("a red circle \n" * 400)
    assert error.message.startswith("prompt 'a red circle a red circle ")
    assert " ...' is not a caption: it names 400 objects" in error.message
    assert len(error.message) < 200


def test_prompts_need_no_torch() -> None:
    program = (
        "import sys; from zoo.shapes.prompts import caption_of; "
        "caption_of('red circle'); raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
