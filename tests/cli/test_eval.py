"""`zoo eval`: the score, what it is made of, and what cannot be scored."""

from __future__ import annotations

import os
from pathlib import Path

import PIL.Image
import pytest
import torch

from zoo.io.metadata import read_provenances
from zoo.runtime.model import load
from zoo.runtime.noise import BatchNoise
from zoo.shapes.batches import single_objects
from zoo.shapes.evaluation import evaluate, to_8_bit


def test_a_model_that_draws_what_is_asked(zoo):
    document = zoo("eval", "toy", "--per-class", 1, "--json").json
    assert document["reference"] == "toy:shapes" and document["sampler"] == "toy"
    assert (document["accuracy"], document["seen"], document["held_out"]) == (1.0, 1.0, None)
    assert len(document["classes"]) == 48 and document["failures"] == []
    assert document["classes"][6]["prompt"] == "an orange circle"
    assert document["options"]["steps"] == 3 and document["options"]["guidance"] == 1.0
    assert document["seconds_per_sample"] > 0 and document["per_class"] == 1
    assert (document["device"], document["dtype"], document["seed"]) == ("cpu", "float32", 0)


def test_failures_are_counted_by_class_and_can_be_sampled_again(zoo, few):
    arguments = ("eval", few, "--per-class", 2, "--seed", 10, "-O", "wrong=blue ring", "--renders", 0)
    document = zoo(*arguments, "--json").json
    assert document["accuracy"] == 6 / 8
    wrong = next(entry for entry in document["classes"] if entry["name"] == "blue ring")
    assert (wrong["correct"], wrong["total"], wrong["accuracy"]) == (0, 2, 0.0)
    assert document["failures"] == [{"prompt": "a blue ring", "seed": seed} for seed in (16, 17)]
    text = zoo(*arguments, "--failures")
    assert "prompt accuracy     75.0% (6 of 8, 2 a combination)" in text.out
    assert "a blue ring      16" in text.out
    assert "wrong=blue ring" in text.out, "all options are stated"
    assert zoo(*arguments, "-q").lines == ["0.75"]


def test_seen_and_held_out_combinations_are_told_apart(zoo):
    document = zoo(
        "eval", "toytext", "--per-class", 1, "--renders", 0, "-O", "wrong=blue ring", "--json"
    ).json
    assert [entry["name"] for entry in document["classes"] if entry["held_out"]] == [
        "red circle",
        "blue ring",
    ]
    assert (document["seen"], document["held_out"]) == (1.0, 0.5)


def test_the_judge_sees_what_goes_wrong(zoo, few):
    arguments = ("eval", few, "--per-class", 1, "--sampler", "toy-flat", "--renders", 0)
    assert zoo(*arguments, "--json").json["accuracy"] == 0


def test_bits_per_dimension_are_those_of_the_ground_truth(zoo, few):
    document = zoo("eval", few, "--per-class", 1, "--renders", 70, "--json").json
    noise = BatchNoise("evaluate", 0)
    images = to_8_bit(single_objects(noise, 70, 32)[0])
    expected = (images.mean() + noise.uniform("dequantise", images.shape).mean()) / 256
    assert document["renders"] == 70
    assert document["bits_per_dim"] == pytest.approx(float(expected), rel=1e-5)
    none = zoo("eval", few, "--per-class", 1, "--renders", 0, "--json").json
    assert (none["bits_per_dim"], none["renders"]) == (None, 0)


def test_eight_bit_values():
    assert to_8_bit(torch.tensor([-1.0, 0.0, 1.0, 1.2])).tolist() == [0.0, 128.0, 255.0, 255.0]


def test_a_sheet_has_one_row_for_each_combination(zoo, few):
    result = zoo("eval", few, "--per-class", 3, "--renders", 0, "--grid", "sheet.png")
    assert result.lines[-1] == "sheet.png"
    with PIL.Image.open("sheet.png") as picture:
        assert picture.size == (3 * 34 - 2, 4 * 34 - 2)
    assert [made.class_id for made in read_provenances("sheet.png")] == [i // 3 for i in range(12)]


def test_pictures_are_kept_only_on_request(few):
    loaded = load(few, device="cpu")
    assert evaluate(loaded, per_class=1, renders=0).images == ()
    counts = []
    kept = evaluate(loaded, per_class=1, renders=0, keep_images=True, on_sample=counts.append)
    assert len(kept.images) == 4 and counts == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("toy:plain",), 2, "toy:plain is not a model of the shapes world"),
        (("toy:numbers",), 2, "toy:numbers is not a model of the shapes world"),
        (("toy", "--per-class", 0), 2, "'--per-class'"),
        (("toy", "-O", "grian=1"), 2, "has no option 'grian'"),
        (("toy", "--grid", "sheets"), 2, "sheets is not the name of a picture"),
        (("toy", "--grid", "there.png"), 1, "there.png exists already"),
        (("nothing",), 3, "no model is called 'nothing'"),
        (("toy", "-O", "fail=1"), 6, "sampler 'toy' of plugin 'toy' failed"),
    ],
)
def test_what_is_refused(zoo, arguments, code, text):
    Path("there.png").touch()
    result = zoo("eval", *arguments)
    assert result.code == code and text in result.err and result.out == ""
    assert os.listdir() == ["there.png"]
