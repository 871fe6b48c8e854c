"""`zoo eval` of models that draw in layers: the scores, the ablations, and what cannot be scored."""

from __future__ import annotations

import os
import sys

import PIL.Image
import pytest
from layered_truth import scene_of, shifted_masks, true_layers
from safetensors.torch import save_file
from third_party import install_plugin
from toy_method import tensors

from zoo.io.metadata import read_provenances
from zoo.io.request import Request
from zoo.runtime.model import load
from zoo.shapes.layer_evaluation import evaluate_layers

# A sampler that makes the layers asked for, but for what its options say.
LAYER_PAINTER = """
from dataclasses import dataclass, replace

from layered_truth import emptied, painted_into, reordered, scene_of, shifted_masks, true_layers
from zoo import hookimpl


@dataclass(frozen=True)
class Options:
    steps: int = 20
    guidance: float = 2.0
    solver: str = "dpm++"
    mask_guidance: float = 1.5  # at 0 masks stand three pixels beside their objects
    inter_layer: bool = True  # without, the last object is left out
    layer_prompts: bool = True  # without, objects are in each other's layers
    told: bool = True  # without, nobody learns what was drawn before masks were applied
    blind: str = ""  # this combination is painted as a pink cross


@dataclass(frozen=True)
class Plain:
    crowded: bool = True


def sample(loaded, batch, options, noise, on_step):
    return [painted(item, options) for item in batch.items]


def painted(item, options):
    assert len(item.part_prompts) == 2 + item.prompt.count(" of ") + sum(
        item.prompt.count(f" {word} ") for word in ("above", "below")
    )
    prompt = item.prompt.replace(options.blind, "pink cross") if options.blind else item.prompt
    image = true_layers(scene_of(prompt))
    if not options.mask_guidance:
        image = shifted_masks(image, 3)
    if not options.inter_layer:
        image = emptied(image, len(image.layers) - 1)
    if not options.layer_prompts:
        image = reordered(image, 0, *reversed(range(1, len(image.layers))))
    return image if options.told else replace(image, drawn=None)


def crowded(loaded, batch, options, noise, on_step):
    images = [true_layers(scene_of(item.prompt)) for item in batch.items]
    return [image if len(image.layers) < 3 else painted_into(image, 1, 2) for image in images]


@hookimpl
def register_samplers(register):
    kinds = {"makes": "layers", "part_prompts": True, "needs": ("painter",)}
    register("layer-painter", sample, options=Options, **kinds)
    register("crowder", crowded, options=Plain, **kinds)
    register("sculptor", sample, options=Options, makes="layered_truth:Layer", needs=("painter",))
"""

CARD = """
schema = 1
method = "stacked"
title = "Stacked"
summary = "Paints captions of the shapes world in layers"
tasks = ["text-to-layers"]
default = "shapes"
"""

VARIANT = """
[variant.{name}]
summary = "one of them"
architecture = "toy"
config = {{ size = 32 }}
sampler = {{ name = "layer-painter" }}
recipe = "toy-held-out"
{captions}
files = [{{ role = "model", source = ["toy.safetensors"] }}]
"""


@pytest.fixture
def stacked(zoo, tmp_path, monkeypatch):
    """Run `zoo eval` on models that draw in layers. Their recipe holds out red circles and blue rings."""
    install_plugin(tmp_path / "layer-painter", "layer_painter", LAYER_PAINTER, cards={})
    monkeypatch.syspath_prepend(str(tmp_path / "layer-painter"))
    monkeypatch.delitem(sys.modules, "acme_layer_painter", raising=False)
    folder = tmp_path / "cards"
    folder.mkdir()
    save_file(tensors(), folder / "toy.safetensors")
    variants = [
        VARIANT.format(name="shapes", captions='captions = "shapes"'),
        VARIANT.format(name="classes", captions='classes = ["red circle"]'),
        VARIANT.format(name="prose", captions=""),
    ]
    (folder / "stacked.toml").write_text(CARD + "".join(variants), encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(folder))

    def call(*arguments, variant="shapes"):
        return zoo("eval", f"stacked:{variant}", *arguments)

    yield call
    sys.modules.pop("acme_layer_painter", None)


def share(correct: int, total: int) -> dict:
    return {"correct": correct, "total": total, "accuracy": correct / total}


def words(line: str) -> str:
    """A line without its columns."""
    return " ".join(line.split())


def test_a_model_whose_layers_are_true(stacked):
    document = stacked("--samples", "4,4,4", "--seed", 5, "--no-ablations", "--json").json
    assert (document["reference"], document["sampler"]) == ("stacked:shapes", "layer-painter")
    assert list(document["by_layers"]) == ["2", "3", "4"] and document["ablations"] == []
    for layers, score in document["by_layers"].items():
        objects = int(layers) - 1
        parted = {"seen": share(3, 3), "held_out": share(1, 1)}
        assert score == {
            "samples": 4,
            "all_layers": {**share(4, 4), **parted},
            "layers": share(4 * objects, 4 * objects),
            "masks": {"mean_iou": 1.0, "fits_from": 0.85, "fitting": share(4 * objects, 4 * objects)},
            "composites": {**share(4, 4), **parted},
            "backgrounds": share(4, 4),
        }
    assert document["all"]["layers"] == share(24, 24)
    assert [sample["seed"] for sample in document["samples"]] == list(range(5, 17))
    assert [len(sample["layers"]) for sample in document["samples"]] == [1] * 4 + [2] * 4 + [3] * 4
    assert document["stated"] == {"steps": 20, "guidance": 2.0, "mask_guidance": 1.5, "solver": "dpm++"}
    assert (document["grid"], document["changed"]) == (None, {})


def test_ablations_ask_some_of_the_same_questions_again(stacked):
    document = stacked("--samples", "4,4,0", "--ablation-samples", 2, "--json").json
    assert [entry["changed"] for entry in document["ablations"]] == [
        {},
        {"mask_guidance": 0.0},
        {"inter_layer": False},
        {"layer_prompts": False},
    ]
    as_it_is, masks, apart, unprompted = document["ablations"]
    assert [entry["all"]["samples"] for entry in document["ablations"]] == [4] * 4
    assert as_it_is["all"]["masks"]["mean_iou"] == 1.0
    # Masks beside their objects overlap as much as they do.
    samples = document["samples"]
    expected = []
    for prompt in (samples[index]["prompt"] for index in (0, 2, 4, 6)):
        image = true_layers(scene_of(prompt))
        for truth, moved in zip(image.layers[1:], shifted_masks(image, 3).layers[1:], strict=True):
            covered, masked = truth.pixels[3] > 0.5, moved.pixels[3] > 0.5
            expected.append(float((covered & masked).sum() / (covered | masked).sum()))
    assert masks["all"]["masks"]["mean_iou"] == pytest.approx(sum(expected) / 6)
    assert masks["all"]["masks"]["mean_iou"] < 0.7 and masks["all"]["masks"]["fitting"] == share(0, 6)
    # The last object is missing: half of the layers of two objects, and every composite.
    assert apart["by_layers"]["2"]["layers"] == share(0, 2)
    assert apart["by_layers"]["3"]["layers"] == share(2, 4)
    assert apart["by_layers"]["3"]["masks"]["mean_iou"] == 0.5
    assert apart["all"]["all_layers"]["correct"] == apart["all"]["composites"]["correct"] == 0
    # Objects in each other's layers: one alone is in its own.
    assert unprompted["by_layers"]["2"]["layers"] == share(2, 2)
    assert unprompted["by_layers"]["3"]["layers"] == share(0, 4)
    assert unprompted["all"]["composites"] == {**as_it_is["all"]["composites"]}


def test_what_is_off_already_or_not_there_is_no_ablation(stacked):
    few = ("--samples", "0,1,0", "--json")
    off = stacked(*few, "-O", "inter_layer=false", "-O", "mask_guidance=0").json
    assert [entry["changed"] for entry in off["ablations"]] == [{}, {"layer_prompts": False}]
    assert off["stated"]["inter_layer"] is False and off["stated"]["mask_guidance"] == 0.0
    crowded = stacked(*few, "--sampler", "crowder").json
    assert crowded["ablations"] == [] and crowded["sampler"] == "crowder"
    assert crowded["all"]["layers"] == share(1, 2)
    assert crowded["all"]["masks"]["mean_iou"] == 0.5
    assert crowded["all"]["composites"]["accuracy"] == 1.0


def test_the_report(stacked):
    result = stacked("--samples", "4,4,0", "--ablation-samples", 2, "-O", "blind=red circle")
    report = result.lines
    assert report[0] == "model               stacked:shapes"
    assert words(report[1]) == "all layers right all seen in training held out"
    assert report[2].startswith("  two layers        ") and report[3].startswith("  three layers      ")
    assert report[4].startswith("  all samples       ")
    assert words(report[5]) == "each layer object right mask IoU 0.85 or more background right"
    assert report[7].endswith("1.000     100.0% (8 of 8)    100.0% (4 of 4)")
    assert words(report[9]) == "composite right all seen in training held out"
    assert report[13].startswith("seconds per sample  ")
    options = "steps=20, guidance=2.0, mask_guidance=1.5, solver=dpm++, blind=red circle"
    assert report[14] == f"sampler             layer-painter: {options}"
    assert report[15:17] == ["run                 cpu, float32, seed 0", ""]
    assert report[17].startswith("ablation  ")
    rows = [line.split() for line in report[18:26]]
    assert [row[:4] for row in rows[::4]] == [["two", "layers", "as", "it"], ["three", "layers", "as", "it"]]
    assert [row[2] for row in rows[1:4]] == ["mask_guidance=0.0", "inter_layer=false", "layer_prompts=false"]
    # Samples, all layers, each layer, masks, composite.
    assert rows[2][3:] == ["2", "0.0%", "0.0%", "0.000", "0.0%"]
    assert rows[6][3:6] == ["2", "0.0%", "50.0%"] and rows[6][6:] == ["0.500", "0.0%"]
    assert len(report) == 26


def test_failures_say_what_is_wrong_where(stacked):
    arguments = ("--samples", "0,4,0", "--no-ablations", "--failures", "-O", "inter_layer=false")
    lines = stacked(*arguments).lines
    samples = stacked(*arguments, "--json").json["samples"]
    listed = lines.index(next(line for line in lines if line.startswith("failed prompt")))
    rows = lines[listed + 1 :]
    assert len(rows) == 8
    for sample, first, second in zip(samples, rows[::2], rows[1::2], strict=True):
        start = f"{sample['prompt']} {sample['seed']}"
        assert words(first) == f"{start} composite {sample['shows']}"
        where = f"layer 2: {sample['part_prompts'][2]}"
        assert words(second) == f"{start} {where} unclear: the picture holds no object"


def test_the_three_figures_alone(stacked):
    few = ("--samples", "0,2,0", "--no-ablations", "-q")
    assert stacked(*few).lines == ["1.0", "1.0", "1.0"]
    assert stacked(*few, "-O", "layer_prompts=false").lines == ["0.0", "1.0", "1.0"]
    assert stacked(*few, "-O", "told=false").lines[::2] == ["1.0", "1.0"]
    report = stacked(*few[:-1], "-O", "told=false")
    assert "not told" in report.lines[4]


def test_the_sheet_shows_composites_and_layers_in_rows(stacked, zoo):
    result = stacked("--samples", "3,2,2", "--no-ablations", "--grid", "sheet.png")
    assert result.lines[-1] == "sheet.png"
    # Three columns as wide as the picture of four layers: the composite and each layer.
    wide, high = 5 * 34 - 2, 32
    with PIL.Image.open("sheet.png") as picture:
        assert picture.size == (3 * (wide + 6) - 6, 2 * (high + 6) - 6)
    assert [made.seed for made in read_provenances("sheet.png")] == [0, 3, 5, 1, 4, 6]
    assert [len(made.part_prompts) for made in read_provenances("sheet.png")] == [2, 3, 4, 2, 3, 4]


def test_pictures_are_kept_only_on_request_and_progress_counts_all_runs(stacked):
    loaded = load("stacked:shapes", device="cpu")
    counts, runs = [], []
    evaluation = evaluate_layers(
        loaded, (2, 2, 0), ablation_samples=1, on_sample=counts.append, on_run=runs.append
    )
    assert counts == list(range(1, 11)) and runs == [4, 2, 2, 2]
    assert evaluation.pictures == ()
    kept = evaluate_layers(loaded, (3, 1, 0), ablation_samples=0, keep_rows=8)
    assert len(kept.pictures) == 2 and kept.ablations == ()


def test_samples_do_not_depend_on_how_many_are_drawn_at_once(stacked):
    loaded = load("stacked:shapes", device="cpu")
    one, all_at_once = (
        evaluate_layers(loaded, (2, 2, 1), how=Request(batch_size=size), ablation_samples=0)
        for size in (1, None)
    )
    assert one.answers == all_at_once.answers


def test_how_many_samples(stacked):
    help_text = " ".join(stacked("--help").out.split())
    assert "(default 160,160,80)" in help_text and "(default 40)" in help_text
    everyone = stacked("--samples", 1, "--no-ablations", "--json").json
    assert [sample["seed"] for sample in everyone["samples"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "variant", "code", "text"),
    [
        (("--samples", "1,2"), "shapes", 2, "'1,2' is not one whole number or three, such as 160,160,80."),
        (("--samples", "a"), "shapes", 2, "'a' is not one whole number or three"),
        (("--samples", "0"), "shapes", 2, "samples are 0, 0, 0, expected the numbers of pictures"),
        (("--per-class", 1), "shapes", 2, "--per-class is for models whose samplers make image"),
        (("--pairs", 0), "shapes", 2, "--pairs is for models whose samplers make image"),
        (("--renders", 0), "shapes", 2, "--renders is for models whose samplers make image"),
        (("--ablation-samples", 0), "shapes", 2, "'--ablation-samples'"),
        (("--grid", "sheet.ora"), "shapes", 2, "unknown picture format '.ora'"),
        (("--sampler", "sculptor"), "shapes", 2, "makes layered_truth:Layer, which nobody here can judge"),
        ((), "classes", 2, "stacked:classes reads no captions: it cannot be asked for layers"),
        ((), "prose", 2, "stacked:prose is not a model of the shapes world"),
    ],
)
def test_what_is_refused(stacked, arguments, variant, code, text):
    result = stacked(*arguments, variant=variant)
    assert result.code == code and text in result.err and result.out == ""
    assert os.listdir() == []


@pytest.mark.parametrize("option", [("--samples", 4), ("--no-ablations",), ("--ablation-samples", 4)])
def test_options_about_layers_are_refused_by_other_models(zoo, option):
    result = zoo("eval", "toy", *option)
    name = "--ablations" if option == ("--no-ablations",) else option[0]
    assert result.code == 2 and f"{name} is for models whose samplers make layers" in result.err
