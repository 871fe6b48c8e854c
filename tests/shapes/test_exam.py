"""What models of the shapes world are asked for, and how their pictures are marked."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.shapes import CLASSES, HELD_OUT, Item, Mention, Scene, parse, render
from zoo.shapes.exam import DEFAULT_PAIRS, Question, mark, pair_questions, single_questions

LEFT, MIDDLE, RIGHT = (1, 0), (1, 1), (1, 2)


def picture(*objects: tuple[str, tuple[int, int]], side: int = 32) -> Image:
    items = []
    for name, cell in objects:
        colour, shape = name.split()
        items.append(Item(shape, colour, "small", cell))
    return Image(render(Scene("white", tuple(items)), side))


def relations(questions: list[Question]) -> dict[str | None, int]:
    return dict(Counter(question.relation for question in questions))


# Single objects


def test_single_objects_come_one_after_the_other():
    questions = single_questions(["red circle", "orange ring"], 2, {"orange ring"})
    assert questions == [
        *[Question("a red circle", ("red circle",), False)] * 2,
        *[Question("an orange ring", ("orange ring",), True)] * 2,
    ]
    assert not any(question.is_pair for question in questions)


# Two objects


def test_as_many_pairs_as_the_figures_need():
    questions = pair_questions(DEFAULT_PAIRS, 0, HELD_OUT)
    seen, held_out = questions[:240], questions[240:]
    assert not any(question.held_out for question in seen) and all(q.held_out for q in held_out)
    assert len(held_out) == 80
    assert relations(seen) == dict.fromkeys(("left of", "right of", "above", "below"), 60)
    assert relations(held_out) == dict.fromkeys(("left of", "right of", "above", "below"), 20)
    assert len({question.prompt for question in questions}) == DEFAULT_PAIRS


def test_prompts_say_what_is_noted_of_them_and_no_more():
    for question in pair_questions(DEFAULT_PAIRS, 3, HELD_OUT):
        said = parse(question.prompt)
        assert tuple(f"{mention.colour} {mention.shape}" for mention in said.objects) == question.names
        assert said.relations == (question.relation,)
        assert len(set(question.names)) == 2
        assert question.held_out == bool({*question.names} & {*HELD_OUT})
        assert all(mention == Mention(mention.shape, mention.colour) for mention in said.objects)
        assert (said.cell, said.background) == (None, None)


def test_every_combination_is_met():
    questions = pair_questions(DEFAULT_PAIRS, 0, HELD_OUT)
    assert {name for question in questions for name in question.names} == set(CLASSES)


def test_pairs_are_a_function_of_number_and_seed():
    assert pair_questions(40, 1, HELD_OUT) == pair_questions(40, 1, HELD_OUT)
    assert pair_questions(40, 1, HELD_OUT) != pair_questions(40, 2, HELD_OUT)
    # The order in which a recipe names its combinations does not count.
    assert pair_questions(40, 1, HELD_OUT) == pair_questions(40, 1, frozenset(reversed(HELD_OUT)))


@pytest.mark.parametrize(
    ("count", "held_out"), [(0, 0), (1, 0), (3, 0), (4, 1), (5, 1), (7, 1), (10, 2), (42, 10)]
)
def test_a_quarter_is_held_out_and_relations_stay_balanced(count, held_out):
    questions = pair_questions(count, 0, HELD_OUT)
    assert (len(questions), sum(question.held_out for question in questions)) == (count, held_out)
    for part in (questions, questions[: count - held_out], questions[count - held_out :]):
        counts = [relations(part).get(name, 0) for name in ("left of", "right of", "above", "below")]
        assert max(counts) - min(counts) <= 1


def test_without_held_out_combinations_all_are_seen():
    assert not any(question.held_out for question in pair_questions(80, 0, ()))


def test_where_training_showed_no_pair_all_are_held_out():
    assert all(question.held_out for question in pair_questions(8, 0, CLASSES))


def test_more_prompts_than_there_are():
    # With all but two combinations held out there are two seen pairs, in either order.
    questions = pair_questions(64, 0, CLASSES[2:])
    seen = Counter(question.prompt for question in questions if not question.held_out)
    assert len(seen) == 8 and set(seen.values()) == {6}


# Marks


@pytest.mark.parametrize(
    ("prompt", "objects", "correct"),
    [
        ("a red circle", [("red circle", MIDDLE)], True),
        ("a red circle", [("red square", MIDDLE)], False),
        ("a red circle", [("red circle", LEFT), ("blue ring", RIGHT)], False),
        ("a red circle left of a blue ring", [("red circle", LEFT), ("blue ring", RIGHT)], True),
        ("a red circle left of a blue ring", [("red circle", RIGHT), ("blue ring", LEFT)], False),
        ("a red circle above a blue ring", [("red circle", LEFT), ("blue ring", RIGHT)], False),
        ("a red circle left of a blue ring", [("red circle", LEFT)], False),
        ("a red circle left of a blue ring", [("blue circle", LEFT), ("red ring", RIGHT)], False),
    ],
)
def test_marks(prompt, objects, correct):
    question = Question(prompt, ("red circle",), False)
    assert mark(picture(*objects), question, 7).correct is correct


def test_an_answer_tells_what_was_seen():
    question = Question("a red circle", ("red circle",), False)
    answer = mark(picture(("blue ring", LEFT)), question, 7)
    assert (answer.question, answer.seed) == (question, 7)
    assert answer.shows == "a small blue ring at the left on a white background"
    empty = mark(Image(torch.full((3, 32, 32), 0.5)), question, 8)
    assert (empty.correct, empty.shows) == (False, "unclear: the picture holds no object")


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 32, 48), (1, 32, 32)])
def test_pictures_that_nobody_can_judge(shape):
    with pytest.raises(InvalidInput, match="cannot be judged: expected"):
        mark(Image(torch.zeros(shape)), Question("a red circle", ("red circle",), False), 0)
