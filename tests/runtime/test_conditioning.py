"""Words to class ids."""

from __future__ import annotations

import pytest

from zoo.errors import InvalidInput
from zoo.runtime.conditioning import class_id, class_of_prompt
from zoo.shapes.scene import CLASSES

PETS = ("cat", "dog", "wild animal")


@pytest.mark.parametrize(
    ("value", "expected"), [("cat", 0), ("DOG", 1), (" wild animal ", 2), ("2", 2), (0, 0)]
)
def test_classes_by_name_and_number(value, expected):
    assert class_id(value, PETS, 3) == expected


@pytest.mark.parametrize("value", ["3", "-1", 99])
def test_a_number_out_of_range(value):
    with pytest.raises(InvalidInput, match="out of range, expected 0 to 2"):
        class_id(value, PETS, 3)


def test_an_unknown_class_lists_the_nearest():
    with pytest.raises(InvalidInput, match="no class 'kat'") as caught:
        class_id("kat", PETS, 3)
    assert caught.value.hint == "Nearest classes: cat"
    with pytest.raises(InvalidInput) as caught:
        class_id("zzzzzz", PETS, 3)
    assert caught.value.hint == "Classes: cat, dog, wild animal"


def test_classes_without_names_are_given_by_number():
    assert class_id("7", (), 10) == 7
    with pytest.raises(InvalidInput) as caught:
        class_id("cat", (), 10)
    assert "by number, 0 to 9" in caught.value.hint


@pytest.mark.parametrize("name", CLASSES)
def test_every_shape_is_found_by_its_prompt(name):
    article = "an" if name[0] == "o" else "a"
    assert CLASSES[class_of_prompt(f"{article} {name}", CLASSES)] == name
    assert CLASSES[class_of_prompt(f"A picture of the {name.upper()}.", CLASSES)] == name


def test_unknown_words_are_told_with_what_is_known():
    with pytest.raises(InvalidInput, match="does not know the words 'mauve', 'elephant'") as caught:
        class_of_prompt("a mauve elephant circle", CLASSES)
    assert "red" in caught.value.hint and "ring" in caught.value.hint
    with pytest.raises(InvalidInput, match="does not know the word 'mauve'"):
        class_of_prompt("a mauve circle", CLASSES)


@pytest.mark.parametrize("prompt", ["", "red", "a red circle ring", "circle red"])
def test_a_prompt_names_exactly_one_class(prompt):
    with pytest.raises(InvalidInput, match="does not name exactly one class"):
        class_of_prompt(prompt, CLASSES)


def test_many_classes_are_not_all_listed():
    many = [f"species number{i}" for i in range(200)]
    with pytest.raises(InvalidInput) as caught:
        class_of_prompt("a unicorn", many)
    assert caught.value.hint.startswith("It knows 200 classes") and len(caught.value.hint) < 200
