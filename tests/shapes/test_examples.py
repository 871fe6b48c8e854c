"""Training examples of all tasks: functions of noise, true, in the shares that were asked for."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from zoo.runtime.noise import BatchNoise
from zoo.shapes import HELD_OUT, matches, parse, vocabulary
from zoo.shapes.examples import DESCRIBED, OBJECTS, Example, drawn_examples
from zoo.shapes.instructions import apply, parse_instruction
from zoo.shapes.questions import (
    answer_of,
    parse_question,
    parse_text_question,
    text_answer_of,
)
from zoo.shapes.vocabularies import task_vocabulary

SHARES = {"text-to-image": 0.45, "image-editing": 0.30, "image-to-text": 0.20, "text-to-text": 0.05}


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return drawn_examples(BatchNoise("examples"), 5000, SHARES)


def of(examples: list[Example], task: str) -> list[Example]:
    return [example for example in examples if example.task == task]


def test_examples_are_a_function_of_noise(examples: list[Example]) -> None:
    assert drawn_examples(BatchNoise("examples"), 5000, SHARES) == examples
    assert drawn_examples(BatchNoise("others"), 50, SHARES) != examples[:50]


def test_tasks_come_in_their_shares(examples: list[Example]) -> None:
    counts = Counter(example.task for example in examples)
    assert {task: counts[task] / len(examples) for task in SHARES} == pytest.approx(SHARES, abs=0.02)
    assert {example.task for example in drawn_examples(BatchNoise(1), 50, {"text-to-text": 1.0})} == {
        "text-to-text"
    }


def test_numbers_of_objects_come_in_their_shares(examples: list[Example]) -> None:
    counts = Counter(len(example.wanted.items) for example in of(examples, "text-to-image") if example.wanted)
    total = sum(counts.values())
    assert [counts[number] / total for number in (1, 2, 3)] == pytest.approx(OBJECTS, abs=0.03)


def test_drawings_are_what_their_captions_say(examples: list[Example]) -> None:
    for example in of(examples, "text-to-image"):
        assert example.wanted is not None and matches(parse(example.prompt), example.wanted)
        assert (example.given, example.answer) == (None, None)


def test_edits_are_what_their_instructions_make(examples: list[Example]) -> None:
    for example in of(examples, "image-editing"):
        assert example.given is not None
        assert apply(parse_instruction(example.prompt), example.given) == example.wanted
        assert example.answer is None


def test_answers_are_true(examples: list[Example]) -> None:
    for example in of(examples, "image-to-text"):
        assert example.given is not None and example.wanted is None
        assert answer_of(parse_question(example.prompt), example.given) == example.answer
    for example in of(examples, "text-to-text"):
        assert text_answer_of(parse_text_question(example.prompt)) == example.answer
        assert (example.given, example.wanted) == (None, None)


def test_half_of_the_questions_ask_for_everything_and_the_rest_for_each_kind(examples: list[Example]) -> None:
    asked = Counter(parse_question(example.prompt).about for example in of(examples, "image-to-text"))
    total = sum(asked.values())
    assert asked["all"] / total == pytest.approx(DESCRIBED, abs=0.05)
    assert min(asked.values()) / total > 0.04 and len(asked) == 8


def test_nothing_that_is_held_out_is_shown_or_said(examples: list[Example]) -> None:
    for example in examples:
        scenes = [scene for scene in (example.given, example.wanted) if scene is not None]
        assert not {item.name for scene in scenes for item in scene.items} & set(HELD_OUT)
        for text in (example.prompt, example.answer or ""):
            for name in HELD_OUT:
                assert name not in text


def test_the_vocabulary_is_what_is_said(examples: list[Example]) -> None:
    said = {
        word
        for example in examples
        for text in (example.prompt, example.answer or "")
        for word in re.findall(r"\w+", text)
    }
    assert said == set(task_vocabulary())
    assert list(task_vocabulary()) == sorted(task_vocabulary()) and set(vocabulary()) < said
