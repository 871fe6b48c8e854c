"""Tasks: from a card's table to a sampler, its defaults, and what it needs of a request."""

from __future__ import annotations

import pytest
import torch
from pictures_method import pictures

import zoo
from zoo.errors import InvalidInput
from zoo.io.inputs import InputImage
from zoo.io.request import Request
from zoo.runtime.model import load
from zoo.runtime.prepare import prepare
from zoo.session import Session

__all__ = ["pictures"]

DARK, LIGHT = (torch.full((3, 2, 6), level) for level in (0.25, 0.5))


def prepared(reference="toypictures", **given):
    return prepare(Session(), reference, Request(**given))


def refused(reference="toypictures", **given) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        prepared(reference, **given)
    return caught.value


# Choosing


@pytest.mark.parametrize(
    ("task", "sampler", "options"),
    [
        (None, "toy-plain", {"level": 0.25}),
        ("mirror", "toy-mirror", {"share": 0.5}),
        ("fade", "toy-mirror", {"share": 0.125}),
        ("tell", "toy-tell", {"digits": 3}),
        # Tasks that samplers are registered for; the first table that names the sampler has the defaults.
        ("image-editing", "toy-mirror", {"share": 0.5}),
        ("image-to-text", "toy-tell", {"digits": 3}),
        ("unconditional", "toy-plain", {"level": 0.25}),
    ],
)
def test_a_task_is_one_of_the_card_or_of_its_samplers(pictures, task, sampler, options):
    images = {} if sampler == "toy-plain" else {"image": DARK}
    prompts = "" if sampler == "toy-plain" else "turn it"
    found = prepared(task=task, images=images, prompts=[prompts] if prompts else ())
    assert found.sampler.name == sampler
    assert {name: getattr(found.options, name) for name in options} == options


def test_a_sampler_by_name_has_the_defaults_of_the_first_table_that_names_it(pictures):
    given = {"images": {"image": DARK}, "prompts": "turn it"}
    assert prepared(sampler="toy-mirror", **given).options.share == 0.5
    assert prepared(sampler="toy-mirror", options={"share": "0.75"}, **given).options.share == 0.75
    assert prepared(task="fade", guidance=3.0, **given).options.guidance == 3.0


def test_an_unknown_task_is_told_with_those_that_there_are(pictures):
    error = refused(task="mirrors")
    assert error.message == "toypictures:base has no task 'mirrors'"
    assert "Did you mean: mirror?" in error.hint
    listed = "mirror, fade, tell, blend, needy, unconditional, image-editing, image-to-text, blending"
    assert f"It has: {listed}" in error.hint
    assert "has no task 'mirror'" in refused("toy", task="mirror").message
    assert refused("toy", task="mirror").hint == "It has: none"


def test_a_task_and_a_sampler_exclude_each_other(pictures):
    with pytest.raises(InvalidInput, match="both a task and a sampler were given"):
        load("toypictures", device="cpu", sampler="toy-tell", task="tell")
    with pytest.raises(InvalidInput, match="both the sampler 'toy-tell' and the task 'tell'"):
        load("toypictures", device="cpu").sampler("toy-tell", "tell")
    with pytest.raises(InvalidInput, match="has no task 'dream'"):
        load("toypictures", device="cpu", task="dream")


def test_a_task_whose_sampler_does_not_fit_the_architecture_is_refused(pictures):
    assert "sampler 'toy-needy' needs denoiser" in refused(task="needy").message


# What a sampler needs


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"task": "tell"}, "sampler 'toy-tell' needs a picture", "--image FILE"),
        ({"task": "blend", "images": {"image": DARK}}, "needs a picture 'other'", "--image other=FILE"),
        (
            {"task": "tell", "images": {"image": DARK, "mask": DARK}},
            "sampler 'toy-tell' reads no picture 'mask'",
            "It reads: image",
        ),
        (
            {"images": {"image": DARK}},
            "sampler 'toy-plain' reads no picture",
            "--task what to do: mirror, fade",
        ),
        (
            {"sampler": "toy-plain", "images": {"image": DARK}},
            "sampler 'toy-plain' reads no picture",
            "Leave out --image.",
        ),
        ({"images": {"mask": DARK}}, "sampler 'toy-plain' reads no picture 'mask'", "Leave out --image"),
        ({"task": "mirror", "images": {"image": DARK}}, "'toy-mirror' needs a prompt", "--prompt"),
        (
            {"task": "mirror", "images": {"image": DARK}, "prompts": ["turn it", "  "]},
            "'toy-mirror' needs a prompt",
            "--prompt",
        ),
        ({"prompts": "a ring"}, "sampler 'toy-plain' reads no prompt", "Leave out --prompt"),
        ({"negatives": "a ring"}, "'toy-plain' reads no negative prompt", "Leave out --negative"),
    ],
)
def test_what_a_request_lacks_or_has_too_much_is_told_before_loading(pictures, given, message, hint):
    error = refused(**given)
    assert message in error.message and hint in error.hint


def test_optional_pictures_and_prompts_may_be_left_out(pictures):
    both = {"image": DARK, "other": LIGHT}
    for images in (both, {**both, "mask": DARK[:1]}):
        assert len(prepared(task="blend", images=images).items) == 1
    assert prepared(task="tell", images={"image": DARK}, prompts="What?").items[0].prompt == "What?"


@pytest.mark.parametrize(
    ("task", "prompt", "wrong"),
    [
        ("mirror", "make the red circle blue", "a red circle"),
        ("tell", "what colour is the background?", "make the red circle blue"),
    ],
)
def test_prompts_of_the_shapes_world_follow_the_grammar_of_the_task(pictures, task, prompt, wrong):
    reference, images = "toypictures:shapes", {"image": DARK}
    assert prepared(reference, task=task, images=images, prompts=prompt).items[0].prompt == prompt
    assert f"'{wrong}'" in refused(reference, task=task, images=images, prompts=wrong).message
    assert prepared(task=task, images=images, prompts=wrong).items[0].prompt == wrong


# Running


def test_a_task_runs_with_its_pictures(pictures):
    ramp = torch.linspace(0.0, 1.0, 6).expand(3, 2, 6).contiguous()
    images = zoo.sample(
        "toypictures",
        ["turn it", "and this"],
        device="cpu",
        task="mirror",
        images={"image": [ramp, DARK]},
        options={"share": 1.0},
    )
    assert torch.equal(images[0].pixels, ramp.flip(2)) and torch.equal(images[1].pixels, DARK)
    assert [image.provenance.sampler for image in images] == ["toy-mirror"] * 2


def test_two_pictures_and_no_prompt_give_two_texts(pictures):
    made = zoo.sample("toypictures", device="cpu", task="tell", images={"image": [DARK, LIGHT]}, seed=3)
    assert [one.text for one in made] == ["What? 6 by 2, level 0.250.", "What? 6 by 2, level 0.500."]
    assert [one.provenance.seed for one in made] == [3, 4]
    assert [one.provenance.options for one in made] == [{"digits": 3}] * 2


def test_a_text_is_told_while_it_is_made_in_the_rows_of_its_batch(pictures):
    class Shown:
        def __init__(self):
            self.pieces = {}

        def __call__(self, step, total, preview):
            self.steps = (step, total)

        def text(self, row, piece):
            self.pieces.setdefault(row, []).append(piece)

    shown = Shown()
    request = Request(task="tell", images={"image": [DARK, LIGHT]})
    texts = [one.text for one in load("toypictures", device="cpu").sample(request, shown)]
    assert ["".join(pieces) for pieces in shown.pieces.values()] == texts
    assert sorted(shown.pieces) == [0, 1] and shown.steps == (3, 3)


def test_in_one_call_mistakes_are_told_before_anything_is_loaded(pictures, monkeypatch):
    monkeypatch.setattr("zoo.runtime.model.locate", lambda *_: pytest.fail("weights are looked for"))
    with pytest.raises(InvalidInput, match="needs a picture"):
        zoo.sample("toypictures", device="cpu", task="tell")


def test_a_loaded_model_knows_its_samplers_by_task(pictures):
    loaded = load("toypictures", device="cpu", task="tell")
    assert loaded.sampler(task="fade").name == "toy-mirror"
    assert loaded.sampler_of(Request(task="tell")).makes == "text"
    assert loaded.sampler_of(Request(sampler="toy-blend")).name == "toy-blend"
    assert loaded.sampler().name == "toy-plain"


def test_the_provenance_tells_the_pictures(pictures):
    image = InputImage(DARK, "in/dark.png")
    request = Request("turn it", task="mirror", images={"image": image})
    (made,) = load("toypictures", device="cpu").sample(request)
    assert made.provenance.images == {"image": {"sha256": image.digest, "path": "in/dark.png"}}
    (plain,) = zoo.sample("toypictures", device="cpu")
    assert plain.provenance.images == {}
