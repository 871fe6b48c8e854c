"""Part prompts: from a request to the sampler, into the provenance and back."""

from __future__ import annotations

import pytest
from kinds_method import drawn, kinds_site

from zoo.errors import InvalidInput, PluginError
from zoo.io.artifacts import Provenance
from zoo.io.layers import LayeredImage
from zoo.io.request import Request
from zoo.runtime.model import load
from zoo.runtime.prepare import prepare
from zoo.runtime.replaying import Changes, replays
from zoo.runtime.sampling import Batch, Item, batches, plan
from zoo.session import Session

__all__ = ["drawn", "kinds_site"]


# Requests


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((), ()),
        ([[], ()], ()),
        ("a ring", (("a ring",),)),
        (["sky", "a ring"], (("sky", "a ring"),)),
        ([["sky", "a ring"]], (("sky", "a ring"),)),
        ([["sky", ""], []], (("sky", ""), ())),
        ((text for text in ("sky", "a ring")), (("sky", "a ring"),)),
    ],
)
def test_one_sequence_for_all_prompts_or_one_for_each(given, kept):
    assert Request(prompts=["a", "b"], part_prompts=given).part_prompts == kept


def test_the_part_prompts_of_each_sample():
    each = Request(prompts=["a", "b"], part_prompts=[["x", "y"], ["z"]], num=2)
    assert [each.parts_of(i) for i in range(4)] == [("x", "y"), ("x", "y"), ("z",), ("z",)]
    for_all = Request(prompts=["a", "b"], part_prompts=["x", "y"], num=2)
    assert [for_all.parts_of(i) for i in range(4)] == [("x", "y")] * 4
    assert Request(num=2).parts_of(1) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"prompts": ["a", "b", "c"], "part_prompts": [["x"], ["y"]]},
            "2 sequences of part prompts were given, expected 1 or one for each of the 3 prompts",
        ),
        ({"classes": [1, 2, 3], "part_prompts": [["x"], ["y"]]}, "one for each of the 3 classes"),
        ({"part_prompts": [["x"], ["y"]]}, "one for each of the 1 prompts"),
        ({"part_prompts": [["x", 3]]}, "a part prompt is 3, expected a text"),
        ({"part_prompts": ["x", ["y"]]}, "got 'x' among them"),
        ({"part_prompts": [None]}, "got None among them"),
        ({"part_prompts": 7}, "got 7 among them"),
    ],
)
def test_wrong_part_prompts(given, message):
    with pytest.raises(InvalidInput) as caught:
        Request(**given)
    assert message in caught.value.message


# Plans


def test_items_and_batches_carry_them():
    request = Request(prompts=["a", "b"], part_prompts=[["x", "y"], []], num=2)
    items = plan(request, (), 0, takes_text=True)
    assert [item.part_prompts for item in items] == [("x", "y"), ("x", "y"), (), ()]
    (batch,) = batches(items, 9, request)
    assert batch.part_prompts == (("x", "y"), ("x", "y"), (), ())
    assert Batch((Item(0, 0),)).part_prompts == ((),)
    assert Item(0, 0, "a", negative="", part_prompts=("x", "")).texts == ("a", "", "x", "")
    assert Item(0, 0).texts == ()


def test_part_prompts_alone_go_with_the_empty_prompt():
    (item,) = plan(Request(part_prompts=["x", "y"]), (), 0, takes_text=True)
    assert (item.prompt, item.part_prompts) == ("", ("x", "y"))
    (item,) = plan(Request(), (), 0, takes_text=True)
    assert item.prompt is None


def test_missing_part_prompts_are_derived_from_each_prompt():
    request = Request(prompts=["a b", "c d"], part_prompts=[["x"], []])
    items = plan(request, (), 0, takes_text=True, derive_parts=lambda prompt: tuple(prompt.split()))
    assert [item.part_prompts for item in items] == [("x",), ("c", "d")]
    (item,) = plan(Request(), (), 0, takes_text=True, derive_parts=lambda prompt: ("never",))
    assert item.part_prompts == ()


@pytest.mark.parametrize(("count", "words"), [(3, "classes, not on text"), (0, "conditioned on nothing")])
def test_models_without_text_take_none(count, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        plan(Request(part_prompts=["x"]), (), count, takes_text=False)
    assert "takes no part prompts" in caught.value.message and "--layer-prompt" in caught.value.hint


# Models


def test_any_task_from_text_takes_text(drawn):
    (item,) = prepare(Session(), "toylayers", Request(prompts="anything at all")).items
    assert item.prompt == "anything at all"


def test_what_is_made_is_known_before_loading(drawn):
    assert prepare(Session(), "toylayers", Request()).makes is LayeredImage
    note = prepare(Session(), "toynotes", Request()).makes
    assert note.kind == "note" and note.__module__ == "zoo_toy_kinds.notes"
    with pytest.raises(PluginError, match="'hologram' is no kind of artifact"):
        prepare(Session(), "toylayers", Request(sampler="toy-unknown"))


def test_samplers_that_read_none_refuse_them_before_loading(drawn):
    request = Request(prompts="a red circle", part_prompts=["x"])
    with pytest.raises(InvalidInput, match="sampler 'toy' reads no part prompts") as caught:
        prepare(Session(), "toytext", request)
    assert caught.value.hint.startswith("Leave out --layer-prompt")
    with pytest.raises(InvalidInput, match="conditioned on classes, not on text"):
        prepare(Session(), "toy", request)


def test_part_prompts_of_the_shapes_world_are_checked_and_derived(drawn):
    def parts(**given):
        return [item.part_prompts for item in prepare(Session(), "toylayers:shapes", Request(**given)).items]

    pair = "a red circle left of a small blue ring on a white background"
    assert parts(prompts=pair) == [("a white background", "a red circle", "a small blue ring")]
    assert parts(prompts="a red circle") == [("", "a red circle")]
    assert parts() == parts(prompts="") == [()]
    assert parts(part_prompts=["on white", "Red circle."]) == [("on white", "Red circle.")]
    assert parts(prompts=["a red circle", pair], part_prompts=[["", "a pink ring"], []]) == [
        ("", "a pink ring"),
        ("a white background", "a red circle", "a small blue ring"),
    ]
    with pytest.raises(InvalidInput, match="does not know the word 'mauve'"):
        parts(part_prompts=["on white", "a mauve ring"])
    with pytest.raises(InvalidInput, match="it names 2 objects, expected one"):
        parts(part_prompts=["", "a red circle above a blue ring"])
    assert prepare(Session(), "toylayers", Request(prompts=pair)).items[0].part_prompts == ()
    # A sampler that is registered for no task is taken to do what the card says.
    with pytest.raises(InvalidInput, match="does not know the word 'mauve'"):
        parts(sampler="toy-composite", prompts="a mauve ring")


def test_a_sampler_that_makes_another_kind_than_it_says_is_told(drawn):
    loaded = load("toylayers", device="cpu")
    message = "sampler 'toy-mistaken' of plugin 'toynotes' made a LayeredImage"
    with pytest.raises(PluginError, match=message):
        list(loaded.sample(Request(sampler="toy-mistaken")))


def test_the_text_encoder_is_told_of_them_ahead(drawn):
    from zoo_toy_kinds.reader import read

    loaded = load("toylayers:read", device="cpu")
    request = Request(prompts=["a", "b"], part_prompts=[["x", "y"], ["z"]], negatives="n", batch_size=1)
    artifacts = loaded.sample(request)
    next(artifacts)
    assert sorted(read) == ["a", "b", "n", "x", "y", "z"], "all are read before the second batch"
    assert len(list(artifacts)) == 1 and len(read) == 6


# Provenance and replay


def test_the_provenance_tells_them():
    made = Provenance(
        reference="a:b", seed=0, sampler="s", options={}, dtype="float32", device="cpu", zoo_version="1",
        part_prompts=["sky", "a ring"],
    )  # fmt: skip
    assert made.part_prompts == ("sky", "a ring") and made.to_dict()["part_prompts"] == ["sky", "a ring"]
    assert Provenance.from_dict(made.to_dict()) == made
    # Files of a version that knew none.
    older = {name: value for name, value in made.to_dict().items() if name != "part_prompts"}
    assert Provenance.from_dict(older).part_prompts == ()
    for wrong in ("sky", ["sky", 1], None, 3):
        with pytest.raises(ValueError, match="part_prompts"):
            Provenance.from_dict({**older, "part_prompts": wrong})


def test_samples_of_different_part_prompts_are_replayed_together(drawn):
    loaded = load("toylayers", device="cpu")
    first = list(loaded.sample(Request(part_prompts=["sky", "a ring"], seed=4)))
    then = Request(prompts=["two", "three"], part_prompts=[["a", "b", "c"], []], seed=5)
    made = [artifact.provenance for artifact in first + list(loaded.sample(then))]
    assert [one.part_prompts for one in made] == [("sky", "a ring"), ("a", "b", "c"), ()]
    drawn.clear()
    (part,) = replays(made, Changes(guidance=2.0))
    again = [artifact.provenance for artifact in loaded.sample(part.request)]
    assert drawn == [
        [("", ("sky", "a ring"), None, 4), ("two", ("a", "b", "c"), None, 5), ("three", (), None, 6)]
    ]
    assert [one.part_prompts for one in again] == [one.part_prompts for one in made]
    assert {one.options["guidance"] for one in again} == {2.0}


def test_derived_part_prompts_are_those_of_the_replay(drawn):
    loaded = load("toylayers:shapes", device="cpu")
    (made,) = loaded.sample(Request(prompts="a red circle on black"))
    assert made.provenance.part_prompts == ("a black background", "a red circle")
    (part,) = replays([made.provenance])
    assert part.request.part_prompts == (("a black background", "a red circle"),)
    (again,) = loaded.sample(part.request)
    assert again.provenance == made.provenance
    pairs = zip(again.layers, made.layers, strict=True)
    assert all(bool((a.pixels == b.pixels).all()) for a, b in pairs)
