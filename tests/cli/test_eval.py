"""`zoo eval`: the score, what it is made of, and what cannot be scored."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import PIL.Image
import pytest
import torch
from safetensors.torch import save_file
from third_party import install_plugin
from toy_method import tensors

from zoo.io.metadata import read_provenances
from zoo.io.request import Request
from zoo.runtime.model import load
from zoo.runtime.noise import BatchNoise
from zoo.shapes.batches import single_objects
from zoo.shapes.evaluation import evaluate, to_8_bit
from zoo.shapes.exam import DEFAULT_PAIRS

# A sampler that paints its captions truly, but for what its options say.
PAINTER = """
from dataclasses import dataclass

from zoo import hookimpl
from zoo.io.artifacts import Image
from zoo.shapes import Item, Scene, parse, render

CELLS = {
    "left of": ((1, 0), (1, 2)),
    "right of": ((1, 2), (1, 0)),
    "above": ((0, 1), (2, 1)),
    "below": ((2, 1), (0, 1)),
}


@dataclass(frozen=True)
class Options:
    steps: int = 20
    guidance: float = 2.0
    relation: str = ""  # place all pairs like this
    blind: tuple[str, ...] = ()  # paint these combinations as pink crosses


def sample(loaded, batch, options, noise, on_step):
    return [Image(painted(item.prompt, options)) for item in batch.items]


def painted(prompt, options):
    said = parse(prompt)
    cells = ((1, 1),)
    if said.relations:
        cells = CELLS[options.relation or said.relations[0]]
    items = []
    for mention, cell in zip(said.objects, cells):
        name = f"{mention.colour} {mention.shape}"
        colour, shape = ("pink cross" if name in options.blind else name).split()
        items.append(Item(shape, colour, "small", cell))
    return render(Scene("white", tuple(items)), 32)


@hookimpl
def register_samplers(register):
    register("painter", sample, options=Options, needs=("painter",))
"""

CARD = """
schema = 1
method = "captioned"
title = "Captioned"
summary = "Paints captions of the shapes world"
tasks = ["text-to-image"]
default = "shapes"
"""

VARIANT = """
[variant.{name}]
summary = "one of them"
architecture = "toy"
config = {{ size = 32 }}
sampler = {{ name = "painter" }}
recipe = "toy-held-out"
{captions}
files = [{{ role = "model", source = ["toy.safetensors"] }}]
"""


@pytest.fixture
def captioned(zoo, tmp_path, monkeypatch):
    """Run `zoo eval` on models that read texts: `shapes`, whose are captions, and `prose`.

    Their recipe holds out red circles and blue rings.
    """
    install_plugin(tmp_path / "painter", "painter", PAINTER, cards={})
    monkeypatch.syspath_prepend(str(tmp_path / "painter"))
    monkeypatch.delitem(sys.modules, "acme_painter", raising=False)
    folder = tmp_path / "cards"
    folder.mkdir()
    save_file(tensors(), folder / "toy.safetensors")
    variants = [
        VARIANT.format(name="shapes", captions='captions = "shapes"'),
        VARIANT.format(name="prose", captions=""),
    ]
    (folder / "captioned.toml").write_text(CARD + "".join(variants), encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(folder))

    def call(*arguments, variant="shapes"):
        return zoo("eval", f"captioned:{variant}", "--per-class", 1, "--renders", 0, *arguments)

    yield call
    sys.modules.pop("acme_painter", None)


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
    shows = "a large pink cross in the centre on a white background"
    assert document["failures"] == [
        {"prompt": "a blue ring", "seed": seed, "shows": shows} for seed in (16, 17)
    ]
    text = zoo(*arguments, "--failures")
    assert "prompt accuracy     75.0% (6 of 8, 2 a combination)" in text.lines
    assert "seen in training    75.0% (6 of 8)" in text.lines and "held out            none" in text.lines
    assert f"a blue ring      16  {shows}" in text.lines
    assert "two objects" not in text.out
    assert "wrong=blue ring" in text.out, "all options are stated"
    assert zoo(*arguments, "-q").lines == ["0.75"]


def test_a_model_of_captions_is_asked_for_two_objects(captioned):
    document = captioned("--pairs", 16, "--seed", 5, "-O", "relation=left of", "--json").json
    single, two = document["single_objects"], document["two_objects"]
    assert (single["seen"], single["held_out"]) == (
        {"correct": 46, "total": 46, "accuracy": 1.0},
        {"correct": 2, "total": 2, "accuracy": 1.0},
    )
    assert (two["seen"], two["held_out"]) == (
        {"correct": 3, "total": 12, "accuracy": 0.25},
        {"correct": 1, "total": 4, "accuracy": 0.25},
    )
    assert (document["accuracy"], document["seen"], document["held_out"]) == (52 / 64, 49 / 58, 3 / 6)
    assert {name: share["correct"] for name, share in document["relations"].items()} == {
        "left of": 4,
        "right of": 0,
        "above": 0,
        "below": 0,
    }
    assert all(share["total"] == 4 for share in document["relations"].values())
    # Seeds are counted on from the single objects.
    assert [entry["seed"] for entry in document["pairs"]] == list(range(5 + 48, 5 + 64))
    wrong = [entry["seed"] for entry in document["pairs"] if not entry["correct"]]
    assert [entry["seed"] for entry in document["failures"]] == wrong and len(wrong) == 12


def test_the_report_on_a_model_of_captions(captioned, zoo):
    result = captioned("--pairs", 8, "-O", "blind=red circle,blue ring", "--failures", "--grid", "sheet.png")
    report = result.lines
    assert report[:6] == [
        "model               captioned:shapes",
        "prompt accuracy     all               seen in training   held out",
        "  single objects    95.8% (46 of 48)  100.0% (46 of 46)  0.0% (0 of 2)",
        "  two objects       75.0% (6 of 8)    100.0% (6 of 6)    0.0% (0 of 2)",
        "  all samples       92.9% (52 of 56)  100.0% (52 of 52)  0.0% (0 of 4)",
        "asked for           48 single objects (1 a combination), 8 pairs",
    ]
    assert report[6].startswith("seconds per sample  ")
    assert report[7:9] == [
        "sampler             painter: steps=20, guidance=2.0, blind=('red circle', 'blue ring')",
        "run                 cpu, float32, seed 0",
    ]
    worst = report.index("worst combinations  right  of  in pairs, right  of")
    named = [line.split("  ")[0] for line in report[worst + 1 : worst + 3]]
    assert named == ["red circle", "blue ring"]
    assert all(line.endswith("held out") for line in report[worst + 1 : worst + 3])
    relations = report.index("two objects  right  of")
    assert [line.split()[-1] for line in report[relations + 1 : relations + 5]] == ["2"] * 4
    assert sum(int(line.split()[-2]) for line in report[relations + 1 : relations + 5]) == 6
    listed = report.index(next(line for line in report if line.startswith("failed prompt")))
    assert len(report[listed + 1 :]) == 5 and report[-1] == "sheet.png"
    assert report[listed + 1].split("  ")[0] == "a red circle"
    with PIL.Image.open("sheet.png") as picture:
        assert picture.size == (32, 56 * 34 - 2)
    assert [made.seed for made in read_provenances("sheet.png")] == list(range(56))
    assert zoo("replay", "sheet.png", "--check").lines == ["sheet.png: identical"]


def test_how_many_pairs(captioned):
    # Empty pictures, which are judged in no time.
    plenty = captioned("--sampler", "toy-flat", "--json").json
    assert len(plenty["pairs"]) == DEFAULT_PAIRS == 320
    assert (plenty["two_objects"]["seen"]["total"], plenty["two_objects"]["held_out"]["total"]) == (240, 80)
    assert len({entry["prompt"] for entry in plenty["pairs"]}) == 320
    assert "(default 320)" in " ".join(captioned("--help").out.split())
    none = captioned("--sampler", "toy-flat", "--pairs", 0)
    assert none.lines[1:4] == [
        "prompt accuracy     0.0% (0 of 48, 1 a combination)",
        "seen in training    0.0% (0 of 46)",
        "held out            0.0% (0 of 2)",
    ]
    assert "sampler             toy-flat" in none.lines and "two objects" not in none.out
    assert captioned("--sampler", "toy-flat", "--pairs", 4, "-q").lines == ["0.0"]


def test_texts_that_are_no_captions_cannot_be_judged(captioned):
    result = captioned(variant="prose")
    assert result.code == 2 and "captioned:prose is not a model of the shapes world" in result.err


def test_progress_counts_pairs_too(captioned):
    counts = []
    evaluate(
        load("captioned:shapes", device="cpu"),
        per_class=1,
        how=Request(sampler="toy-flat"),
        renders=0,
        pairs=5,
        on_sample=counts.append,
    )
    assert counts == list(range(1, 54))


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
        (("toy", "--pairs", 4), 2, "toy:shapes reads no captions: it cannot be asked for two objects"),
        (("toytext:shapes", "--pairs", -1), 2, "'--pairs'"),
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
