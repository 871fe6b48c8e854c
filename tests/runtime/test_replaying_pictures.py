"""Samples that were made from pictures, drawn again from the same ones, from moved ones and from others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pictures_method import pictures

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image, Provenance
from zoo.io.inputs import InputImage
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel, load
from zoo.runtime.replaying import Changes, replays

__all__ = ["pictures"]


def picture(seed: int) -> Image:
    return Image(torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def loaded(pictures: str) -> LoadedModel:
    """The model, with the folders `in`, which holds a.png and b.png, and `out` in the current folder."""
    Path("in").mkdir()
    Path("out").mkdir()
    for seed, name in enumerate("ab"):
        picture(seed).save(f"in/{name}.png")
    return load(pictures, device="cpu")


def given(*names: str) -> dict[str, list[InputImage]]:
    return {"image": [InputImage.read(f"in/{name}.png") for name in names]}


def made(loaded: LoadedModel, **request) -> list[Provenance]:
    artifacts = list(loaded.sample(Request(**{"task": "mirror", "prompts": "turn it", **request})))
    return [artifact.provenance for artifact in artifacts]


def again(loaded: LoadedModel, provenances, changes=None, beside=None):
    parts = replays(provenances, changes, beside=beside)
    return [one for part in parts for one in loaded.sample(part.request)], parts


def refused(provenances, changes=None, beside=None) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        replays(provenances, changes, beside=beside)
    return caught.value


@pytest.mark.parametrize(
    "request_",
    [
        {"num": 2, "seed": 5},
        {"prompts": ["turn it", "and this"], "images": ("a", "b"), "negatives": "blurred"},
        {"prompts": (), "task": "tell", "images": ("a", "b", "a"), "num": 2},
        {"prompts": (), "task": "tell"},
        {"prompts": (), "task": "blend", "images": ("a", "b"), "other": True},
    ],
)
def test_every_kind_of_request_is_repeated_exactly(loaded, request_):
    images = given(*request_.get("images", ("a",)))
    if request_.pop("other", False):
        images["other"] = given("b")["image"]
    first = made(loaded, **{**request_, "images": images})
    repeated, parts = again(loaded, first)
    assert len(parts) == 1
    assert [one.provenance for one in repeated] == first
    assert parts[0].request.total == len(first)


def test_the_pixels_are_the_same(loaded):
    request = Request("turn it", task="mirror", images=given("a"), seed=8)
    (first,) = loaded.sample(request)
    ((second,), _) = again(loaded, [first.provenance])
    assert torch.equal(first.pixels, second.pixels) and first.pixels.unique().numel() > 9


def test_samples_with_and_without_pictures_are_drawn_apart(loaded):
    plain = [one.provenance for one in loaded.sample(Request(num=2, sampler="toy-plain"))]
    told = made(loaded, prompts=(), task="tell", images=given("a", "b"), seed=2)
    assert [len(part.made) for part in replays([*plain, *told])] == [2, 2]


def test_a_path_is_sought_beside_the_file_too(loaded, monkeypatch):
    first = made(loaded, images=given("a"))
    monkeypatch.chdir("out")
    assert "in/a.png, the picture that it was made from, is gone" in refused(first).message
    repeated, _ = again(loaded, first, beside=Path(".."))
    assert [one.provenance for one in repeated] == first, "the path is still as it was given"
    # Another picture of that name here does not hide it.
    Path("in").mkdir()
    picture(7).save("in/a.png")
    again(loaded, first, beside=Path(".."))
    Path("in/a.png").write_text("not even a picture")
    again(loaded, first, beside=Path(".."))


@pytest.mark.parametrize("change", ["gone", "another", "broken"])
def test_a_picture_that_is_not_there_any_more_is_told(loaded, change):
    first, path = made(loaded, images=given("a")), Path("in/a.png")
    path.unlink()
    if change == "another":
        picture(7).save(path)
    elif change == "broken":
        path.write_text("not even a picture")
    error = refused(first)
    assert "in/a.png" in error.message and "--image FILE" in error.hint
    assert ("is gone" if change == "gone" else "not the picture any more") in error.message


def test_a_picture_can_be_given_again(loaded):
    first = made(loaded, images=given("a"))
    Path("in/a.png").rename("moved.png")
    moved = Changes(images={"image": InputImage.read("moved.png")})
    assert moved and not moved.differ_from(first)
    ((one,), _) = again(loaded, first, moved)
    assert one.provenance.images["image"] == {**first[0].images["image"], "path": "moved.png"}


def test_another_picture_is_a_change(loaded):
    first = made(loaded, images=given("a"))
    other = InputImage.read("in/b.png")
    changes = Changes(images={"image": other}, options={"share": 1.0})
    assert changes.differ_from(first) and Changes(seed=1).differ_from(first)
    assert not Changes().differ_from(first) and not Changes()
    ((one,), _) = again(loaded, first, changes)
    assert torch.equal(one.pixels, other.pixels.flip(2))


def test_pictures_of_a_program_have_to_be_given(loaded):
    pixels = InputImage.read("in/a.png").pixels
    first = made(loaded, prompts=(), task="blend", images={"image": pixels, "other": given("b")["image"]})
    assert first[0].images["image"]["path"] is None
    error = refused(first)
    assert "'image'" in error.message and "--image FILE" in error.hint
    ((one,), _) = again(loaded, first, Changes(images={"image": InputImage.read("in/a.png")}))
    assert one.provenance.images["other"] == first[0].images["other"]
    error = refused(made(loaded, prompts=(), task="blend", images={"image": pixels, "other": pixels}),
                    Changes(images={"image": InputImage(pixels)}))  # fmt: skip
    assert "--image other=FILE" in error.hint


def test_a_picture_is_given_to_samples_that_were_made_without(loaded):
    first = [one.provenance for one in loaded.sample(Request(num=3, sampler="toy-plain"))]
    (part,) = replays(first, Changes(images={"mask": InputImage(torch.zeros(3, 1, 1))}))
    assert part.request.total == 3
    with pytest.raises(InvalidInput, match="reads no picture 'mask'"):
        loaded.sample(part.request)


# Provenance


def facts(**changed):
    return {"reference": "a:b", "seed": 0, "sampler": "s", "options": {}, "dtype": "float32",
            "device": "cpu", "zoo_version": "1", **changed}  # fmt: skip


def test_pictures_in_a_provenance_are_plain_values():
    images = {"image": {"sha256": "ab", "path": "a.png"}, "mask": {"sha256": "cd", "path": None}}
    one = Provenance.from_dict(facts(images=images))
    assert one.to_dict()["images"] == images and Provenance.from_dict(one.to_dict()) == one
    assert hash(one) == hash(Provenance.from_dict(one.to_dict()))
    # Files of a version that knew none, and of a later one that tells more.
    assert Provenance.from_dict(facts()).images == {}
    later = {"image": {"sha256": "ab", "path": "a.png", "width": 6}}
    assert Provenance.from_dict(facts(images=later)).images == {"image": images["image"]}


@pytest.mark.parametrize(
    "wrong", [None, ["a.png"], {"image": "a.png"}, {"image": {"path": "a.png"}}, {3: {"sha256": "ab"}},
              {"image": {"sha256": "ab", "path": 3}}]
)  # fmt: skip
def test_damaged_pictures_in_a_provenance_are_told(wrong):
    with pytest.raises(ValueError, match="images"):
        Provenance.from_dict(facts(images=wrong))
