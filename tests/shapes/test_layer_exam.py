"""What models of layers are asked for, and how layers are marked whose truth is known."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from layered_truth import (
    emptied,
    layered,
    over_grey,
    painted_into,
    redrawn,
    reordered,
    scene_of,
    shifted_masks,
    true_layers,
)

from zoo.errors import InvalidInput
from zoo.shapes import BACKGROUNDS, CLASSES, HELD_OUT, layers, parse
from zoo.shapes.captions import RELATIONS
from zoo.shapes.layer_exam import LayeredAnswer, LayerQuestion, layer_questions, mark_layers

PAIR = LayerQuestion(
    "a red circle left of a blue square on a white background",
    ("a white background", "a red circle", "a blue square"),
    ("red circle", "blue square"),
    False,
    "white",
    ("left of",),
)
TRUTH = true_layers(scene_of(PAIR.prompt))


def mark(image, question=PAIR) -> LayeredAnswer:
    return mark_layers(image, question, 7)


def ious(answer: LayeredAnswer) -> list[float | None]:
    return [layer.mask_iou for layer in answer.marks]


def right(answer: LayeredAnswer) -> list[bool]:
    return [layer.correct for layer in answer.marks]


# Questions


@pytest.mark.parametrize(("objects", "count"), [(1, 160), (2, 160), (3, 80)])
def test_questions_say_what_is_noted_of_them(objects, count):
    questions = layer_questions(objects, count, 0, HELD_OUT)
    assert len(questions) == count
    for question in questions:
        said = parse(question.prompt)
        assert tuple(f"{m.colour} {m.shape}" for m in said.objects) == question.names
        assert (said.relations, said.background) == (question.relations, question.background)
        assert said.cell is None and all(mention.size is None for mention in said.objects)
        assert question.parts[0] == f"a {question.background} background"
        assert [parse(part).objects for part in question.parts[1:]] == [(m,) for m in said.objects]
        assert question.layers == 1 + objects == 1 + len(set(question.names))
        assert question.held_out == bool({*question.names} & {*HELD_OUT})


@pytest.mark.parametrize(("objects", "count", "new"), [(1, 160, 40), (2, 160, 40), (3, 80, 20), (2, 7, 1)])
def test_a_quarter_is_held_out_and_comes_last(objects, count, new):
    questions = layer_questions(objects, count, 0, HELD_OUT)
    assert [question.held_out for question in questions] == [False] * (count - new) + [True] * new
    assert not any(question.held_out for question in layer_questions(objects, count, 0, ()))
    assert all(question.held_out for question in layer_questions(objects, count, 0, CLASSES))


def test_everything_is_asked_for_equally_often():
    singles = layer_questions(1, 160, 0, HELD_OUT)
    assert set(Counter(question.names for question in singles[:120]).values()) == {3}
    assert set(Counter(question.names for question in singles[120:]).values()) == {5}
    for objects, chains in ((2, 4), (3, 16)):
        questions = layer_questions(objects, 160, 0, HELD_OUT)
        told = Counter(question.relations for question in questions)
        assert len(told) == chains and set(told.values()) == {160 // chains}
        assert {relation for chain in told for relation in chain} == set(RELATIONS)
        assert len({question.names for question in questions}) == 160
    behind = Counter(question.background for question in singles)
    assert set(behind) == set(BACKGROUNDS) and set(behind.values()) == {40}


def test_questions_are_a_function_of_number_and_seed():
    assert layer_questions(2, 40, 1, HELD_OUT) == layer_questions(2, 40, 1, frozenset(reversed(HELD_OUT)))
    assert layer_questions(2, 40, 1, HELD_OUT) != layer_questions(2, 40, 2, HELD_OUT)
    assert layer_questions(2, 0, 1, HELD_OUT) == []


def test_every_question_has_an_answer_that_is_right():
    for objects in (1, 2, 3):
        for question in layer_questions(objects, 16, 5, HELD_OUT)[::3]:
            answer = mark(true_layers(scene_of(question.prompt)), question)
            assert answer.exact and answer.agrees and answer.background
            assert ious(answer) == [1.0] * objects and answer.surplus == 0


# Marks


def test_what_is_told_of_a_right_answer():
    answer = mark(TRUTH)
    assert (answer.question, answer.seed) == (PAIR, 7)
    assert answer.shows == "a small red circle left of a large blue square on a white background"
    assert [layer.part for layer in answer.marks] == ["a red circle", "a blue square"]
    assert [layer.shows for layer in answer.marks] == [
        "a small red circle at the top left on a gray background",
        "a large blue square at the top on a gray background",
    ]


@pytest.mark.parametrize("background", list(BACKGROUNDS))
@pytest.mark.parametrize("side", [32, 64])
def test_layers_are_read_on_neutral_grey_whatever_the_background(background, side):
    prompt = f"a purple ring above a green cross on a {background} background"
    parts = (f"a {background} background", "a purple ring", "a green cross")
    question = LayerQuestion(prompt, parts, ("purple ring", "green cross"), True, background, ("above",))
    answer = mark(true_layers(scene_of(prompt), side), question)
    assert answer.exact and answer.agrees and answer.background and ious(answer) == [1.0, 1.0]
    assert all(layer.shows.endswith("on a gray background") for layer in answer.marks)


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_masks_beside_their_objects_have_the_overlap_that_they_have(pixels):
    expected = []
    for mask in (layer.pixels[3] > 0.5 for layer in TRUTH.layers[1:]):
        moved = mask.roll(pixels, dims=1)
        expected.append(float((mask & moved).sum() / (mask | moved).sum()))
    answer = mark(shifted_masks(TRUTH, pixels))
    assert ious(answer) == pytest.approx(expected) and max(expected) < 0.9 and min(expected) > 0.3
    # The colour goes on behind the mask, so that what can be seen is the object all the same.
    assert right(answer) == [True, True] and answer.agrees


def test_swapped_layers_are_wrong_and_make_the_right_picture():
    answer = mark(reordered(TRUTH, 0, 2, 1))
    assert right(answer) == [False, False] and not answer.exact
    assert ious(answer) == [1.0, 1.0] and answer.agrees and answer.background


def test_an_object_that_is_left_out():
    answer = mark(emptied(TRUTH, 2))
    assert right(answer) == [True, False] and ious(answer) == [1.0, 0.0]
    assert answer.marks[1].shows == "unclear: the picture holds no object"
    assert not answer.exact and not answer.agrees
    assert answer.shows == "a small red circle at the top left on a white background"


def test_two_objects_in_one_layer():
    answer = mark(painted_into(TRUTH, 1, 2))
    assert right(answer) == [False, True] and ious(answer) == [0.0, 1.0]
    assert not answer.exact and answer.agrees


def test_a_layer_with_surroundings_of_its_own_shows_no_object_alone():
    rgba = TRUTH.layers[1].pixels.clone()
    rgba[:3] = rgba[:3] * rgba[3] + (1.0 - rgba[3])
    rgba[3] = 1.0
    answer = mark(redrawn(TRUTH, 1, rgba))
    assert answer.marks[0].shows == "a small red circle at the top left on a white background"
    assert right(answer) == [False, True]
    # The mask is the whole layer, of which the object is a small part.
    assert 0.0 < ious(answer)[0] < 0.06


def test_layers_that_are_missing_or_that_nobody_asked_for():
    missing = mark(reordered(TRUTH, 0, 1))
    assert right(missing) == [True, False] and ious(missing) == [1.0, 0.0]
    assert missing.marks[1].shows == "no layer" and missing.surplus == 0 and not missing.exact
    surplus = mark(reordered(TRUTH, 0, 1, 2, 2))
    assert right(surplus) == [True, True] and surplus.surplus == 1
    assert not surplus.exact and surplus.agrees


def test_a_background_layer_shows_its_background_and_nothing_else():
    behind = TRUTH.layers[0].pixels
    assert mark(TRUTH).background
    for colour, name in ((0.75, "silver"), (0.0, "black")):
        assert not mark(redrawn(TRUTH, 0, behind * colour)).background, name
    assert mark(redrawn(TRUTH, 0, behind * 0.95)).background
    assert not mark(painted_into(TRUTH, 0, 1)).background
    see_through = behind.clone()
    see_through[3] = 0.4
    assert not mark(redrawn(TRUTH, 0, see_through)).background


def test_layers_are_judged_where_they_stand():
    away = mark(TRUTH.moved(1, 0, 18))
    assert away.marks[0].shows == "a small red circle at the bottom left on a gray background"
    assert right(away) == [True, True] and ious(away) == [0.0, 1.0] and away.agrees
    outside = mark(TRUTH.moved(1, 40, 0))
    assert right(outside) == [False, True] and not outside.agrees
    hidden = mark(TRUTH.with_layer(1, visible=False))
    assert right(hidden) == [False, True] and ious(hidden) == [0.0, 1.0]
    faint = mark(TRUTH.with_layer(1, opacity=0.3))
    assert not right(faint)[0] and ious(faint) == [0.0, 1.0]


def test_without_the_pictures_before_the_masks_nobody_knows_how_masks_fit():
    answer = mark(dataclasses.replace(TRUTH, drawn=None))
    assert ious(answer) == [None, None] and answer.exact and answer.agrees


def test_values_that_are_no_numbers_are_wrong():
    rgba = TRUTH.layers[2].pixels.clone()
    rgba[:, 3, 3] = torch.nan
    answer = mark(redrawn(TRUTH, 2, rgba))
    assert right(answer) == [True, False] and ious(answer) == [1.0, 0.0]
    assert not answer.agrees and "not finite" in answer.shows and "not finite" in answer.marks[1].shows


def test_pictures_that_nobody_can_judge():
    rgba = layers(scene_of(PAIR.prompt), 16)
    with pytest.raises(InvalidInput, match="cannot be judged: expected at least 24 pixels"):
        mark(layered(rgba, over_grey(rgba)))
