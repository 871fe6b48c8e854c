from dataclasses import replace

import PIL.Image
import pytest
import torch

from zoo.errors import InvalidInput, OutputExists, OutputNotWritable
from zoo.io.artifacts import Image
from zoo.io.grid import grid
from zoo.io.images import read_image
from zoo.io.metadata import read_provenance
from zoo.io.writers import FORMATS, format_name, save_image

SUFFIXES = [suffix for item in FORMATS.values() for suffix in item.suffixes]


def smooth_picture():
    """A picture that JPEG keeps well, with saturated colours that chroma subsampling would smear."""
    pixels = torch.zeros(3, 48, 64)
    pixels[0, :, 31:] = torch.linspace(0, 1, 48)[:, None]
    pixels[2, :, :31] = torch.linspace(1, 0, 31)
    return Image(pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_png_and_webp_keep_every_pixel(tmp_path, picture, suffix, channels):
    image = Image(picture.pixels[:channels], picture.provenance)
    path = image.save(tmp_path / f"x{suffix}")
    assert torch.equal(Image(read_image(path)).to_bytes8(), image.to_bytes8().expand(-1, -1, 3))


def test_jpeg_is_close(tmp_path):
    image = smooth_picture()
    path = image.save(tmp_path / "x.jpg")
    assert (read_image(path) - image.pixels).abs().mean() < 0.005


def test_jpeg_keeps_the_full_resolution_of_colour(tmp_path):
    path = smooth_picture().save(tmp_path / "x.jpg")
    with PIL.Image.open(path) as opened:
        assert [layer[1:3] for layer in opened.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_content_is_what_the_suffix_says(tmp_path, picture, suffix):
    path = picture.save(tmp_path / f"x{suffix.upper()}")
    with PIL.Image.open(path) as opened:
        assert opened.format == FORMATS[format_name(path)].pillow
        assert opened.size == (37, 23)


def test_the_format_argument_goes_before_the_suffix(tmp_path, picture):
    path = picture.save(tmp_path / "no_suffix", format="JPG")
    with PIL.Image.open(path) as opened:
        assert opened.format == "JPEG"


@pytest.mark.parametrize(
    ("name", "format", "hint"),
    [
        ("x.pngg", None, "Did you mean: png"),
        ("x.png", "wepb", "Did you mean: webp"),
        ("x.txt", None, "png, webp, jpeg"),
        ("x", None, "png, webp, jpeg"),
    ],
)
def test_an_unknown_format_lists_the_known_ones(tmp_path, picture, name, format, hint):
    with pytest.raises(InvalidInput, match="format") as caught:
        save_image(picture, tmp_path / name, format=format)
    assert hint in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format", "limit"), [("webp", 16_383), ("jpeg", 65_500)])
def test_a_side_at_the_limit_is_written_and_one_above_is_refused(tmp_path, format, limit):
    Image(torch.zeros(1, 1, limit)).save(tmp_path / "fits", format=format)
    with pytest.raises(InvalidInput, match=f"at most {limit} pixels"):
        Image(torch.zeros(1, 1, limit + 1)).save(tmp_path / "too_wide", format=format)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_picture_is_kept(tmp_path, picture, suffix):
    path = picture.save(tmp_path / f"x{suffix}")
    before = path.read_bytes()
    with pytest.raises(OutputExists):
        smooth_picture().save(path)
    assert path.read_bytes() == before
    smooth_picture().save(path, overwrite=True)
    assert read_image(path).shape == (3, 48, 64)


def test_a_file_as_parent_is_not_writable(tmp_path, picture):
    (tmp_path / "parent").touch()
    with pytest.raises(OutputNotWritable):
        picture.save(tmp_path / "parent" / "x.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "make", [lambda image: image, lambda image: grid([image, image])], ids=["one", "grid"]
)
def test_without_metadata_no_trace_is_left(tmp_path, picture, suffix, make):
    plain = replace(picture.provenance, prompt="a red circle")
    image = make(Image(picture.pixels, plain))
    traces = [
        b"zoo",
        b"tarflow",
        b"shapes",
        b"red circle",
        b"abababab",
        b"Exif",
        b"EXIF",
        b"tEXt",
        b"iTXt",
        b"zTXt",
    ]
    traces += [b"eXIf", "zoo".encode("utf-16-be"), "zoo".encode("utf-16-le")]
    with_metadata = image.save(tmp_path / f"with{suffix}").read_bytes()
    without = image.save(tmp_path / f"without{suffix}", metadata=False).read_bytes()
    assert b"zoo" in with_metadata and b"red circle" in with_metadata and b"abababab" in with_metadata
    assert [trace for trace in traces if trace in without] == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_without_provenance_has_the_bytes_of_one_without_metadata(tmp_path, picture, suffix):
    bare = Image(picture.pixels).save(tmp_path / f"bare{suffix}")
    stripped = picture.save(tmp_path / f"stripped{suffix}", metadata=False)
    assert bare.read_bytes() == stripped.read_bytes()


def test_metadata_too_large_for_jpeg_is_an_error_and_fits_elsewhere(tmp_path, picture):
    image = Image(picture.pixels, replace(picture.provenance, prompt="x" * 70_000))
    with pytest.raises(InvalidInput, match="a JPEG file holds at most 65533"):
        image.save(tmp_path / "x.jpg")
    for suffix in (".png", ".webp"):
        assert read_provenance(image.save(tmp_path / f"x{suffix}")) == image.provenance
