"""Instructions: the grammar and its inverse, what each makes of a scene, and what is refused."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from zoo.shapes import BACKGROUNDS, CLASSES, HELD_OUT, SEEN, Item, Scene, judge, render, sample_scene
from zoo.shapes.instructions import (
    KINDS,
    Instruction,
    InstructionError,
    apply,
    draw_instruction,
    parse_instruction,
)
from zoo.shapes.naming import Name
from zoo.shapes.task_exams import contents

RED_CIRCLE = Item("circle", "red", "small", (1, 1), (0.01, -0.02))
BLUE_SQUARE = Item("square", "blue", "large", (0, 2))
ORANGE_CIRCLE = Item("circle", "orange", "large", (2, 0))
SCENE = Scene("white", (RED_CIRCLE, BLUE_SQUARE, ORANGE_CIRCLE))


def after(text: str, scene: Scene = SCENE) -> Scene:
    return apply(parse_instruction(text), scene)


# What an instruction makes of a scene


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("make the red circle pink", replace(RED_CIRCLE, colour="pink")),
        ("make the small circle pink", replace(RED_CIRCLE, colour="pink")),
        ("make the red circle large", replace(RED_CIRCLE, size="large")),
        ("turn the red circle into a ring", replace(RED_CIRCLE, shape="ring")),
        ("move the red circle to the top left", replace(RED_CIRCLE, cell=(0, 0))),
        ("move the red circle to the bottom", replace(RED_CIRCLE, cell=(2, 1))),
    ],
)
def test_one_object_changes_and_keeps_its_place_in_the_order(text: str, changed: Item) -> None:
    assert after(text) == Scene("white", (changed, BLUE_SQUARE, ORANGE_CIRCLE))


def test_an_object_goes_and_the_background_changes() -> None:
    assert after("remove the square") == Scene("white", (RED_CIRCLE, ORANGE_CIRCLE))
    assert after("make the background black") == replace(SCENE, background="black")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("make the circle pink", "the circle is meant to be one object of the scene, and fits 2"),
        ("remove the green ring", "the green ring is meant to be one object of the scene, and fits 0"),
        ("make the red circle red", "the red circle would stay as it is"),
        ("make the square large", "the square would stay as it is"),
        ("move the square to the top right", "the square would stay as it is"),
        ("move the square to the centre", "the red circle stands where the square would"),
        ("make the red circle orange", "there is an orange circle already"),
        ("make the background white", "the background is white already"),
    ],
)
def test_what_a_scene_does_not_allow(text: str, reason: str) -> None:
    with pytest.raises(InstructionError) as caught:
        after(text)
    assert str(caught.value) == reason


def test_the_last_object_stays() -> None:
    with pytest.raises(InstructionError, match="a scene holds at least one"):
        after("remove the circle", Scene("white", (RED_CIRCLE,)))


# The grammar


@pytest.mark.parametrize(
    ("text", "instruction"),
    [
        ("make the red circle blue", Instruction("recolour", Name("circle", "red"), "blue")),
        ("make the small red circle large", Instruction("resize", Name("circle", "red", "small"), "large")),
        ("turn the circle into a square", Instruction("reshape", Name("circle"), "square")),
        ("move the ring to the left", Instruction("move", Name("ring"), "left")),
        ("remove the large ring", Instruction("remove", Name("ring", None, "large"), None)),
        ("make the background gray", Instruction("background", None, "gray")),
    ],
)
def test_texts_and_instructions_are_the_same(text: str, instruction: Instruction) -> None:
    assert parse_instruction(text) == instruction and str(instruction) == text
    assert parse_instruction(f"  {text.upper()} ") == instruction


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "paint the circle",
            "not an instruction: at the start, expected one of 'make the background', 'make',",
        ),
        ("make the circle", "after 'make the circle', expected one of 'red', 'orange',"),
        ("make the circle white", "got 'white'"),
        ("turn the circle into an square", "after 'turn the circle into an', expected one of"),
        (
            "move the circle to the top of",
            "after 'move the circle to the top', expected one of the end, got 'of'",
        ),
        ("remove", "after 'remove', expected one of 'the', got the end"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InstructionError) as caught:
        parse_instruction(text)
    assert message in str(caught.value)


# Drawn instructions


def drawn(seed: int, classes: tuple[str, ...] = CLASSES) -> tuple[Scene, Instruction]:
    scene = sample_scene(seed, classes=classes)
    return scene, draw_instruction(scene, random.Random(seed), classes)


def test_drawn_instructions_are_allowed_and_change_one_thing() -> None:
    for seed in range(1500):
        scene, instruction = drawn(seed)
        assert parse_instruction(str(instruction)) == instruction
        changed = apply(instruction, scene)
        assert contents(changed) != contents(scene)
        assert len({item.name for item in changed.items}) == len(changed.items)
        before, now = set(scene.items), set(changed.items)
        assert len(before - now) == (0 if instruction.kind == "background" else 1)
        assert (changed.background != scene.background) == (instruction.kind == "background")


def test_every_kind_is_drawn_about_as_often_as_it_should() -> None:
    counts = Counter(drawn(seed)[1].kind for seed in range(3000) if len(sample_scene(seed).items) > 1)
    total = sum(counts.values())
    assert {kind: counts[kind] / total for kind in KINDS} == pytest.approx(KINDS, abs=0.03)
    assert sum(KINDS.values()) == pytest.approx(1.0)


def test_results_stay_among_the_allowed_combinations() -> None:
    for seed in range(1500):
        scene, instruction = drawn(seed, SEEN)
        assert not {item.name for item in apply(instruction, scene).items} & set(HELD_OUT)


def test_a_kind_can_be_asked_for() -> None:
    rng = random.Random(0)
    for kind in KINDS:
        scene = sample_scene(7, (2,))
        assert draw_instruction(scene, rng, CLASSES, kind).kind == kind
    with pytest.raises(InstructionError, match="allows no instruction of the kind remove"):
        draw_instruction(sample_scene(7, (1,)), rng, CLASSES, "remove")


def test_names_are_mostly_short_and_sometimes_tell_the_size() -> None:
    names = [instruction.name for _, instruction in map(drawn, range(2000)) if instruction.name]
    sized = sum(name.size is not None for name in names) / len(names)
    coloured = sum(name.colour is not None for name in names) / len(names)
    assert 0.03 < sized < 0.15 and 0.4 < coloured < 0.8


def test_pictures_of_results_are_judged_as_what_they_are() -> None:
    for seed in range(12):
        scene, instruction = drawn(seed)
        changed = apply(instruction, scene)
        assert contents(judge(render(changed, 32))) == contents(changed)
        assert changed.background in BACKGROUNDS
