"""The tasks of a variant, its optional components, and what a sampler says of pictures and prompts."""

from __future__ import annotations

import pytest

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.describe import details
from zoo.errors import CardError
from zoo.registry import Registry


def card(**changed):
    variant = {
        "summary": "s",
        "architecture": "net",
        "sampler": {"name": "draw", "steps": 4},
        "tasks": {"edit": {"name": "edit", "guidance": 2.0}, "quick": {"name": "draw", "steps": 1}},
        "components": {
            "decoder": {"architecture": "decoder", "optional": True},
            "vae": {"architecture": "vae"},
        },
        **changed,
    }
    facts = {"method": "m", "title": "M", "summary": "s", "tasks": ["text-to-image"], "default": "one"}
    return parse_card({"schema": 1, **facts, "variant": {"one": variant}})


def test_tasks_are_tables_of_a_sampler_and_its_defaults():
    variant = card().variants["one"]
    assert variant.tasks == {
        "edit": {"name": "edit", "guidance": 2.0},
        "quick": {"name": "draw", "steps": 1},
    }
    assert [table["name"] for table in variant.samplers] == ["draw", "edit", "draw"]
    assert card(tasks={}, sampler={}).variants["one"].samplers == ()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"edit": {"steps": 3}}, r"\[variant\.one\.tasks\.edit\] name: expected the sampler's name"),
        ({"edit": {"name": 3}}, r"\[variant\.one\.tasks\.edit\] name: expected the sampler's name"),
        ({"Edit!": {"name": "edit"}}, r"\[variant\.one\.tasks\] Edit!: 'Edit!' is not a valid name"),
        ({"edit": "edit"}, r"\[variant\.one\.tasks\] edit: expected a table, got 'edit'"),
        (["edit"], r"\[variant\.one\] tasks: expected a table"),
    ],
)
def test_what_is_no_task_is_refused(tasks, message):
    with pytest.raises(CardError, match=message):
        card(tasks=tasks)


def test_a_component_may_be_optional():
    components = card().variants["one"].components
    assert components["decoder"].optional and not components["vae"].optional
    with pytest.raises(CardError, match="optional: expected true or false, got 1"):
        card(components={"decoder": {"architecture": "decoder", "optional": 1}})


def test_both_are_described():
    shown = card()
    document = details(Catalogue({"m": shown}), shown, shown.variants["one"])
    assert document["task_samplers"] == shown.variants["one"].tasks
    assert document["tasks"] == ["text-to-image"]
    assert document["components"]["decoder"]["optional"] is True
    assert document["components"]["vae"]["optional"] is False


def test_a_sampler_says_which_pictures_it_reads_and_whether_it_needs_a_prompt():
    registry = Registry()
    register = registry.callbacks("me")["register_samplers"]
    register("plain", "a:b", options=dict)
    register("edit", "a:b", options=dict, images=["image"], optional_images=["mask"], prompt="required")
    plain, edit = registry.samplers.find("plain"), registry.samplers.find("edit")
    assert (plain.images, plain.optional_images, plain.prompt) == ((), (), "optional")
    assert (edit.images, edit.optional_images, edit.prompt) == (("image",), ("mask",), "required")
