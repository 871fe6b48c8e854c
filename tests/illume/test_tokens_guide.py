"""docs/tokens.md: its code runs, and its tables follow the code."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from planned_parts import GIB, machine

import zoo.runtime.tokens
from zoo.catalogue import load_catalogue
from zoo.errors import DoesNotFit
from zoo.io.request import Request
from zoo.runtime.capabilities import TokenLM
from zoo.runtime.memory_plan import Wish, fitting_place
from zoo.runtime.prepare import find_sampler, sampler_options
from zoo.session import Session
from zoo.shapes import agrees
from zoo_cli.memory_report import plan_lines
from zoo_illume.model_config import SIZES
from zoo_illume.options import DrawOptions, EditOptions, TextOptions
from zoo_illume.recipe import PROMPT_DROP, ShapesNamesRecipe, ShapesRecipe

GUIDE = (Path(__file__).parents[2] / "docs" / "tokens.md").read_text(encoding="utf-8")

#: Columns of the table of options, and the class behind each.
COLUMNS = {1: DrawOptions, 2: EditOptions, 3: TextOptions}


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table whose first column has this heading."""
    table = GUIDE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def run_block(number: int) -> dict[str, object]:
    """What the names stand for after one of the two programs of the guide has run."""
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    scope: dict[str, object] = {"__name__": "guide"}
    exec(compile(blocks[number], "docs/tokens.md", "exec"), scope)
    return scope


def test_the_program_of_four_tasks_draws_edits_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_block(0)
    assert agrees(made["scene"].pixels, "a large red circle left of a small blue square")
    assert agrees(made["edited"].pixels, "a large green circle left of a small blue square")
    assert capsys.readouterr().out == f"{made['answer'].text}\n"
    assert "green circle" in made["answer"].text and "blue square" in made["answer"].text
    assert "blue ring" in made["told"].text


def test_the_model_of_ones_own_writes() -> None:
    made = run_block(1)
    assert isinstance(made["model"], TokenLM)
    assert made["written"]


def shown(value: object, cell: str, known: set[str]) -> str:
    """How the table shows a default; one that is taken from another option is shown by its name."""
    if value is None:
        (other,) = re.findall(r"^(?:3 )?`(\w+)`$", cell)
        assert other in known
        return cell
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


@pytest.mark.parametrize("column", COLUMNS)
def test_every_option_is_documented_with_its_default(column: int) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(COLUMNS[column])}
    told = {row[0].strip("`"): row[column] for row in rows("option") if row[column] != "-"}
    assert told == {name: shown(value, told[name], set(told)) for name, value in defaults.items()}


def test_defaults_from_other_options_are_those_that_the_table_names() -> None:
    references = {row[0].strip("`"): row[1] for row in rows("option")}
    given = {"temperature": 0.5, "top_k": 7, "top_p": 0.25}
    values = dict(given)
    settings = DrawOptions(**given).settings
    for prefix, setting in zip(("semantic", "pixel"), settings, strict=True):
        for name, value in zip(("temperature", "top_k", "top_p"), setting, strict=True):
            factor, other = re.fullmatch(r"(3 )?`(\w+)`", references[f"{prefix}_{name}"]).groups()
            assert value == (3 if factor else 1) * values[other]
            values[f"{prefix}_{name}"] = value


def test_every_decoder_is_documented() -> None:
    told = [row[0].strip("`") for row in rows("`-O decoder=`")]
    assert told == list(get_args(get_type_hints(DrawOptions)["decoder"]))


def test_every_size_is_documented() -> None:
    listed = re.search(r"without `--size` the first:\s+(.*?)\. A picture", GUIDE, re.DOTALL)
    assert listed is not None
    assert listed[1].replace("\n", " ").split(", ") == [f"{width}x{height}" for height, width in SIZES]


def test_every_task_of_the_card_is_documented() -> None:
    card = load_catalogue().cards["illume"]
    told = {row[0].strip("`") for row in rows("`--task`")} - {"none"}
    for name in ("shapes", "3b", "7b"):
        assert set(card.variants[name].tasks) == told
    variants = re.findall(r"`illume:([\w-]+)`", " ".join(row[0] for row in rows("model")))
    assert sorted(variants) == sorted(card.variants)


def test_settings_of_the_small_model_are_those_of_its_card() -> None:
    variant = load_catalogue().cards["illume"].variants["shapes"]
    told = re.search(r"The card of `illume:shapes` sets (.*?)\n`zoo show`", GUIDE, re.DOTALL)
    assert told is not None
    draw, edit, text = variant.sampler, variant.tasks["edit"], variant.tasks["text"]
    assert " ".join(told[1].split()) == (
        f"`top_k` to {draw['top_k']} for pictures, "
        f"`temperature` to {draw['temperature']} and `guidance` to {draw['guidance']} for drawing, "
        f"`temperature` to {edit['temperature']} and `guidance` to {edit['guidance']:g} for edits, "
        f"and `temperature` to {text['temperature']:g} for texts, "
        f"which end after {text['max_tokens']} tokens."
    )
    assert edit["top_k"] == draw["top_k"]
    assert {**variant.tasks["describe"], "name": text["name"]} == text


def test_shares_of_the_recipe_are_those_of_the_code() -> None:
    stages = {
        ShapesRecipe: r"all four tasks at once: (.*?)\. Its",
        ShapesNamesRecipe: r"that a name means: (.*?)a quarter of the questions asks for the whole",
    }
    for recipe, sentence in stages.items():
        told = re.search(sentence, GUIDE, re.DOTALL)
        assert told is not None
        shares = [int(share) for share in re.findall(r"(\d+) %", told[1])]
        assert shares == [round(100 * share) for share in recipe.shares.values()]
    assert ShapesNamesRecipe.described == 0.25
    assert PROMPT_DROP == 0.1 and "In a tenth of the drawings" in GUIDE


def test_every_module_is_documented() -> None:
    text = " ".join(row[0] for row in rows("module of `zoo.runtime.tokens`"))
    modules = {module.name for module in pkgutil.iter_modules(zoo.runtime.tokens.__path__)}
    assert set(re.findall(r"`(\w+)`", text)) == modules


def wish(reference: str) -> Wish:
    """A picture by a model whose files are not here."""
    session, request = Session(), Request(prompts="a cup of tea on a wooden table")
    card, variant = session.resolve(reference)
    sampler = find_sampler(session, card, variant, session.architecture(card, variant))
    options = sampler_options(sampler, variant, request)
    return Wish(session, card, variant, request, options, {}, device="cuda")


def test_memory_plans_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda0=23.5)
    _, need = fitting_place(wish("illume:3b"))
    assert need.free == int(23.5 * GIB)
    assert "```text\n" + "\n".join(plan_lines(need)) + "\n```\n" in GUIDE
    with pytest.raises(DoesNotFit) as caught:
        fitting_place(wish("illume:7b"))
    assert f"\nError: {caught.value.message}\nHint: " in GUIDE
