"""Negative prompts, and requests in which each sample has its own: from the command line to the sampler."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from prompt_folders import prompts, watched

from zoo.errors import InvalidInput
from zoo.io.artifacts import Provenance
from zoo.io.request import Request

__all__ = ["prompts", "watched"]


def test_negative_prompts_reach_the_sampler_of_a_text_model(zoo, watched):
    assert zoo("sample", "toytext", "-p", "a red circle", "--negative", "dust", "-n", 2).code == 0
    assert watched == [[("a red circle", "dust", 0), ("a red circle", "dust", 1)]]
    watched.clear()
    Path("p.jsonl").write_text(
        '{"prompt": "a red circle"}\n{"prompt": "a red ring", "negative": "rain"}\n'
        '{"prompt": "a blue ring", "negative": ""}\n'
    )
    assert zoo("sample", "toytext", "--prompts", "p.jsonl", "-o", "a").code == 0
    assert watched == [
        [("a red circle", None, 0)],
        [("a red ring", "rain", 0), ("a blue ring", "", 0)],
    ]
    watched.clear()
    assert zoo("sample", "toytext", "--prompts", "p.jsonl", "-o", "b", "--negative", "dust").code == 0
    assert [negative for batch in watched for _, negative, _ in batch] == ["dust", "rain", ""]
    again = zoo("sample", "toytext", "--prompts", "p.jsonl", "-o", "b", "--negative", "fog", "--json").json
    assert [entry["negative"] for entry in again["outputs"]] == ["fog"]
    assert [entry["negative"] for entry in again["skipped"]] == ["rain", ""]


def test_a_negative_prompt_is_recorded_and_replayed(zoo, watched):
    assert zoo("sample", "toytext", "-p", "a red circle", "--negative", "dust", "-o", "x.png").code == 0
    assert zoo("sample", "toytext", "-p", "a red circle", "-o", "y.png").code == 0
    watched.clear()
    assert zoo("replay", "x.png", "--check").code == 0
    assert zoo("replay", "y.png", "--check").code == 0
    assert watched == [[("a red circle", "dust", 0)], [("a red circle", None, 0)]]


@pytest.mark.parametrize(
    ("reference", "text"), [("toy", "classes, not on text"), ("toy:plain", "conditioned on nothing")]
)
def test_other_models_take_no_negative_prompt(zoo, reference, text):
    result = zoo("sample", reference, "--negative", "dust")
    assert result.code == 2 and "takes no negative prompt" in result.err and text in result.err


def test_the_negative_prompt_is_part_of_how_a_sample_was_made():
    made = Provenance(
        reference="a:b", prompt="a", negative="b", seed=0, sampler="s", options={}, dtype="float32",
        device="cpu", zoo_version="1",
    )  # fmt: skip
    assert made.to_dict()["negative"] == "b" and Provenance.from_dict(made.to_dict()) == made
    # Files of a version that knew no negative prompts.
    older = {name: value for name, value in made.to_dict().items() if name != "negative"}
    assert Provenance.from_dict(older).negative is None


def test_requests_with_negatives_and_seeds():
    request = Request(prompts=["a", "b"], negatives=["x", "y"], num=2, seeds=[4, 9, 2, 7])
    assert [request.negative_of(i) for i in range(4)] == ["x", "x", "y", "y"]
    assert [request.seed_of(i) for i in range(4)] == [4, 9, 2, 7]
    assert Request(prompts=["a", "b"], negatives="x").negative_of(1) == "x"
    assert Request().negative_of(0) is None and dataclasses.replace(request, num=2).seeds == (4, 9, 2, 7)
    for given, message in (
        (
            {"prompts": ["a", "b", "c"], "negatives": ["x", "y"]},
            "expected 1 or one for each of the 3 prompts",
        ),
        ({"num": 2, "seeds": [1]}, "1 seeds were given, expected one for each sample: 2"),
        ({"seeds": [-1]}, "seed is -1"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Request(**given)
