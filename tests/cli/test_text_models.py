"""Models that read text, on the command line: the built-in one and those of the authors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo as api
from zoo.catalogue import load_catalogue
from zoo.defaults import default_reference
from zoo.errors import ExitCode, NotFound
from zoo.io.artifacts import Image
from zoo.io.images import read_image
from zoo.session import Session
from zoo.shapes.judging import agrees
from zoo.store.locate import built_in_alternative

PAIR = "a large red circle left of a small blue square"


def test_a_prompt_alone_is_drawn_by_the_built_in_text_model(zoo):
    result = zoo("sample", "--prompt", PAIR, "--json", "-n", 4)
    assert result.code == 0, result.err
    document = result.json
    assert (document["reference"], document["sampler"]) == ("mdm:shapes", "dpm++")
    assert document["memory"]["peak"] > document["memory"]["weights"] > 0
    right = [agrees(read_image(output["path"]), PAIR) for output in document["outputs"]]
    assert sum(right) >= 2, "most of the time it draws what it is asked for"


def test_without_a_prompt_the_other_built_in_model_draws(zoo):
    assert zoo("sample", "--class", "red circle", "--json").json["reference"] == "tarflow:shapes"
    assert zoo("sample", "--json").json["reference"] == "tarflow:shapes"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "tarflow:shapes"),
        ({"text": True}, "mdm:shapes"),
        ({"parts": True}, "layerdiff:shapes"),
        ({"parts": True, "text": True}, "layerdiff:shapes"),
        ({"pictures": True}, "illume:shapes"),
        ({"pictures": True, "text": True}, "illume:shapes"),
    ],
)
def test_what_a_request_holds_chooses_the_built_in_model(zoo, given, expected):
    assert default_reference(**given) == expected
    assert zoo("config", "set", "model", "toy:shapes").code == 0
    assert default_reference(**given) == "toy:shapes"


def test_a_task_or_a_picture_alone_is_for_the_model_of_many_tasks(zoo, monkeypatch):
    """On the command line and in Python; the options that follow may not change that."""
    asked = []

    def resolved(self, reference):
        asked.append(reference)
        raise NotFound("stopped here")

    Image(torch.zeros(3, 32, 32)).save("x.png")
    monkeypatch.setattr(Session, "resolve", resolved)
    for arguments in (
        ("--task", "describe", "--image", "x.png"),
        ("--task", "text", "-p", "how many objects are there"),
        ("--image", "x.png", "-p", "make it red"),
    ):
        assert zoo("sample", *arguments).code == ExitCode.NOT_FOUND
    with pytest.raises(NotFound, match="stopped here"):
        api.sample(task="describe", images={"image": torch.zeros(3, 32, 32)})
    assert asked == ["illume:shapes"] * 4


def test_the_configured_model_goes_before_both(zoo):
    assert zoo("config", "set", "model", "tarflow:shapes").code == 0
    assert zoo("sample", "-p", "a red circle", "--json").json["reference"] == "tarflow:shapes"


def test_the_same_prompt_said_carelessly_is_the_same_picture(zoo):
    first, second = (
        read_image(zoo("sample", "-p", prompt, "-o", name).lines[0])
        for name, prompt in [
            ("a.png", "a red ring above a green cross"),
            ("b.png", "Red ring above green cross."),
        ]
    )
    assert bool((first == second).all())


@pytest.mark.parametrize(
    ("prompt", "problem", "hint"),
    [
        ("a cat", "this model does not know the word 'cat'", "It knows:"),
        ("a red circle and a blue square", "and", "left of"),
        ("red", "red", "such as"),
    ],
)
def test_what_is_no_caption_is_told_before_anything_is_loaded(zoo, prompt, problem, hint):
    result = zoo("sample", "-p", prompt, "--weights", "absent.safetensors")
    assert result.code == ExitCode.USAGE
    first = result.err.splitlines()[0]
    assert first.startswith("Error: ") and problem in first
    assert hint in result.err and "Traceback" not in result.err


def test_prompts_of_a_file_give_the_same_pictures_in_any_order_and_batch(zoo, tmp_path):
    lines = [
        "a red circle",
        "a blue square above a pink ring",
        "a green cross at the top left",
        "a red circle",
    ]
    drawn = []
    for name, order, size in [("one", lines, 4), ("two", lines[::-1], 1)]:
        prompts = tmp_path / f"{name}.txt"
        prompts.write_text("\n".join(order), encoding="utf-8")
        result = zoo("sample", "--prompts", prompts, "-o", name, "--batch-size", size, "--steps", 3, "--json")
        assert result.code == 0, result.err
        drawn.append({output["prompt"]: output["path"] for output in result.json["outputs"]})
    for prompt in lines:
        first, second = (read_image(paths[prompt]) for paths in drawn)
        # A batch of another size adds up in another order, which may turn the last of 8 bits.
        assert float((first - second).abs().max()) <= 1.01 / 255


def test_a_wrong_line_of_a_file_is_told_before_the_first_is_drawn(zoo, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na red hexagon\n", encoding="utf-8")
    result = zoo("sample", "--prompts", prompts, "-o", "out")
    assert result.code == ExitCode.USAGE
    assert "'hexagon'" in result.err and not Path("out").exists()


def test_a_negative_prompt_is_read_like_a_prompt(zoo):
    usual, other = (
        read_image(zoo("sample", "-p", "a red circle", *more, "-o", name, "--steps", 5).lines[0])
        for name, more in [("a.png", ()), ("b.png", ("--negative", "a red square"))]
    )
    assert float((usual - other).abs().max()) > 0.05
    refused = zoo("sample", "-p", "a red circle", "--negative", "dust")
    assert refused.code == ExitCode.USAGE and "'dust'" in refused.err


def test_without_its_extra_a_model_names_it(zoo, monkeypatch):
    # None in this table is what Python takes for a module that cannot be found.
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "zoo_mdm.t5", raising=False)
    result = zoo("sample", "mdm", "--prompt", "a cat")
    assert result.code == ExitCode.PLUGIN
    assert result.err.splitlines() == [
        "Error: plugin 'mdm' needs the package 'transformers', which is not installed",
        "Hint: pip install 'zoo[mdm]'  (or the extra that the plugin's own package names)",
    ]


def test_without_its_files_a_model_tells_how_to_get_them(zoo):
    pytest.importorskip("transformers", reason="the extra zoo[mdm] is not installed")
    result = zoo("sample", "mdm", "--prompt", "a cat")
    assert result.code == ExitCode.NOT_FOUND
    assert [line.strip() for line in result.err.splitlines()] == [
        "Error: the weights of mdm:flickr64 are not on this machine",
        "Hint: zoo pull mdm:flickr64",
        "Without a download: zoo sample mdm:shapes",
    ]


def test_what_to_use_without_a_download_is_the_default_of_the_method_if_it_ships():
    card = load_catalogue().cards["illume"]
    assert [built_in_alternative(card), card.default] == ["illume:shapes", "shapes"]
    others = replace(card, default="3b")
    assert built_in_alternative(others) == "illume:shapes-tokenizer"
