"""Questions about pictures and captions: the grammar, the only true answer, and what has none."""

from __future__ import annotations

from collections import Counter

import pytest

from zoo.shapes import Item, Scene, describe, matches, parse, sample_scene
from zoo.shapes.questions import (
    DESCRIBE,
    QuestionError,
    answer_of,
    description_of,
    in_reading_order,
    parse_question,
    parse_text_question,
    questions_about,
    text_answer_of,
    text_questions_about,
)
from zoo.shapes.vocabularies import task_vocabulary

SCENE = Scene(
    "gray",
    (
        Item("square", "blue", "large", (2, 2)),
        Item("circle", "red", "small", (0, 0)),
        Item("ring", "red", "small", (0, 2)),
    ),
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what colour is the square", "blue"),
        ("what colour is the large square", "blue"),
        ("what colour is the background", "gray"),
        ("what size is the red circle", "small"),
        ("where is the blue square", "at the bottom right"),
        ("what shape is at the top right", "ring"),
        ("what is left of the red ring", "a red circle"),
        ("what is above the blue square", None),
        ("how many objects are there", "three"),
        (
            DESCRIBE,
            "a small red circle left of a small red ring above a large blue square on a gray background",
        ),
    ],
)
def test_answers(question: str, answer: str | None) -> None:
    asked = parse_question(question)
    assert str(asked) == question
    if answer is not None:
        assert answer_of(asked, SCENE) == answer
    else:
        with pytest.raises(QuestionError, match="there are 2 such objects"):
            answer_of(asked, SCENE)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("where is the red cross", "the red cross is not one object"),
        ("what size is the small circle", None),
        ("what shape is in the centre", "there are 0 such objects"),
        ("what is below the blue square", "there are 0 such objects"),
    ],
)
def test_what_has_no_answer(question: str, reason: str | None) -> None:
    if reason is None:
        assert answer_of(parse_question(question), SCENE) == "small"
        return
    with pytest.raises(QuestionError, match=reason):
        answer_of(parse_question(question), SCENE)


@pytest.mark.parametrize("text", ["", "what", "what colour is red circle", "where is the red", "is it red"])
def test_other_texts_are_no_questions(text: str) -> None:
    with pytest.raises(QuestionError, match="not a question: "):
        parse_question(text)


def test_descriptions_are_in_reading_order_and_true() -> None:
    for seed in range(300):
        scene = sample_scene(seed)
        said = parse(description_of(scene))
        assert matches(said, scene)
        assert said == describe(in_reading_order(scene))
        shuffled = Scene(scene.background, scene.items[::-1])
        assert description_of(shuffled) == str(said), "nobody sees in which order objects were listed"


def test_every_question_about_a_scene_has_one_answer_in_known_words() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(300):
        scene = sample_scene(seed)
        for question in questions_about(scene):
            answer = answer_of(question, scene)
            kinds[question.about] += 1
            assert parse_question(str(question)) == question
            assert {*str(question).split(), *answer.split()} <= set(task_vocabulary())
    assert set(kinds) == {"all", "colour", "background", "size", "place", "shape", "relation", "number"}
    assert min(kinds.values()) >= 150


def test_relations_are_asked_only_where_one_object_answers() -> None:
    asked = {str(question) for question in questions_about(SCENE)}
    assert "what is left of the red ring" in asked and "what is below the red ring" in asked
    assert "what is above the blue square" not in asked and "what is left of the red circle" not in asked


# Texts

CAPTION = "a small red circle left of a blue square on a gray background"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"{CAPTION}. what colour is the square", "blue"),
        (f"{CAPTION}. what is left of the blue square", "a red circle"),
        (f"{CAPTION}. what is right of the red circle", "a blue square"),
        (f"{CAPTION}. how many objects are there", "two"),
        (f"{CAPTION}. what colour is the background", "gray"),
        (
            f"say it from the square: {CAPTION}",
            "a blue square right of a small red circle on a gray background",
        ),
        ("say it from the ring: a red cross above a red ring", "a red ring below a red cross"),
    ],
)
def test_what_captions_answer(text: str, answer: str) -> None:
    asked = parse_text_question(text)
    assert str(asked) == text and text_answer_of(asked) == answer
    assert parse_text_question(text.replace(".", "").replace(":", " ").upper() + "?") == asked


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a red circle. what colour is the background", "does not say its background"),
        ("a red circle. what is left of the red circle", "does not say what is left of the red circle"),
        ("a red circle left of a blue circle. what colour is the circle", "the circle is not one object"),
        ("say it from the circle: a red circle above a blue ring", "the circle is not the second object"),
        ("say it from the ring: a red ring", "names 1 objects, expected two"),
    ],
)
def test_texts_without_an_answer(text: str, reason: str) -> None:
    with pytest.raises(QuestionError, match=reason):
        text_answer_of(parse_text_question(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a red circle", "expected a caption and a question"),
        ("what colour is the circle", "not a caption"),
        ("a red circle. where is the red circle", "a caption does not answer"),
        ("say it from the ring: hello", "unknown in captions"),
    ],
)
def test_other_texts_cannot_be_answered(text: str, reason: str) -> None:
    with pytest.raises(QuestionError, match=reason):
        parse_text_question(text)


def test_every_text_about_a_caption_has_an_answer() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(300):
        for asked in text_questions_about(describe(sample_scene(seed), background=seed % 2 == 0)):
            assert parse_text_question(str(asked)) == asked
            assert set(text_answer_of(asked).split()) <= set(task_vocabulary())
            kinds["from" if asked.question is None else asked.question.about] += 1
    assert set(kinds) == {"colour", "relation", "number", "background", "from"}


def test_saying_it_from_the_other_side_twice_is_the_same() -> None:
    said = describe(sample_scene(1, (2,)))
    turned = [text for text in text_questions_about(said) if text.start is not None]
    back = [text for text in text_questions_about(parse(text_answer_of(turned[0]))) if text.start is not None]
    assert text_answer_of(back[0]) == str(said)
