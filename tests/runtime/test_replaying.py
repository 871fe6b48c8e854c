"""Provenance back into requests."""

from __future__ import annotations

import torch

from zoo.io.request import Request
from zoo.runtime.model import load
from zoo.runtime.replaying import Changes, replays


def made(request):
    return list(load("toy:shapes", device="cpu").sample(request))


def again(images, **given):
    loaded = load("toy:shapes", device="cpu")
    parts = replays([image.provenance for image in images], **given)
    return [image for part in parts for image in loaded.sample(part.request)], parts


def test_every_kind_of_request_is_repeated_exactly(toy):
    for request in (
        Request(num=3, seed=9),
        Request(prompts=["a red circle", "a blue ring"], num=2, guidance=2.0),
        Request(classes=["red circle", 7], seed=3, options={"weights": (1.0, 2.0), "mode": "flipped"}),
    ):
        images = made(request)
        repeated, parts = again(images)
        assert len(parts) == 1
        assert [r.provenance for r in repeated] == [i.provenance for i in images]
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(images, repeated, strict=True))


def test_samples_that_do_not_belong_together_are_drawn_apart(toy):
    images = (
        made(Request(num=2)) + made(Request(num=1, seed=40)) + made(Request(prompts="a red ring", seed=41))
    )
    repeated, parts = again(images)
    assert [len(part.made) for part in parts] == [2, 1, 1]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(images, repeated, strict=True))


def test_changes(toy):
    images = made(Request(classes=["red ring", "red circle"], seed=5))
    _, (part,) = again(images, changes=Changes(seed=100, guidance=3.0, options={"steps": "7"}))
    assert part.request.seed == 100
    assert part.request.options["guidance"] == 3.0 and part.request.options["steps"] == "7"
    assert part.first.seed == 5
    assert not Changes() and Changes(seed=0)
