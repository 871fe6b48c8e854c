"""`zoo list` and `zoo search`."""

from __future__ import annotations

import pytest

KEYS = {
    "reference",
    "method",
    "variant",
    "title",
    "summary",
    "tasks",
    "state",
    "size",
    "verified",
    "params",
    "licence",
    "default",
    "origin",
}


def test_every_variant_is_listed_once_with_all_keys(zoo):
    rows = zoo("list", "--json").json
    references = [row["reference"] for row in rows]
    assert len(references) == len(set(references))
    assert {"tarflow:shapes", "tarflow:afhq256", "tarflow:mnist", "toy:shapes"} <= set(references)
    assert all(set(row) == KEYS for row in rows)
    assert all(row["reference"] == f"{row['method']}:{row['variant']}" for row in rows)
    for method in {row["method"] for row in rows}:
        assert [row["default"] for row in rows if row["method"] == method].count(True) == 1


def test_what_is_unknown_is_null(zoo):
    rows = {row["reference"]: row for row in zoo("list", "--json").json}
    assert rows["tarflow:afhq256"]["size"] is None
    assert rows["tarflow:afhq256"]["params"] == 463481856
    assert rows["toy:unpublished"]["licence"] is None
    assert rows["toy:unpublished"]["size"] is None
    # The card does not say; the file is here.
    assert rows["toy:shapes"]["size"] > 0
    assert rows["toy:shapes"]["origin"] == "zoo-toy"


def test_for_people(zoo):
    lines = zoo("list", "tarflow").lines
    assert lines[0].split() == ["reference", "state", "size", "params", "summary"]
    [default] = [line for line in lines if line.startswith("tarflow:afhq256 *")]
    assert "published" in default
    assert "463.5 M" in default
    assert sum(" * " in line for line in lines) == 1
    assert not any(line != line.rstrip() for line in lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tarflow:mn"], {"mnist"}),
        (["TOY:S"], {"shapes"}),
        (["toy:*mbers"], {"numbers"}),
        (["toy:?lain"], {"plain"}),
        (["toy:[ps]?a*"], {"plain", "shapes"}),
        (["toy:", "--state", "published"], {"remote"}),
        (["toy:", "--state", "unpublished"], {"unpublished"}),
        (["toy:", "--state", "pulled"], set()),
        (["toy:s", "--task", "class-to-image"], {"shapes"}),
        (["toy:", "--task", "text-to-image"], set()),
        (["toytext", "--task", "text-to-image"], {"shapes"}),
    ],
)
def test_filters(zoo, arguments, expected):
    assert {row["variant"] for row in zoo("list", *arguments, "--json").json} == expected


def test_nothing_found_is_no_error(zoo):
    assert zoo("list", "zzz", "--json").json == []
    result = zoo("list", "zzz")
    assert (result.code, result.out) == (0, "")
    assert "Nothing matches" in result.err
    assert zoo("list", "zzz", "-q").out == ""


def test_an_unknown_task_has_near_matches(zoo):
    result = zoo("list", "--task", "class-to-imag")
    assert result.code == 2
    assert "Did you mean: class-to-image" in result.err


def test_quiet_prints_references(zoo):
    assert zoo("list", "tarflow:mnist", "-q").out == "tarflow:mnist\n"


def test_a_user_s_card_is_shown_as_such(zoo, tmp_path, monkeypatch):
    from third_party import card

    (tmp_path / "toy.toml").write_text(card("toy", "Mine"), encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path))
    [row] = zoo("list", "toy:", "--json").json
    assert (row["origin"], row["title"]) == ("user", "Mine")
    shown = zoo("show", "toy", "--json").json
    assert shown["overrides"].endswith("toy.toml")
    assert "overrides" in zoo("show", "toy").out


def test_search(zoo):
    assert zoo("search", "MNIST", "-q").out == "tarflow:mnist\n"
    assert [row["reference"] for row in zoo("search", "normalizing", "--json").json] == ["tarflow:afhq256"]
    assert "tarflow:afhq256" in zoo("search", "cat", "dog").out
    assert zoo("search", "nothing-holds-this", "--json").json == []
    assert zoo("search").code == 2


def test_search_ranks_what_says_it_itself_first(zoo):
    assert zoo("search", "imagenet64", "uncond", "-q").lines[0] == "tarflow:imagenet64-uncond"
