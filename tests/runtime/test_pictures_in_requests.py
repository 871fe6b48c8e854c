"""Pictures in a request: how many there may be, which sample gets which, and how batches hold them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zoo.errors import InvalidInput
from zoo.io.inputs import InputImage
from zoo.io.request import Request
from zoo.runtime.capabilities import CAPABILITIES, TextTokenizer
from zoo.runtime.sampling import Batch, Item, Unwatched, batches, plan, tell_text

A, B, C = (InputImage(torch.full((3, 2, 2), level), f"{level}.png") for level in (0.0, 0.5, 1.0))


def sources(request: Request) -> list[dict[str, str | None]]:
    return [
        {role: image.source for role, image in request.images_of(i).items()} for i in range(request.total)
    ]


def test_one_picture_is_for_all_samples():
    request = Request(prompts=["a", "b"], images={"image": A}, num=2)
    assert sources(request) == [{"image": "0.0.png"}] * 4
    assert request.images == {"image": (A,)}
    assert replace(request, num=1).images == {"image": (A,)}


def test_or_one_for_each_prompt_or_class():
    request = Request(prompts=["a", "b"], images={"image": [A, B], "mask": C}, num=2)
    assert [one["image"] for one in sources(request)] == ["0.0.png", "0.0.png", "0.5.png", "0.5.png"]
    assert {one["mask"] for one in sources(request)} == {"1.0.png"}
    assert sources(Request(classes=[3, 4], images={"image": [B, C]})) == [
        {"image": "0.5.png"},
        {"image": "1.0.png"},
    ]


def test_without_prompts_each_picture_is_something_to_do():
    request = Request(images={"image": [A, B, C], "mask": A}, num=2, seed=7)
    assert (request.conditions, request.total) == (3, 6)
    items = plan(request, (), 0, takes_text=True)
    assert [item.images["image"] for item in items] == [A, A, B, B, C, C]
    assert [item.seed for item in items] == list(range(7, 13))
    assert {item.prompt for item in items} == {None}
    assert Request(images={"image": A}, num=2).total == 2
    assert Request(images={"image": [A, B]}, negatives=["x", "y"]).negative_of(1) == "y"
    assert Request(images={"image": [A, B]}, seeds=[5, 9]).seed_of(1) == 9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"prompts": ["a", "b", "c"], "images": {"image": [A, B]}},
            "2 pictures were given as 'image', expected 1 or one for each of the 3 prompts",
        ),
        ({"prompts": "a", "images": {"image": [A, B]}}, "one for each of the 1 prompts"),
        ({"classes": [1], "images": {"image": [A, B]}}, "one for each of the 1 classes"),
        ({"images": {"image": [A, B, C], "mask": [A, B]}}, "2 pictures were given as 'mask'.* 3 pictures"),
        ({"images": {"image": [A, B]}, "negatives": ["x", "y", "z"]}, "each of the 2 pictures"),
        ({"images": {"image": [A, B]}, "part_prompts": [["x"]] * 3}, "each of the 2 pictures"),
        ({"images": {"image": [A, B]}, "seeds": [1]}, "1 seeds were given"),
        ({"images": {"image": []}}, "no picture was given as 'image'"),
        ({"images": None}, "expected a mapping"),
        ({"task": "edit", "sampler": "toy"}, "both a task and a sampler"),
    ],
)
def test_numbers_that_do_not_fit(given, message):
    with pytest.raises(InvalidInput, match=message):
        Request(**given)


def test_batches_have_the_pixels_of_every_sample():
    request = Request(images={"image": [A, torch.zeros(3, 4, 6)], "mask": C})
    (batch,) = batches(plan(request, (), 0, takes_text=True), 9, request)
    first, second = batch.images_of("image")
    assert first is A.pixels and second is not None and second.shape == (3, 4, 6)
    assert batch.images_of("mask") == (C.pixels, C.pixels)
    assert batch.images_of("other") == (None, None)
    assert Batch((Item(0, 0, images={"image": A}), Item(1, 1))).images_of("image") == (A.pixels, None)


# Texts while they are made


def test_texts_are_told_to_those_who_show_them():
    class Shown(Unwatched):
        def __init__(self) -> None:
            self.pieces: list[tuple[int, str]] = []

        def text(self, row: int, piece: str) -> None:
            self.pieces.append((row, piece))

    shown = Shown()
    tell_text(shown, 1, "a ")
    tell_text(shown, 0, "b")
    assert shown.pieces == [(1, "a "), (0, "b")]
    tell_text(Unwatched(), 0, "nobody listens")
    tell_text(lambda step, total, preview: pytest.fail("a text is no step"), 0, "nobody listens")


def test_tokenizers_of_texts_are_a_capability():
    class Letters:
        def encode(self, text):
            return list(map(ord, text))

        def control(self, name):
            raise InvalidInput(name)

        def decode(self, ids):
            return "".join(map(chr, ids))

    assert CAPABILITIES["text-tokenizer"] is TextTokenizer
    assert isinstance(Letters(), TextTokenizer) and not isinstance(str, TextTokenizer)
