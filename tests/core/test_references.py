"""`method[:variant][@revision]`."""

from __future__ import annotations

import pytest

from zoo.errors import InvalidReference
from zoo.references import Reference, is_name, parse_reference

LONGEST = "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tarflow", Reference("tarflow")),
        ("tarflow:afhq256", Reference("tarflow", "afhq256")),
        ("TarFlow:AFHQ256", Reference("tarflow", "afhq256")),
        ("tarflow@main", Reference("tarflow", None, "main")),
        ("tarflow:x@AbC1", Reference("tarflow", "x", "AbC1")),
        ("  tarflow \n", Reference("tarflow")),
        ("sd-1.5_x:v2.0-ema", Reference("sd-1.5_x", "v2.0-ema")),
        ("0", Reference("0")),
        (f"{LONGEST}:{LONGEST}@{LONGEST}", Reference(LONGEST, LONGEST, LONGEST)),
    ],
)
def test_references_that_are_valid(text, expected):
    parsed = parse_reference(text)
    assert parsed == expected
    assert parse_reference(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":",
        "@",
        "tarflow:",
        ":x",
        "tarflow@",
        "tarflow:@r",
        "a:b:c",
        "a@b@c",
        "a@b:c",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "a\0b",
        "ä",
        "\u212aelvin",
        "\u017fhapes",
        "a:\u017f",
        LONGEST + "a",
        f"a:{LONGEST}a",
        "a" * 5000,
        "../x",
        "hf://a/b",
    ],
)
def test_references_that_are_not(text):
    with pytest.raises(InvalidReference, match="expected method"):
        parse_reference(text)


def test_a_path_says_how_to_use_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Model.safetensors").touch()
    (tmp_path / "folder").mkdir()
    for text in ("./folder", str(tmp_path), "Model.safetensors"):
        with pytest.raises(InvalidReference, match="is a path") as caught:
            parse_reference(text)
        assert f"--weights {text}" in caught.value.hint
    # What merely lies in the current folder does not hide a method of that name.
    assert parse_reference("folder") == Reference("folder")


@pytest.mark.parametrize(
    ("text", "valid"), [("a", True), ("a.b-c_d9", True), ("A", False), ("", False), ("a:b", False)]
)
def test_names(text, valid):
    assert is_name(text) is valid
