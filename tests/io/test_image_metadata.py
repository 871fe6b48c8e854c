import json
from dataclasses import replace

import PIL.Image
import pytest
import torch
from PIL.PngImagePlugin import PngInfo

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.grid import grid
from zoo.io.metadata import read_provenance, read_provenances

SUFFIXES = [".png", ".webp", ".jpg"]


def write_text(path, text, key="zoo"):
    chunks = PngInfo()
    chunks.add_itxt(key, text)
    PIL.Image.new("RGB", (2, 2)).save(path, pnginfo=chunks)
    return path


def write_comment(path, comment):
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    PIL.Image.new("RGB", (2, 2)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_provenance_round_trips(tmp_path, picture, suffix):
    path = picture.save(tmp_path / f"x{suffix}")
    assert read_provenance(path) == picture.provenance
    assert read_provenances(path) == [picture.provenance]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_prompt_of_undecodable_bytes_round_trips(tmp_path, picture, suffix):
    prompt = b"caf\xe9".decode("utf-8", errors="surrogateescape")
    image = Image(picture.pixels, replace(picture.provenance, prompt=prompt))
    assert read_provenance(image.save(tmp_path / f"x{suffix}")).prompt == prompt


def test_png_holds_readable_utf8_under_the_key_zoo(tmp_path, picture):
    path = picture.save(tmp_path / "x.png")
    assert picture.provenance.prompt.split('"')[0].encode() in path.read_bytes()
    with PIL.Image.open(path) as opened:
        assert json.loads(opened.text["zoo"]) == picture.provenance.to_dict()


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_exif_names_its_character_code(tmp_path, picture, suffix):
    with PIL.Image.open(picture.save(tmp_path / f"x{suffix}")) as opened:
        comment = opened.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"ASCII\0\0\0"
    assert json.loads(comment[8:]) == {"zoo": picture.provenance.to_dict()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_grid_lists_its_samples_in_order(tmp_path, sized, suffix):
    images = [sized(0.5, 4, 4, seed=seed) for seed in (5, 3, 4)]
    path = grid(images).save(tmp_path / f"x{suffix}")
    assert read_provenances(path) == [image.provenance for image in images]
    with pytest.raises(InvalidInput, match="grid of 3 samples"):
        read_provenance(path)


def test_a_grid_leaves_out_pictures_that_no_sample_made(tmp_path, sized):
    path = grid([Image(torch.zeros(3, 4, 4)), sized(0.5, 4, 4, seed=9)]).save(tmp_path / "x.png")
    assert [entry.seed for entry in read_provenances(path)] == [9]


def test_text_behind_the_pixels_is_found(tmp_path, picture):
    data = picture.save(tmp_path / "x.png").read_bytes()
    start = data.index(b"iTXt") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    tail = data.index(b"IEND") - 4
    (tmp_path / "moved.png").write_bytes(data[:start] + data[end:tail] + data[start:end] + data[tail:])
    assert read_provenance(tmp_path / "moved.png") == picture.provenance


def test_the_content_counts_and_not_the_suffix(tmp_path, picture):
    path = picture.save(tmp_path / "x.png", format="webp")
    assert read_provenance(path) == picture.provenance


def test_a_missing_file(tmp_path):
    with pytest.raises(InvalidInput, match=r"x\.png does not exist") as caught:
        read_provenance(tmp_path / "x.png")
    assert caught.value.hint


def test_a_folder(tmp_path):
    with pytest.raises(InvalidInput, match="is a folder"):
        read_provenance(tmp_path)


@pytest.mark.parametrize("content", [b"", b"some text", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_picture(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InvalidInput, match="is not a picture"):
        read_provenance(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_without_metadata(tmp_path, picture, suffix):
    path = picture.save(tmp_path / f"x{suffix}", metadata=False)
    with pytest.raises(InvalidInput, match="has no zoo metadata") as caught:
        read_provenance(path)
    assert "not made by zoo" in caught.value.hint


@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0taken at the zoo",
        b"UNICODE\0" + "{}".encode("utf-16-be"),
        b"ASCII\0\0\0[1]",
        b"ASC",
        b"",
    ],
)
def test_a_comment_of_another_program_is_no_zoo_metadata(tmp_path, comment):
    path = write_comment(tmp_path / "x.jpg", comment)
    with pytest.raises(InvalidInput, match="has no zoo metadata"):
        read_provenance(path)


@pytest.mark.parametrize(
    "text", ["{", "[1]", "null", "{}", '{"reference": 1}', "[" * 100_000], ids=lambda text: text[:5]
)
def test_damaged_metadata_in_png(tmp_path, text):
    path = write_text(tmp_path / "x.png", text)
    with pytest.raises(InvalidInput, match=r"the zoo metadata in .*x\.png is damaged") as caught:
        read_provenance(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ['{"zoo": ', '{"zoo": {}}', '{"zoo": 3}', '{"zoo_grid": [{}]}', '{"zoo": {"\xff']
)
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_damaged_metadata_in_exif(tmp_path, suffix, text):
    path = write_comment(tmp_path / f"x{suffix}", b"ASCII\0\0\0" + text.encode("latin-1"))
    with pytest.raises(InvalidInput, match="is damaged"):
        read_provenance(path)


@pytest.mark.parametrize("text", ["[]", "{}", "[1]", "[{}]"])
def test_a_damaged_grid(tmp_path, text):
    path = write_text(tmp_path / "x.png", text, key="zoo_grid")
    with pytest.raises(InvalidInput, match="is damaged"):
        read_provenances(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_cut_short_is_damaged(tmp_path, picture, suffix):
    path = picture.save(tmp_path / f"x{suffix}")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InvalidInput, match="is damaged"):
        read_provenance(path)


def test_the_missing_fields_are_named(tmp_path, picture):
    values = picture.provenance.to_dict()
    del values["seed"], values["sampler"]
    path = write_text(tmp_path / "x.png", json.dumps(values))
    with pytest.raises(InvalidInput, match="provenance lacks seed, sampler"):
        read_provenance(path)
