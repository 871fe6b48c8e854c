"""Texts as artifacts: files with and without provenance, and the picture that shows one."""

from __future__ import annotations

import json

import pytest
import torch

from zoo.errors import InvalidInput, OutputExists, PluginError
from zoo.io.artifacts import Artifact, Image, Provenance
from zoo.io.kinds import artifact_class, inline_text, is_inline
from zoo.io.layers import LayeredImage
from zoo.io.metadata import read_provenance, read_provenances, stored_provenance
from zoo.io.reading import format_of, read_artifact
from zoo.io.text import Text, read_text
from zoo.io.text_picture import WIDTH, text_pixels

MADE = Provenance(
    reference="toy:base",
    prompt="was ist das?",
    seed=3,
    sampler="toy",
    options={"digits": 2},
    images={"image": {"sha256": "0" * 64, "path": "cat.png"}},
    dtype="float32",
    device="cpu",
    zoo_version="1",
)


def test_a_text_is_an_artifact_of_a_kind_of_the_core():
    assert artifact_class("text") is Text and isinstance(Text("a"), Artifact)
    assert (Text.kind, list(Text.formats)) == ("text", ["json", "txt"])
    assert str(Text("a ring")) == "a ring" and Text("a") == Text("a") != Text("a", MADE)
    with pytest.raises(ValueError, match="expected a str"):
        Text(b"a")


@pytest.mark.parametrize(
    "text", ["a red circle", "", "zwei\nZeilen\n", "\u2028 ünï 円", '"quoted" \\ {', "\x1b[31m"]
)
def test_a_json_file_keeps_text_and_provenance(tmp_path, text):
    path = Text(text, MADE).save(tmp_path / "a.json")
    assert read_text(path) == Text(text, MADE)
    assert read_provenance(path) == MADE and read_provenances(path) == [MADE]
    document = json.loads(path.read_bytes())
    assert list(document) == ["text", "zoo"] and document["text"] == text
    assert path.read_bytes().endswith(b"}\n")
    assert Text(text, MADE).save(tmp_path / "b.json").read_bytes() == path.read_bytes()


def test_without_metadata_there_is_no_trace(tmp_path):
    path = Text("a ring", MADE).save(tmp_path / "a.json", metadata=False)
    assert json.loads(path.read_bytes()) == {"text": "a ring"}
    assert read_text(path) == Text("a ring") and stored_provenance(path) is None
    with pytest.raises(InvalidInput, match="has no zoo metadata"):
        read_provenance(path)


@pytest.mark.parametrize("text", ["a red circle", "", "two\nlines\n", "円"])
def test_a_txt_file_holds_the_text_and_a_line_end_alone(tmp_path, text):
    path = Text(text, MADE).save(tmp_path / "a.TXT")
    assert path.read_bytes() == f"{text}\n".encode()
    assert read_text(path) == Text(text)
    with pytest.raises(InvalidInput, match="does not tell how it was made") as caught:
        read_provenance(path)
    assert "NAME.json" in caught.value.hint


def test_formats_are_told_by_name_or_suffix(tmp_path):
    assert Text("a").save(tmp_path / "a", format="txt").read_bytes() == b"a\n"
    assert format_of(tmp_path / "a.txt", Text) == "txt" and format_of(tmp_path / "a.json", Text) == "json"
    with pytest.raises(InvalidInput, match=r"unknown text format '\.png'") as caught:
        Text("a").save(tmp_path / "a.png")
    assert "json, txt" in caught.value.hint
    with pytest.raises(OutputExists):
        Text("b").save(tmp_path / "a", format="txt")
    assert Text("b").save(tmp_path / "a", format="txt", overwrite=True).read_bytes() == b"b\n"


def test_a_character_without_a_form_in_utf8_is_no_traceback(tmp_path):
    text = Text("a\udc80b")
    assert text.save(tmp_path / "a.txt").read_bytes() == b"a?b\n"
    assert read_text(text.save(tmp_path / "a.json")) == text


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b'{"level": 3}', "holds no text"),
        ("a.json", b'{"text": 3}', "holds no text"),
        ("a.json", b'["text"]', "holds no text"),
        ("a.json", b'{"text": "a', "is not JSON"),
        ("a.json", b"\xff\xfe", "is no text in UTF-8"),
        ("a.txt", b"a\0b", "is no text in UTF-8"),
        ("a.note", b"a ring", "is not JSON"),
        ("a.json", b'{"text": "a", "zoo": {"reference": 1}}', "metadata in .* is damaged"),
    ],
)
def test_what_is_no_text(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        read_text(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InvalidInput, match="does not exist"):
        read_text(tmp_path / "a.json")
    with pytest.raises(InvalidInput, match="is a folder"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b'{"level": 3}', "holds no text that zoo wrote"),
        ("a.json", b'{"text": "a', "metadata in .* is damaged"),
        ("a.json", b'{"text": "a", "zoo": {}}', "metadata in .* is damaged: provenance lacks"),
        ("a.note", b'{"level": 3}', "is not a picture"),
        ("a.note", b'{"text": "a', "is not a picture"),
        ("a.json", b"[]", "is not a picture"),
        ("a.json", b'{"\xff', "is not a picture"),
    ],
)
def test_how_what_is_not_ours_was_made_is_not_known(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        read_provenance(path)


def test_the_content_tells_a_text_whatever_its_name(tmp_path):
    path = Text("a ring", MADE).save(tmp_path / "answer", format="json")
    assert read_provenance(path) == MADE
    picture = Image(torch.zeros(3, 4, 4), MADE).save(tmp_path / "picture.txt", format="png")
    assert read_provenance(picture) == MADE


def test_artifacts_are_read_by_the_class(tmp_path):
    path = Text("a ring", MADE).save(tmp_path / "a.json")
    assert read_artifact(path, Text) == Text("a ring", MADE)


# Inline kinds


def test_classes_tell_whether_they_are_shown_where_they_are_made():
    assert is_inline(Text) and not is_inline(Image) and not is_inline(LayeredImage)
    assert inline_text(Text("a ring")) == "a ring"
    assert inline_text(Image(torch.zeros(1, 2, 2))) is None

    class Mute(Image):
        inline = True

    with pytest.raises(PluginError, match="Mute is inline and has no text"):
        inline_text(Mute(torch.zeros(1, 2, 2)))


# The picture


def ink(text):
    """Rows of the picture that hold any ink, and how many pixels are dark."""
    pixels = text_pixels(text)
    return (pixels[0] < 0.5).any(dim=1), int((pixels < 0.5).sum())


def test_the_picture_shows_the_text_in_black_on_white():
    picture = Text("a red circle", MADE).picture()
    assert isinstance(picture, Image) and picture.provenance == MADE
    pixels = picture.pixels
    assert pixels.shape == (1, 44, WIDTH) and pixels.min() >= 0.0 and pixels.max() == 1.0
    assert (pixels[0, :10] == 1.0).all() and (pixels[0, -6:] == 1.0).all()
    assert torch.equal(pixels, text_pixels("a red circle"))
    assert not torch.equal(pixels, text_pixels("a red cross"))
    assert ink("")[1] == 0 < ink("i")[1] < ink("iii")[1]


def test_long_lines_are_wrapped_and_none_is_cut_off():
    one, many = text_pixels("word"), text_pixels("word " * 60)
    assert many.shape[1] > 5 * one.shape[1] // 2
    assert ink("word " * 60)[1] == 60 * ink("word")[1]
    assert (many[0, :, -8:] == 1.0).all(), "the margin stays free"


def test_writing_without_spaces_is_cut_where_the_line_ends():
    assert ink("x" * 200)[1] == pytest.approx(200 * ink("x")[1], rel=0.1)
    assert (text_pixels("x" * 200)[0, :, -8:] == 1.0).all()


def test_lines_of_the_text_stay_lines():
    assert text_pixels("a\n\nb").shape[1] == text_pixels("a\nb").shape[1] + 20
    rows, _ = ink("a\n\nb")
    assert rows[12:32].any() and not rows[32:52].any() and rows[52:72].any()


def test_a_very_long_text_is_shown_in_part():
    tall = text_pixels("a\n" * 1000)
    assert tall.shape == text_pixels("word " * 100_000).shape == (1, 24 + 40 * 20, WIDTH)
    rows, _ = ink("\n" * 1000)
    assert rows[-32:].any() and not rows[:-32].any(), "dots at the end tell that it goes on"
