"""`zoo completion`, and what a shell is offered."""

from __future__ import annotations

import pytest


@pytest.fixture
def complete(zoo, monkeypatch):
    def ask(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_ZOO_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        result = zoo()
        assert result.code == 0
        assert result.err == ""
        return [item.partition(",")[2] for item in result.lines if item]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(zoo, shell):
    script = zoo("completion", shell).out
    assert "_ZOO_COMPLETE" in script
    assert zoo("completion", shell, "--json").json == {"shell": shell, "script": script.removesuffix("\n")}


def test_an_unknown_shell(zoo):
    result = zoo("completion", "csh")
    assert result.code == 2
    assert "'bash', 'zsh', 'fish'" in result.err


def test_commands(complete):
    assert complete("zoo s") == ["show", "search", "sample"]
    assert "--version" in complete("zoo --")


def test_options(complete):
    assert "--state" in complete("zoo list --st")
    assert complete("zoo list --state pu") == ["pulled", "published"]


def test_references(complete):
    assert complete("zoo show tarflow:afhq256-") == ["tarflow:afhq256-retrain"]
    assert {"tarflow", "tarflow:shapes"} <= set(complete("zoo show t"))
    assert complete("zoo show TOY:plain") == ["toy:plain"]


def test_references_of_other_verbs(complete):
    for verb in ("sample", "convert", "train", "eval", "bench", "list"):
        assert "toy:shapes" in complete(f"zoo {verb} toy:sh"), verb


def test_settings(complete):
    assert complete("zoo config set d") == ["device", "dtype"]


def test_broken_cards_complete_to_nothing(complete, tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text("=", encoding="utf-8")
    monkeypatch.setattr("zoo.catalogue.builtin_folder", lambda: tmp_path)
    assert complete("zoo show t") == []


def test_a_broken_command_of_a_plugin_is_offered_without_being_imported(complete, tmp_path, monkeypatch):
    from third_party import install

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    install(tmp_path / "site", "acme-tab", "raise RuntimeError", {"zoo.commands": {"tabbed": "acme_tab:x"}})
    assert complete("zoo tab") == ["tabbed"]
