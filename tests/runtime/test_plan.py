"""From a request to samples and batches."""

from __future__ import annotations

import pytest

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.sampling import Batch, Item, batches, plan

PETS = ("cat", "dog")


def test_every_condition_is_sampled_num_times_with_seeds_of_its_own():
    items = plan(Request(prompts=["a cat", "a dog"], num=2, seed=7), PETS, 2, takes_text=False)
    assert list(items) == [
        Item(0, 7, "a cat", 0),
        Item(1, 8, "a cat", 0),
        Item(2, 9, "a dog", 1),
        Item(3, 10, "a dog", 1),
    ]


def test_prompts_of_text_models_are_not_classes():
    assert list(plan(Request(prompts="a cat on a dog"), (), 0, takes_text=True)) == [
        Item(0, 0, "a cat on a dog", None)
    ]


def test_without_a_condition_the_class_is_drawn_from_the_sample_s_seed():
    together = plan(Request(num=40, seed=3), PETS, 2, takes_text=False)
    alone = [plan(Request(seed=3 + i), PETS, 2, takes_text=False)[0] for i in range(40)]
    assert [item.class_id for item in together] == [item.class_id for item in alone]
    assert {item.class_id for item in together} == {0, 1}


def test_an_unconditional_model_has_no_classes():
    assert list(plan(Request(num=2), (), 0, takes_text=False)) == [Item(0, 0), Item(1, 1)]


@pytest.mark.parametrize(
    ("request_", "classes", "count", "message"),
    [
        (Request(classes=["cat"]), (), 0, "has no classes"),
        (Request(prompts=["a cat"]), (), 0, "unconditional: it takes no prompt"),
        (Request(prompts=["a cat"]), (), 9, "have no names: a prompt cannot name one of its 9"),
    ],
)
def test_conditions_that_a_model_cannot_have(request_, classes, count, message):
    with pytest.raises(InvalidInput, match=message):
        plan(request_, classes, count, takes_text=False)


def test_a_plan_of_a_billion_samples_takes_no_memory():
    items = plan(Request(num=10**9, seed=1), PETS, 2, takes_text=False)
    assert len(items) == 10**9
    assert items[-1].seed == 10**9
    assert [item.index for item in items[10**8 : 10**8 + 3]] == [10**8, 10**8 + 1, 10**8 + 2]
    with pytest.raises(IndexError):
        items[10**9]


def test_batches_are_consecutive_and_carry_the_size():
    request = Request(num=5, size=(8, 16))
    items = plan(request, (), 0, takes_text=True)
    parts = list(batches(items, 2, request))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [item.index for part in parts for item in part.items] == list(range(5))
    assert {part.size for part in parts} == {(8, 16)}


def test_labels_and_prompts_of_a_batch():
    batch = Batch((Item(0, 0, "a", 3), Item(1, 1, None, None)))
    assert batch.labels.tolist() == [3, -1]
    assert batch.prompts == ("a", None)
    assert Batch((Item(0, 0),)).labels is None
    assert batch.noise().seeds == (0, 1)
