"""Words to variants."""

from __future__ import annotations

import pytest

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.search import search


@pytest.fixture(scope="module")
def catalogue():
    built = Catalogue()
    leaf = {"architecture": "x"}
    alpha = {
        "base": {**leaf, "summary": "small animals", "classes": ["red cat", "Dog"]},
        "large": {**leaf, "summary": "large animals", "aliases": ["xl"]},
    }
    built.add(
        parse_card(
            {
                "schema": 1,
                "method": "alpha",
                "title": "Alpha Flow",
                "summary": "a flow",
                "tasks": ["class-to-image"],
                "default": "base",
                "tags": ["normalizing-flow"],
                "paper": {"title": "Attention is fine"},
                "variant": alpha,
            }
        )
    )
    built.add(
        parse_card(
            {
                "schema": 1,
                "method": "flow",
                "title": "F",
                "summary": "another",
                "tasks": ["text-to-image"],
                "default": "v",
                "variant": {"v": {**leaf, "summary": "text"}},
            }
        )
    )
    return built


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["flow"], ["flow:v", "alpha:base"]),  # the name itself comes before a part of a title
        (["FLOW", "attention"], ["alpha:base"]),
        (["animals"], ["alpha:base", "alpha:large"]),
        (["large"], ["alpha:large"]),
        (["flow", "large"], ["alpha:large"]),
        (["flow large"], ["alpha:large"]),
        (["xl"], ["alpha:large"]),
        (["dog"], ["alpha:base"]),
        (["class-to"], ["alpha:base"]),
        (["normalizing"], ["alpha:base"]),
        (["to-image"], ["alpha:base", "flow:v"]),
        (["flow", "nowhere"], []),
        (["cat", "text"], []),
        ([], []),
        ([" "], []),
    ],
)
def test_all_words_must_match(catalogue, words, expected):
    assert [f"{card.method}:{variant.name}" for card, variant in search(catalogue, words)] == expected
