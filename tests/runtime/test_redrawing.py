"""What is asked of a model when one layer is drawn anew, and what of the layer stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_layerdiff import small_cards

from zoo.io.artifacts import Provenance
from zoo.io.layers import Layer, LayeredImage
from zoo.io.request import Request
from zoo.runtime.model import load
from zoo.runtime.redrawing import Redrawing, redraw, redraw_request
from zoo.session import Session


def picture(prompt: str, *parts: str) -> LayeredImage:
    made = Provenance(
        reference="small:layers",
        prompt=prompt,
        part_prompts=parts,
        seed=3,
        sampler="layerdiff",
        options={"steps": 4},
        dtype="float32",
        device="cpu",
        zoo_version="0",
    )
    return LayeredImage((4, 4), tuple(Layer(torch.zeros(4, 4, 4), part) for part in parts), made)


@pytest.mark.parametrize(
    ("whole", "parts", "layer", "new", "then"),
    [
        ("a red ring on white", ("", "a red ring"), 1, "a blue cross", "a blue cross on white"),
        ("Red ring on white", ("", "a red ring"), 1, "a blue cross", "blue cross on white"),
        ("a red ring on white", ("", "Red ring"), 1, "the blue cross", "a blue cross on white"),
        (
            "a red ring above a red ring",
            ("", "a red ring", "a red ring"),
            2,
            "a cat",
            "a red ring above a cat",
        ),
        (
            "a red ring above a red ring",
            ("", "a red ring", "a red ring"),
            1,
            "a cat",
            "a cat above a red ring",
        ),
        ("two red rings", ("", "a red ring"), 1, "a blue cross", "two red rings"),
        ("a red ringlet", ("", "a red ring"), 1, "a blue cross", "a red ringlet"),
        ("a red ring on white", ("", "a red ring"), 1, "", "a red ring on white"),
        ("a red ring on white", ("", "a red ring"), 0, "a black background", "a red ring on white"),
        ("a red ring \\ on white", ("", "a red ring \\"), 1, r"\g<0>", r"\g<0> on white"),
    ],
)
def test_the_prompt_of_the_whole_follows_that_of_the_layer(
    whole: str, parts: tuple[str, ...], layer: int, new: str, then: str
) -> None:
    request = redraw_request(picture(whole, *parts), Redrawing(layer, new))
    assert request.prompts == (then,)
    assert request.parts_of(0)[layer] == new


def test_another_whole_is_taken_as_it_is() -> None:
    asked = Redrawing(1, "a blue cross", whole="crosses")
    assert redraw_request(picture("a red ring", "", "a red ring"), asked).prompts == ("crosses",)


def test_a_layer_stays_as_faint_and_as_hidden_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CARDS", str(small_cards(tmp_path)))
    model = load("small:layers", device="cpu", session=Session())
    (image,) = model.sample(Request(prompts="a red ring on a white background"))
    assert isinstance(image, LayeredImage)
    before = image.moved(1, 3, 2).with_layer(1, opacity=0.25, visible=False)
    after = redraw(model, before, Redrawing(1, "a blue cross"))
    layer = after.layers[1]
    assert (layer.opacity, layer.visible, layer.x, layer.y, layer.name) == (0.25, False, 0, 0, "a blue cross")
    assert not torch.equal(layer.pixels, before.layers[1].pixels)
    assert after.layers[0] is before.layers[0]
