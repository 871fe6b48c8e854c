"""The catalogue: where cards come from, who wins, what a reference means, and what a bad card harms."""

from __future__ import annotations

import os
import sys

import pytest
from third_party import card, install, install_plugin

from zoo import catalogue as module
from zoo.cards import parse_card
from zoo.catalogue import Catalogue, list_models, load_catalogue, state_of
from zoo.errors import CardError, NotFound
from zoo.store.layout import manifest_path


@pytest.fixture(autouse=True)
def _installed(site):
    """No user's cards, no plugins but ours."""


def user_card(method, text):
    folder = module.config_folder() / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{method}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_in_tree_cards_are_there_without_warnings():
    read = load_catalogue()
    assert read.cards["tarflow"].origin == "zoo"
    assert read.warnings == []
    assert read.overrides == {}


def test_a_plugin_s_cards_are_found_without_importing_it(site):
    install_plugin(site, "abc", "raise RuntimeError('imported')")
    read = load_catalogue()
    assert read.cards["abc"].origin == "acme-abc"
    assert read.warnings == []
    assert "acme_abc" not in sys.modules


def test_the_user_s_cards_override_and_say_so(site, tmp_path, monkeypatch):
    install_plugin(site, "abc", "")
    ours = load_catalogue().cards["tarflow"].path
    user_card("tarflow", card("tarflow", "Mine"))
    named = tmp_path / "named"
    named.mkdir()
    (named / "abc.toml").write_text(card("abc", "Named"), encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", f"{tmp_path / 'nowhere'}{os.pathsep}{named}")
    read = load_catalogue()
    assert {m: (read.cards[m].title, read.cards[m].origin) for m in ("tarflow", "abc")} == {
        "tarflow": ("Mine", "user"),
        "abc": ("Named", "user"),
    }
    assert read.overrides["tarflow"] == ours
    assert set(read.overrides) == {"tarflow", "abc"}


def test_a_plugin_may_not_override(site):
    install_plugin(site, "evil", "", {"tarflow": card("tarflow", "Evil"), "evil": card("evil")})
    read = load_catalogue()
    assert read.cards["tarflow"].title == "TarFlow"
    assert "evil" in read.cards
    assert len(read.warnings) == 1
    assert "method 'tarflow' already has a card from zoo" in read.warnings[0]


def test_a_distribution_called_user_may_not_override_either(site):
    install(site, "user", "", {"zoo.cards": {"x": "user:cards"}}, {"tarflow": card("tarflow", "Evil")})
    assert load_catalogue().cards["tarflow"].title == "TarFlow"


def test_a_damaged_third_party_card_is_skipped_with_one_warning(site):
    text = card("bad").replace("summary = ", "sumary = ", 1)
    install_plugin(site, "bad", "", {"bad": text, "good": card("good")})
    install_plugin(site, "fine", "")
    read = load_catalogue()
    assert {"good", "fine", "tarflow"} <= set(read.cards)
    assert "bad" not in read.cards
    [warning] = read.warnings
    assert "bad.toml: [top level] sumary: unknown key" in warning
    assert "Did you mean: summary" in warning


def test_a_damaged_user_card_is_skipped_with_one_warning():
    path = user_card("mine", "schema = 1\nmethod =")
    [warning] = load_catalogue().warnings
    assert str(path) in warning


def test_a_damaged_in_tree_card_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text("schema = 3", encoding="utf-8")
    monkeypatch.setattr(module, "builtin_folder", lambda: tmp_path)
    with pytest.raises(CardError, match="schema"):
        load_catalogue()


@pytest.mark.parametrize(
    "value", ["missing_package:cards", "a.b:cards", "acme_bad:nowhere", ":cards", "__main__:cards"]
)
def test_an_entry_point_that_leads_nowhere_is_skipped_alone(site, value):
    install(site, "acme-bad", "", {"zoo.cards": {"bad": value}})
    install_plugin(site, "fine", "")
    read = load_catalogue()
    assert "fine" in read.cards
    [warning] = read.warnings
    assert "acme-bad" in warning


def test_damaged_metadata_hides_one_distribution_only(site):
    install_plugin(site, "fine", "")
    broken = site / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_text("[zoo.cards]\nnot an entry point\n", encoding="utf-8")
    assert "fine" in load_catalogue().cards


def test_references_resolve():
    read = load_catalogue()
    found, variant = read.resolve("TarFlow")
    assert (found.method, variant.name) == ("tarflow", found.default)
    assert read.resolve("tarflow:mnist")[1].name == "mnist"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tarflwo", "Did you mean: tarflow?"),
        ("tarflow:shpaes", "Did you mean: tarflow:shapes?"),
        ("mnist", "Did you mean: tarflow:mnist?"),
        ("zzzzzz", "zoo list shows every reference."),
    ],
)
def test_unknown_references_have_near_matches(text, hint):
    with pytest.raises(NotFound, match=f"no model is called '{text}'") as caught:
        load_catalogue().resolve(text)
    assert caught.value.hint == hint


def test_a_variant_like_no_other_lists_all():
    read = Catalogue()
    read.add(parse_card({**MINI, "variant": {"a": LEAF, "b": LEAF}}))
    with pytest.raises(NotFound) as caught:
        read.resolve("mini:zzzzzz")
    assert caught.value.hint == "Did you mean: mini:a, mini:b?"


LEAF = {"summary": "", "architecture": "x"}
MINI = {"schema": 1, "method": "mini", "title": "", "summary": "", "tasks": [], "default": "a"}


def test_a_former_name_works_with_one_warning():
    read = Catalogue()
    read.add(parse_card({**MINI, "renamed": {"old": "a"}, "variant": {"a": LEAF}}))
    for _ in range(2):
        assert read.resolve("mini:old")[1].name == "a"
    assert read.warnings == ["mini:old is now called mini:a"]


def test_a_revision_has_to_be_one_of_the_card_s():
    file = {"role": "model", "source": ["hf://o/r/x.safetensors@0123456789abcdef"]}
    read = Catalogue()
    read.add(parse_card({**MINI, "variant": {"a": {**LEAF, "files": [file]}, "b": LEAF}}))
    for revision in ("0123456789abcdef", "012345"):
        assert read.resolve(f"mini:a@{revision}")[1].name == "a"
    for text in ("mini:a@fedcba", "mini:b@0123"):
        with pytest.raises(NotFound, match="no such revision"):
            read.resolve(text)


def test_states(tmp_path):
    def with_source(*sources):
        files = [{"role": f"r{i}", "source": [source]} for i, source in enumerate(sources)]
        return {**LEAF, "files": files} if files else LEAF

    variants = {
        "a": with_source("w.safetensors"),
        "mixed": with_source("w.safetensors", "https://e.org/x"),
        "there": with_source("https://e.org/x"),
        "nobody": with_source(),
    }
    read = Catalogue()
    read.add(parse_card({**MINI, "variant": variants}, tmp_path / "mini.toml"))
    manifest = manifest_path("mini", "there")
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}", encoding="utf-8")
    states = {variant.name: state for _, variant, state in list_models(read)}
    assert states == {"a": "built-in", "mixed": "published", "there": "pulled", "nobody": "unpublished"}
    manifest.unlink()
    assert state_of(read.cards["mini"], read.cards["mini"].variants["there"]) == "published"
