"""`zoo show`."""

from __future__ import annotations

import pytest

FULL = """
schema  = 1
method  = "full"
title   = "Full"
summary = "says everything"
notes   = "about the method"
tasks   = ["class-to-image"]
tags    = ["tagged"]
default = "one"
renamed = { old = "one" }
paper   = { title = "The Paper", arxiv = "1234.56789", year = 2024 }
code    = { url = "https://example.org/code", revision = "abc123", licence = "MIT" }

[variant.one]
summary      = "the variant"
architecture = "tarflow"
config       = { width = 3, deep = true }
sampler      = { name = "euler", guidance = 2.5 }
params       = 12345678
classes      = ["cat", "dog"]
aliases      = ["uno"]
dtype        = "bfloat16"
notes        = "about the variant"
licence      = { weights = "CC-BY", url = "https://example.org/licence", accept = true }
metrics      = [{ name = "FID-50k", value = 2.5, source = "table 3" }]
[[variant.one.files]]
role      = "model"
source    = ["https://example.org/a.pth", "https://mirror.example.org/a.pth"]
size      = 2048
sha256    = "DIGEST"
format    = "pytorch"
converter = "conv"

[variant.many]
summary      = "many classes"
architecture = "tarflow"
classes      = [CLASSES]
""".replace("DIGEST", "a" * 64).replace("CLASSES", ", ".join(f'"c{i}"' for i in range(1000)))


@pytest.fixture
def full(zoo, tmp_path, monkeypatch):
    (tmp_path / "full.toml").write_text(FULL, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path))
    return zoo


def test_people_see_everything_that_the_card_says(full, tmp_path):
    text = full("show", "full").out
    for said in (
        "full:one  Full: the variant",
        "says everything",
        "about the method",
        "class-to-image",
        "tagged",
        "The Paper (2024)",
        "https://arxiv.org/abs/1234.56789",
        "https://example.org/code at abc123, licence: MIT",
        "published",
        "architecture tarflow\n  width = 3\n  deep = true\n",
        "sampler euler\n  guidance = 2.5\n",
        "12345678 (12.3 M)",
        "2: cat, dog",
        "uno",
        "bfloat16",
        "about the variant",
        "CC-BY https://example.org/licence (has to be accepted)",
        "FID-50k: 2.5  (table 3)",
        "model: pytorch, 2048 bytes, converter conv",
        "source https://example.org/a.pth",
        "source https://mirror.example.org/a.pth",
        f"sha256 {'a' * 64}",
        "2048 bytes (2.0 KiB)",
        str(tmp_path / "full.toml"),
    ):
        assert said in text, said


def test_the_document(full, tmp_path):
    document = full("show", "full", "--json").json
    assert document["reference"] == "full:one"
    assert document["state"] == "published"
    assert document["card"] == str(tmp_path / "full.toml")
    assert document["default"] is True
    assert document["config"] == {"width": 3, "deep": True}
    assert document["sampler"] == {"name": "euler", "guidance": 2.5}
    assert document["licence"] == {"weights": "CC-BY", "url": "https://example.org/licence", "accept": True}
    assert document["files"][0]["source"] == ["https://example.org/a.pth", "https://mirror.example.org/a.pth"]
    assert document["files"][0]["path"] is None
    assert document["paper"]["url"] is None
    assert document["metrics"] == [{"name": "FID-50k", "value": 2.5, "source": "table 3"}]
    assert document["variants"] == ["one", "many"]
    assert document["size"] == 2048


def test_a_thousand_classes_are_shortened_for_people_only(full):
    line = next(line for line in full("show", "full:many").lines if line.startswith("classes"))
    assert line.startswith("classes       1000: c0, c1, ")
    assert line.endswith(", ...")
    assert len(line) < 500
    assert len(full("show", "full:many", "--json").json["classes"]) == 1000


def test_what_is_unknown_is_said_or_left_out(zoo):
    text = zoo("show", "toy:unpublished").out
    assert "licence       unknown" in text
    assert "metrics" not in text
    assert "None" not in text
    assert zoo("show", "toy:unpublished", "--json").json["licence"] is None
    assert "sha256 unknown" in zoo("show", "toy").out


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("toy:shapes", "zoo sample toy:shapes"),
        ("toy:remote", "https://example.org/toy.safetensors"),
        ("toy:unpublished", "Try the built-in toy:shapes"),
    ],
)
def test_the_next_step_depends_on_the_state(zoo, reference, hint):
    result = zoo("show", reference)
    assert "Hint: " in result.err
    assert hint in result.err
    assert "Hint" not in zoo("show", reference, "--json").err


def test_missing_built_in_weights_are_a_warning(zoo, tmp_path, monkeypatch):
    card = FULL.replace("https://example.org/a.pth", "gone.safetensors")
    (tmp_path / "full.toml").write_text(card, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path))
    result = zoo("show", "full")
    assert result.code == 0
    assert "Warning: " in result.err
    assert "gone.safetensors" in result.err


def test_other_names(full):
    assert full("show", "FULL:Uno", "-q").out == "full:one\n"
    renamed = full("show", "full:old", "-q")
    assert renamed.out == "full:one\n"
    assert "Warning: full:old is now called full:one" in renamed.err


def test_unknown_references(zoo):
    result = zoo("show", "tarflow:shpes")
    assert result.code == 3
    assert result.err.splitlines() == [
        "Error: no model is called 'tarflow:shpes'",
        "Hint: Did you mean: tarflow:shapes?",
    ]


def test_a_path_is_no_reference(zoo, tmp_path):
    result = zoo("show", str(tmp_path))
    assert result.code == 2
    assert "--weights" in result.err
