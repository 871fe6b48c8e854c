"""docs/diffusion.md: its code runs, and its tables follow the code."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from pathlib import Path
from typing import get_args

import zoo.diffusion
from zoo.diffusion.spacing import Spacing
from zoo.diffusion.thresholds import Threshold
from zoo.registry import resolve
from zoo.runtime.capabilities import Denoiser
from zoo.session import Session
from zoo_diffusion import SAMPLERS

GUIDE = (Path(__file__).parents[2] / "docs" / "diffusion.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table whose first column has this heading."""
    table = GUIDE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_code_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {"__name__": "guide"}
    runner = compile(block, "docs/diffusion.md", "exec")
    exec(runner, scope)
    assert isinstance(scope["model"], Denoiser)


def test_every_sampler_is_documented() -> None:
    assert [row[0].strip("`") for row in rows("sampler")] == list(SAMPLERS)


def test_every_option_is_documented() -> None:
    session = Session()
    named: set[str] = set()
    for name in SAMPLERS:
        sampler = session.sampler(name, "a test")
        named |= {field.name for field in dataclasses.fields(resolve(sampler.options, sampler.owner))}
    assert {row[0].strip("`") for row in rows("option")} == named


def test_default_steps_are_those_of_the_options() -> None:
    session = Session()
    text = next(row for row in rows("option") if row[0] == "`steps`")[1]
    assert text == "50; `ddpm` 250, `heun` and both `dpm++` 25"
    defaults = {}
    for name in SAMPLERS:
        sampler = session.sampler(name, "a test")
        defaults[name] = resolve(sampler.options, sampler.owner)().steps
    expected = {"ddpm": 250, "ddim": 50, "euler": 50, "heun": 25, "dpm++": 25, "dpm++3m": 25}
    assert defaults == expected


def test_every_choice_is_documented() -> None:
    meanings = {row[0].strip("`"): " ".join(row[1:]) for row in rows("option")}
    for option, choices in (("threshold", Threshold), ("spacing", Spacing)):
        assert set(re.findall(r"`(\w+)`", meanings[option])) == set(get_args(choices))


def test_every_module_is_documented() -> None:
    text = " ".join(row[0] for row in rows("module of `zoo.diffusion`"))
    modules = {module.name for module in pkgutil.iter_modules(zoo.diffusion.__path__)}
    assert set(re.findall(r"`(\w+)`", text)) == modules
