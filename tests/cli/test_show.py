"""`zoo show`."""

from __future__ import annotations

import re
import textwrap
import tomllib

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

[variant.parts]
summary      = "made of several modules"
architecture = "tarflow"
captions     = "shapes"
config       = { width = 3, inner = { width = 2, scale = { most = 5 } } }
[[variant.parts.files]]
role   = "decoder"
source = ["https://example.org/decoder.safetensors"]
[[variant.parts.files]]
role   = "encoder-1"
source = ["https://example.org/1.safetensors"]
[[variant.parts.files]]
role   = "encoder-2"
source = ["https://example.org/2.safetensors"]
[variant.parts.components.text_encoder]
architecture = "encoder"
config       = { depth = 2, inner = { depth = 1, scale = { most = 4 } } }
files        = ["encoder-2", "encoder-1"]
dtype        = "bfloat16"
[variant.parts.components.decoder]
architecture = "decode"
[variant.parts.components.words]
architecture = "vocabulary"
config       = { words = ["a", "the"] }

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


def section(result, heading):
    """The lines under a heading, without their indentation."""
    _, found, rest = result.out.partition(f"\n\n{heading}\n")
    assert found, f"no section {heading!r} in {result.out}"
    return textwrap.dedent(rest.partition("\n\n")[0]).rstrip("\n")


def test_nested_settings_are_printed_as_toml(full):
    shown = full("show", "full:parts")
    assert section(shown, "architecture tarflow").splitlines() == [
        "width = 3",
        "[inner]",
        "  width = 2",
        "  scale = { most = 5 }",
    ]


def test_every_component_has_a_section(full):
    shown = full("show", "full:parts")
    assert section(shown, "text_encoder: encoder").splitlines() == [
        "made of the files encoder-2, encoder-1",
        "runs in bfloat16",
        "depth = 2",
        "[inner]",
        "  depth = 1",
        "  scale = { most = 4 }",
    ]
    assert section(shown, "decoder: decode") == "made of the file decoder"
    assert section(shown, "words: vocabulary") == 'made without files\nwords = ["a", "the"]'
    headings = [line for line in shown.lines if line and not line.startswith(" ")]
    assert headings[headings.index("architecture tarflow") :] == [
        "architecture tarflow",
        "text_encoder: encoder",
        "decoder: decode",
        "words: vocabulary",
        "files",
    ]


def test_captions_tell_what_prompts_follow(full):
    line = "captions      prompts follow the captions of the shapes world"
    assert line in full("show", "full:parts").lines
    assert not any(line.startswith("captions") for line in full("show", "full").lines)


def test_the_document_has_components_and_captions(full):
    document = full("show", "full:parts", "--json").json
    assert document["captions"] == "shapes"
    assert document["components"] == {
        "text_encoder": {
            "architecture": "encoder",
            "config": {"depth": 2, "inner": {"depth": 1, "scale": {"most": 4}}},
            "files": ["encoder-2", "encoder-1"],
            "dtype": "bfloat16",
            "optional": False,
        },
        "decoder": {
            "architecture": "decode",
            "config": {},
            "files": ["decoder"],
            "dtype": None,
            "optional": False,
        },
        "words": {
            "architecture": "vocabulary",
            "config": {"words": ["a", "the"]},
            "files": [],
            "dtype": None,
            "optional": False,
        },
    }
    without = full("show", "full", "--json").json
    assert (without["components"], without["captions"]) == ({}, None)


SETTINGS = {
    "scalars": 'a = 1\nb = -2.5\nc = 1e-9\nd = inf\ne = true\nf = false\ng = "text"\nh = 1979-05-27T07:32:00',
    "texts": r'a = "\"quoted\" \\"' + "\n" + r'b = "two\nlines \t\u001b[2J\u007f\u009b"' + "\nc = 'ä →'",
    "keys": '"two words" = 1\n"a.b" = { "c d" = 2 }\n"ä" = 3\n1 = 4\n[x."y z"."w"]\nv = 5',
    "empty": 'a = {}\nb = []\nc = ""\n[d.e]\n[d.f]\ng = 1',
    "order": "a = 1\n[t.u]\nb = 2\n[t.u.v]\nc = 3",
    "lists": "a = [[1, 2], [3]]\nb = [{ c = [true] }, { d = { e = 1.0 } }]",
    "long table": "a = { " + ", ".join(f"key_{index} = {index}" for index in range(20)) + " }",
    "long list": "a = [" + ", ".join(f'"word {index}"' for index in range(90)) + "]",
    "long inside": "[t.u.v]\na = [" + ", ".join(f"[{index}, 0.5]" for index in range(90)) + "]",
    "long tables": "a = [" + ", ".join(f'{{ name = "{index}", at = [{index}] }}' for index in range(9)) + "]",
}


ODD = """
schema  = 1
method  = "odd"
title   = "Odd"
summary = "has settings of all kinds"
tasks   = ["unconditional"]
default = "one"
[variant.one]
summary      = "the variant"
architecture = "tarflow"
[variant.one.config]
"""


@pytest.mark.parametrize("written", SETTINGS.values(), ids=SETTINGS)
def test_settings_are_what_a_card_would_say(zoo, tmp_path, monkeypatch, written):
    settings = re.sub(r"^\[", "[variant.one.config.", written, flags=re.MULTILINE)
    (tmp_path / "odd.toml").write_text(ODD + settings, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path))
    shown = zoo("show", "odd")
    assert tomllib.loads(section(shown, "architecture tarflow")) == tomllib.loads(written)
    assert max(map(len, shown.out.partition("architecture")[2].splitlines())) <= 80


@pytest.mark.parametrize("reference", ["mdm:flickr1024", "mdm:shapes", "tarflow:shapes"])
def test_built_in_cards_are_shown_as_they_are_written(zoo, reference):
    shown, document = zoo("show", reference), zoo("show", reference, "--json").json
    read = tomllib.loads(section(shown, f"architecture {document['architecture']}"))
    assert read == document["config"]
    for role, component in document["components"].items():
        told = section(shown, f"{role}: {component['architecture']}").splitlines()
        settings = [line for line in told if not line.startswith(("made ", "runs in "))]
        assert tomllib.loads("\n".join(settings)) == component["config"]
    assert "{'" not in shown.out


def test_long_lists_are_filled_lines(zoo):
    lines = section(zoo("show", "mdm:shapes"), "text_encoder: shapes-words").splitlines()
    start = lines.index("words = [")
    words = lines[start + 1 : lines.index("]", start)]
    assert words[0].startswith('  "a", "above", "an", ')
    assert all(60 < len(line) <= 78 and line.endswith(",") for line in words[:-1])


def test_an_architecture_without_settings_is_named(full):
    assert section(full("show", "full:many"), "architecture tarflow") == "no settings"


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
    assert document["variants"] == ["one", "parts", "many"]
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
