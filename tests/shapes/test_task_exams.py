"""The exams of tasks other than drawing: what is asked, and what counts as right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from zoo.io.artifacts import Image
from zoo.io.text import Text
from zoo.shapes import HELD_OUT, Item, Scene, render
from zoo.shapes.instructions import KINDS, apply, parse_instruction
from zoo.shapes.questions import DESCRIBE, description_of
from zoo.shapes.task_exams import EXAMS, ONE_OBJECT, ROUND_TRIP, TaskQuestion, round_trip_questions

ITEM = Item("circle", "red", "large", (0, 1))
SCENE = Scene("white", (ITEM, Item("ring", "blue", "small", (2, 2))))


@pytest.mark.parametrize("task", EXAMS)
def test_questions_are_a_function_of_the_seed_with_a_quarter_held_out(task: str) -> None:
    exam = EXAMS[task]
    questions = exam.questions(8, 3, HELD_OUT)
    assert questions == exam.questions(8, 3, HELD_OUT) != exam.questions(8, 4, HELD_OUT)
    groups = Counter(question.group for question in questions)
    held_out = Counter(question.group for question in questions if question.held_out)
    for group, count in groups.items():
        assert held_out[group] == (8 if group == ONE_OBJECT else count // 4)
    for question in questions:
        shown = question.given or question.expected
        if isinstance(shown, Scene):
            assert question.held_out == any(item.name in HELD_OUT for item in shown.items)
    assert not any(question.held_out for question in exam.questions(4, 3, ()))


def test_every_kind_of_edit_is_asked_equally_often_and_is_right() -> None:
    questions = EXAMS["image-editing"].questions(6, 0, HELD_OUT)
    assert Counter(question.group for question in questions) == dict.fromkeys(KINDS, 6)
    for question in questions:
        instruction = parse_instruction(question.prompt)
        assert question.given is not None and instruction.kind == question.group
        assert apply(instruction, question.given) == question.expected


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        (SCENE, True),
        (Scene("white", SCENE.items[::-1]), True),
        (replace(SCENE, background="silver"), False),
        (Scene("white", (replace(ITEM, size="small"), SCENE.items[1])), False),
        (Scene("white", (replace(ITEM, cell=(0, 0)), SCENE.items[1])), False),
        (Scene("white", (ITEM,)), False),
    ],
)
def test_pictures_have_to_show_exactly_the_scene(shown: Scene, right: bool) -> None:
    for task in ("image-editing", "reconstruction"):
        question = TaskQuestion("", "any", False, SCENE, SCENE)
        correct, shows = EXAMS[task].mark(question, Image(render(shown, 32)))
        assert correct == right and " on a " in shows


def test_an_unclear_picture_is_wrong() -> None:
    grey = Image(torch.full((3, 32, 32), 0.5))
    for task in ("image-editing", "reconstruction"):
        correct, shows = EXAMS[task].mark(TaskQuestion("", "any", False, SCENE, SCENE), grey)
        assert not correct and shows.startswith("unclear: ")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a large red circle at the top on a white background", True),
        ("a small red circle at the top on a black background", True),
        ("a red circle at the top", True),
        ("a red circle", False),
        ("a red circle at the top left", False),
        ("a pink circle at the top", False),
        ("a red ring at the top", False),
        ("a red circle left of a red ring", False),
        ("circle red", False),
        ("", False),
    ],
)
def test_of_single_objects_colour_shape_and_place_count(text: str, right: bool) -> None:
    scene = Scene("white", (ITEM,))
    question = TaskQuestion(DESCRIBE, ONE_OBJECT, False, description_of(scene), scene)
    assert EXAMS["image-to-text"].mark(question, Text(text)) == (right, text)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a large red circle above a small blue ring on a white background", True),
        ("a small blue ring below a large red circle on a white background", True),
        ("a small blue ring above a large red circle on a white background", False),
        ("a large red circle above a small blue ring", False),
        ("a red circle above a small blue ring on a white background", False),
        ("a large red circle above a small blue ring on a gray background", False),
    ],
)
def test_of_several_objects_everything_counts_but_not_the_order(text: str, right: bool) -> None:
    question = TaskQuestion(DESCRIBE, "two objects", False, description_of(SCENE), SCENE)
    assert EXAMS["image-to-text"].mark(question, Text(text))[0] == right


def test_answers_have_to_be_exact() -> None:
    asked = TaskQuestion("what colour is the circle", "question: colour", False, "red", SCENE)
    told = TaskQuestion("a red circle. how many objects are there", "number", False, "one")
    for task, question, text in (("image-to-text", asked, "red"), ("text-to-text", told, "one")):
        assert EXAMS[task].mark(question, Text(text)) == (True, text)
        assert not EXAMS[task].mark(question, Text(f"{text} "))[0]
        assert not EXAMS[task].mark(question, Text(""))[0]


@pytest.mark.parametrize(
    ("prompt", "said", "right"),
    [
        ("a red circle", "a large red circle at the top on a white background", True),
        ("a red circle", "a large red ring at the top", False),
        ("a red circle", "a red circle left of a blue ring", False),
        ("a red circle above a blue ring", "a large red circle above a small blue ring", True),
        ("a red circle above a blue ring", "a small blue ring below a large red circle", True),
        ("a red circle above a blue ring", "a red circle left of a blue ring", True),
        ("a red circle above a blue ring", "a red circle below a blue ring", False),
        ("a red circle above a blue ring", "a blue ring above a red circle", False),
        ("a red circle above a blue ring", "a blue circle above a red ring", False),
        ("a red circle above a blue ring", "no idea", False),
    ],
)
def test_descriptions_of_drawn_pictures_must_not_contradict_the_prompt(
    prompt: str, said: str, right: bool
) -> None:
    (question,) = round_trip_questions([(prompt, True)])
    assert question.held_out and question.prompt == DESCRIBE
    assert question.group == ("two objects" if "above" in prompt else "one object")
    assert ROUND_TRIP.mark(question, Text(said)) == (right, said)
