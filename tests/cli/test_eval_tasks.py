"""`zoo eval` of models that do more than draw: the truth scores 1, anything else 0, task by task."""

from __future__ import annotations

import sys

import pytest
from safetensors.torch import save_file
from third_party import install_plugin
from toy_method import tensors

# Samplers that look with the judge and answer truly, or, with wrong=true, always the same.
ORACLE = """
from dataclasses import dataclass

from zoo import hookimpl
from zoo.io.artifacts import Image
from zoo.io.text import Text
from zoo.shapes import Item, Scene, judge, parse, render
from zoo.shapes.instructions import apply, parse_instruction
from zoo.shapes.questions import answer_of, parse_question, parse_text_question, text_answer_of

CELLS = {"left of": (1, 2), "right of": (1, 0), "above": (2, 1), "below": (0, 1)}
WRONG = render(Scene("silver", (Item("cross", "pink", "small", (0, 0)),)), 32)


@dataclass(frozen=True)
class Options:
    wrong: bool = False


def pictures(batch):
    return batch.images_of("image")


def draw(loaded, batch, options, noise, on_step):
    return [Image(WRONG if options.wrong else painted(item.prompt)) for item in batch.items]


def painted(prompt):
    said = parse(prompt)
    cells = [(1, 1), *(CELLS[relation] for relation in said.relations)]
    items = [Item(m.shape, m.colour, "small", cell) for m, cell in zip(said.objects, cells)]
    return render(Scene("white", tuple(items)), 32)


def edit(loaded, batch, options, noise, on_step):
    made = []
    for item, picture in zip(batch.items, pictures(batch)):
        changed = apply(parse_instruction(item.prompt), judge(picture))
        made.append(Image(picture if options.wrong else render(changed, 32)))
    return made


def describe(loaded, batch, options, noise, on_step):
    return [
        Text("a pink cross" if options.wrong else answer_of(parse_question(item.prompt), judge(picture)))
        for item, picture in zip(batch.items, pictures(batch))
    ]


def write(loaded, batch, options, noise, on_step):
    return [
        Text("no idea" if options.wrong else text_answer_of(parse_text_question(item.prompt)))
        for item in batch.items
    ]


def copy(loaded, batch, options, noise, on_step):
    assert type(loaded.model).__name__ == "Toy" and all(item.prompt is None for item in batch.items)
    return [Image(WRONG if options.wrong else picture) for picture in pictures(batch)]


@hookimpl
def register_samplers(register):
    def one(name, sample, task, **more):
        register(name, sample, options=Options, needs=("painter",), tasks=(task,), **more)

    one("oracle-draw", draw, "text-to-image")
    one("oracle-edit", edit, "image-editing", images=("image",), prompt="required")
    one("oracle-describe", describe, "image-to-text", images=("image",), makes="text")
    one("oracle-text", write, "text-to-text", makes="text", prompt="required")
    one("oracle-copy", copy, "reconstruction", images=("image",), prompt="none")
"""

CARD = """
schema = 1
method = "oracle"
title = "Oracle"
summary = "Knows the shapes world"
tasks = ["text-to-image", "image-editing", "image-to-text", "text-to-text", "reconstruction"]
default = "shapes"

[variant.shapes]
summary = "all tasks"
architecture = "toy"
config = { size = 32 }
sampler = { name = "oracle-draw" }
recipe = "toy-held-out"
captions = "shapes"
files = [{ role = "model", source = ["toy.safetensors"] }, { role = "eyes", source = ["toy.safetensors"] }]
components.eyes = { architecture = "toy", config = { size = 32 } }

[variant.shapes.tasks]
edit = { name = "oracle-edit" }
describe = { name = "oracle-describe" }
text = { name = "oracle-text" }

[variant.copier]
summary = "gives pictures back"
architecture = "toy"
config = { size = 32 }
sampler = { name = "oracle-copy" }
recipe = "toy-held-out"
captions = "shapes"
files = [{ role = "model", source = ["toy.safetensors"] }]
"""

TITLES = ["editing", "describing", "answering texts", "reconstruction", "drawn, then described"]


@pytest.fixture
def oracle(zoo, tmp_path, monkeypatch):
    """Run `zoo eval` on models whose recipe holds out red circles and blue rings."""
    install_plugin(tmp_path / "oracle", "oracle", ORACLE, cards={})
    monkeypatch.syspath_prepend(str(tmp_path / "oracle"))
    monkeypatch.delitem(sys.modules, "acme_oracle", raising=False)
    folder = tmp_path / "cards"
    folder.mkdir()
    save_file(tensors(), folder / "toy.safetensors")
    (folder / "oracle.toml").write_text(CARD, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(folder))

    def call(*arguments, variant="shapes"):
        return zoo("eval", f"oracle:{variant}", *arguments)

    yield call
    sys.modules.pop("acme_oracle", None)


def test_the_truth_scores_everything(oracle):
    result = oracle("--questions", 4, "--per-class", 1, "--pairs", 4, "--renders", 0, "--json")
    document = result.json
    assert document["reference"] == "oracle:shapes" and document["grid"] is None
    tasks = document["tasks"]
    assert list(tasks) == [
        "text-to-image",
        "image-editing",
        "image-to-text",
        "text-to-text",
        "reconstruction",
    ]
    assert {name: task["accuracy"] for name, task in tasks.items()} == dict.fromkeys(tasks, 1.0)
    assert document["round_trip"]["accuracy"] == 1.0
    samplers = {name: task["sampler"] for name, task in tasks.items()}
    assert samplers["image-editing"] == "oracle-edit" and samplers["reconstruction"] == "oracle-copy"
    edits = tasks["image-editing"]["groups"]
    assert list(edits) == ["recolour", "reshape", "resize", "move", "remove", "background"]
    assert all((group["total"], group["held_out"]["total"]) == (4, 1) for group in edits.values())
    described = tasks["image-to-text"]["groups"]
    assert described["one object: colour, shape, place"]["total"] == 48
    assert described["one object: colour, shape, place"]["held_out"]["total"] == 2
    assert {name for name in described if name.startswith("question: ")} == {
        f"question: {about}"
        for about in ("colour", "background", "size", "place", "shape", "relation", "number")
    }
    trip = document["round_trip"]["groups"]
    assert [(name, group["total"]) for name, group in trip.items()] == [
        ("one object", 48),
        ("two objects", 4),
    ]
    assert all(task["failures"] == [] for task in tasks.values())


def test_the_report_names_every_exam(oracle):
    result = oracle("--questions", 1, "--per-class", 1, "--pairs", 0, "--renders", 0)
    assert result.code == 0, result.err
    heads = [line.split("  ")[0] for line in result.lines]
    assert [head for head in heads if head in TITLES] == TITLES
    assert heads[:2] == ["model", "prompt accuracy"]
    assert any(line.startswith("  recolour ") and "100.0% (1 of 1)" in line for line in result.lines)
    assert any(line.startswith("sampler ") and "oracle-describe" in line for line in result.lines)


@pytest.mark.parametrize(
    ("task", "registered"),
    [
        ("edit", "image-editing"),
        ("describe", "image-to-text"),
        ("text", "text-to-text"),
    ],
)
def test_wrong_answers_score_nothing(oracle, task, registered):
    document = oracle("--task", task, "--questions", 2, "-O", "wrong=true", "--json").json
    assert list(document["tasks"]) == [registered] and document["round_trip"] is None
    scored = document["tasks"][registered]
    assert scored["accuracy"] == 0.0 and scored["changed"] == {"wrong": True}
    assert len(scored["failures"]) == scored["all"]["total"]
    first = scored["failures"][0]
    assert first["prompt"] and first["expected"] and first["shows"] != first["expected"]


def test_pictures_that_are_given_back(oracle):
    right = oracle("--questions", 2, "--json", variant="copier").json["tasks"]["reconstruction"]
    assert right["accuracy"] == 1.0 and right["sampler"] == "oracle-copy"
    assert list(right["groups"]) == ["one object", "two objects", "three objects"]
    wrong = oracle("--questions", 1, "-O", "wrong=true", "--failures", variant="copier")
    assert "0.0% (0 of 2)" in wrong.out and "failed: reconstruction" in wrong.out
    assert oracle("--questions", 1, "-q", variant="copier").lines == ["1.0"]


def test_the_same_seed_asks_the_same(oracle):
    def failures(*arguments):
        document = oracle("--task", "text", "--questions", 1, "-O", "wrong=true", "--json", *arguments).json
        return [(entry["prompt"], entry["seed"]) for entry in document["tasks"]["text-to-text"]["failures"]]

    assert failures() == failures("--seed", 0)
    assert failures("--seed", 5) != failures() and failures("--seed", 5)[0][1] == 5


@pytest.mark.parametrize(
    ("arguments", "variant", "text"),
    [
        (
            ("--guidance", 2),
            "shapes",
            "oracle:shapes has several tasks, and options are those of one sampler",
        ),
        (("-O", "wrong=true"), "shapes", "Choose one with --task: text-to-image, edit, describe, text"),
        (("--task", "paint"), "shapes", "oracle:shapes has no task 'paint'"),
        (("--task", "edit", "--sampler", "oracle-edit"), "shapes", "expected one of them"),
        (("--samples", 3), "shapes", "--samples is for models whose samplers make layers"),
        (("--grid", "sheet.png"), "copier", "no exam of this model draws from prompts"),
        (("--questions", 0), "shapes", "--questions"),
    ],
)
def test_what_is_refused(oracle, arguments, variant, text):
    result = oracle(*arguments, variant=variant)
    assert result.code == 2 and text in result.err


def test_questions_are_not_for_models_that_only_draw(zoo):
    result = zoo("eval", "toy", "--questions", 3)
    assert result.code == 2 and "--questions is for models that do more than draw" in result.err
