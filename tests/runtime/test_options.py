"""Sampler options: layers, types, and what a wrong one says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from zoo.errors import InvalidInput
from zoo.runtime.options import build_options, changed_options


@dataclass(frozen=True)
class Options:
    steps: int = 20
    guidance: float = 1.0
    anneal: bool = False
    note: str = ""
    limit: int | None = None
    order: Literal[1, 2] = 1
    guide: Literal["ab", "a", ""] = "ab"
    betas: tuple[float, ...] = ()
    crop: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.guidance < 0:
            raise ValueError(f"guidance is {self.guidance}, expected at least 0")


def build(*layers):
    return build_options(Options, "demo", *layers)


def test_options_at_their_defaults_are_not_told():
    assert changed_options(build({"steps": 20, "note": "card"}, {"anneal": "yes"})) == {
        "anneal": True,
        "note": "card",
    }


def test_later_layers_win():
    assert build({"steps": 5, "note": "card"}, {"steps": 7}, {}) == Options(steps=7, note="card")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "12", 12),
        ("guidance", "2", 2.0),
        ("guidance", "1e-3", 0.001),
        ("anneal", "yes", True),
        ("anneal", "0", False),
        ("note", "3", "3"),
        ("limit", "4", 4),
        ("limit", "none", None),
        ("limit", None, None),
        ("order", "2", 2),
        ("guide", "", ""),
        ("betas", "0.5,0.9", (0.5, 0.9)),
        ("betas", [1, 2], (1.0, 2.0)),
        ("betas", "", ()),
        ("crop", "3,4", (3, 4)),
    ],
)
def test_texts_become_the_field_s_type(name, text, value):
    read = getattr(build({name: text}), name)
    assert read == value and type(read) is type(value)


def test_dashes_are_underscores():
    @dataclass(frozen=True)
    class Dashed:
        noise_std: float = 0.0

    assert build_options(Dashed, "demo", {"noise-std": "0.5"}) == Dashed(0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", "abc", "option steps is 'abc', expected a whole number"),
        ("steps", 2.5, "option steps is 2.5, expected a whole number"),
        ("steps", float("inf"), "option steps is inf, expected a whole number"),
        ("guidance", "much", "option guidance is 'much', expected a number"),
        ("guidance", "nan", "option guidance is 'nan', expected a number"),
        ("guidance", "inf", "option guidance is 'inf', expected a number"),
        ("anneal", "maybe", "option anneal is 'maybe', expected true or false"),
        ("order", "3", "option order is '3', expected one of: 1, 2"),
        ("betas", "0.5,x", "option betas is 'x', expected a number"),
        ("betas", 3, "option betas is 3, expected values with commas between them"),
        ("crop", "1,2,3", "option crop is '1,2,3', expected 2 values"),
        ("guidance", "-1", "sampler 'demo': guidance is -1.0, expected at least 0"),
    ],
)
def test_wrong_values(name, value, message):
    with pytest.raises(InvalidInput) as caught:
        build({name: value})
    assert caught.value.message == message


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(InvalidInput, match="sampler 'demo' has no option 'guidence'") as caught:
        build({"guidence": 1})
    assert "guidance" in caught.value.hint
    with pytest.raises(InvalidInput) as caught:
        build({"zzz": 1})
    assert caught.value.hint.startswith("It has: steps, guidance")
