"""Pictures that go into a model: what is taken, how it is read, and the digest that tells it from others."""

from __future__ import annotations

import hashlib

import PIL.Image
import pytest
import torch

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.inputs import InputImage, input_images

RGB = torch.tensor([[[0.0, 1.0]], [[0.2, 0.4]], [[0.6, 0.8]]])


def test_a_file_is_read_upright_as_rgb_with_its_path_as_it_was_given(tmp_path, monkeypatch):
    picture = PIL.Image.new("RGB", (2, 1))
    picture.putdata([(255, 0, 0), (0, 51, 0)])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    picture.save(tmp_path / "x.png", exif=exif)
    monkeypatch.chdir(tmp_path)
    read = InputImage.read("x.png")
    assert read.source == "x.png" and read.pixels.dtype == torch.float32
    assert read.pixels.shape == (3, 2, 1)
    assert read.pixels[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert InputImage.read(tmp_path / "x.png").source == str(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["absent.png", "words.png"])
def test_what_is_missing_or_no_picture_is_told(tmp_path, name):
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(InvalidInput, match=name):
        InputImage.read(tmp_path / name)


def test_the_digest_is_that_of_the_shape_and_the_values_in_8_bits():
    levels = bytes([0, 255, 51, 102, 153, 204])
    assert InputImage(RGB).digest == hashlib.sha256(b"3x1x2:" + levels).hexdigest()
    # Less than half a level is lost in every file.
    assert InputImage((RGB + 0.001).clamp(max=1.0)).digest == InputImage(RGB).digest
    assert InputImage(RGB.transpose(1, 2)).digest != InputImage(RGB).digest
    assert InputImage(RGB * 0.99).digest != InputImage(RGB).digest


def test_a_picture_that_was_written_and_read_has_the_same_digest(tmp_path):
    pixels = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(1))
    Image(pixels).save(tmp_path / "x.png")
    assert InputImage.read(tmp_path / "x.png").digest == InputImage(pixels).digest
    assert InputImage(pixels, "x.png").facts == {"sha256": InputImage(pixels).digest, "path": "x.png"}


def test_grey_becomes_rgb_and_rounding_is_clamped():
    assert torch.equal(InputImage(RGB[:1]).pixels, RGB[:1].expand(3, 1, 2))
    edges = torch.tensor([-1e-6, 1.0 + 1e-6]).expand(3, 1, 2)
    assert torch.equal(InputImage(edges).pixels, torch.tensor([0.0, 1.0]).expand(3, 1, 2))
    # What is in range is not copied: a batch of one picture holds it once.
    assert InputImage(RGB).pixels.data_ptr() == RGB.data_ptr()
    assert not InputImage(RGB.clone().requires_grad_()).pixels.requires_grad


def test_layers_are_a_picture_too():
    assert InputImage(torch.zeros(2, 4, 8, 8)).pixels.shape == (2, 4, 8, 8)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(8, 8), r"shape \[8, 8\], expected \[3, h, w\]"),
        (torch.zeros(4, 8, 8), r"shape \[4, 8, 8\]"),
        (torch.zeros(2, 3, 8, 8), r"shape \[2, 3, 8, 8\]"),
        (torch.zeros(3, 0, 8), r"shape \[3, 0, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"values of torch\.uint8, expected torch\.float32"),
        (torch.full((3, 8, 8), 255.0), "values from 255 to 255, expected 0 to 1"),
        (RGB * 2 - 1, "values from -1 to 1, expected 0 to 1"),
        (RGB * float("nan"), "values from nan to nan"),
        ("a.png", "'a.png', expected a tensor"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, message):
    with pytest.raises(InvalidInput, match=message):
        InputImage(pixels)


def test_pictures_by_role():
    known = InputImage(RGB, "a.png")
    given = input_images({"image": RGB, "mask": [known, RGB], "layers": torch.zeros(2, 4, 1, 1)})
    assert {role: len(pictures) for role, pictures in given.items()} == {"image": 1, "mask": 2, "layers": 1}
    assert given["mask"][0] is known and given["mask"][1].source is None
    assert input_images(given) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RGB, "expected a mapping from roles to pictures"),
        ({"image": []}, "no picture was given as 'image'"),
        ({"image": "a.png"}, "expected a tensor or an InputImage"),
        ({"": RGB}, "the role of a picture is ''"),
        ({3: RGB}, "the role of a picture is 3"),
    ],
)
def test_what_are_no_pictures_by_role_is_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        input_images(given)


def test_a_picture_is_shown_without_its_pixels():
    assert repr(InputImage(RGB, "a.png")) == "InputImage(source='a.png')"
