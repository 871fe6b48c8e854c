import random

import PIL.Image
import pytest
import torch

from zoo.errors import InvalidInput
from zoo.io.images import read_image


def save(path, mode, size, values, **options):
    image = PIL.Image.new(mode, size)
    image.putdata(values)
    image.save(path, **options)
    return path


def column(pixels, x, y):
    return [round(float(value), 4) for value in pixels[:, y, x]]


def test_rgb_lies_where_it_lay_in_the_file(tmp_path):
    values = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 51, 255), (255, 255, 255), (0, 0, 0)]
    pixels = read_image(save(tmp_path / "x.png", "RGB", (3, 2), values))
    assert pixels.shape == (3, 2, 3) and pixels.dtype == torch.float32 and pixels.is_contiguous()
    assert column(pixels, 0, 0) == [1, 0, 0]
    assert column(pixels, 2, 0) == [0, 0, 1]
    assert column(pixels, 0, 1) == [0, 0.2, 1]


def test_grey_becomes_three_equal_channels(tmp_path):
    pixels = read_image(save(tmp_path / "x.png", "L", (2, 1), [0, 51]))
    assert column(pixels, 0, 0) == [0, 0, 0] and column(pixels, 1, 0) == [0.2, 0.2, 0.2]


def test_transparent_parts_show_white(tmp_path):
    values = [(255, 0, 0, 255), (255, 0, 0, 0), (255, 0, 0, 51)]
    pixels = read_image(save(tmp_path / "x.png", "RGBA", (3, 1), values))
    assert [column(pixels, x, 0) for x in range(3)] == [[1, 0, 0], [1, 1, 1], [1, 0.8, 0.8]]


def test_a_transparent_palette_colour_shows_white(tmp_path):
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "x.png", transparency=1)
    pixels = read_image(tmp_path / "x.png")
    assert column(pixels, 0, 0) == [1, 0, 0] and column(pixels, 1, 0) == [1, 1, 1]


def test_16_bit_grey_keeps_its_levels(tmp_path):
    image = PIL.Image.frombytes("I;16", (3, 1), b"\x00\x00\x00\x80\xff\xff")
    image.save(tmp_path / "x.png")
    pixels = read_image(tmp_path / "x.png")
    assert pixels.shape == (3, 1, 3) and pixels.is_contiguous()
    assert column(pixels, 1, 0) == [round(0x8000 / 0xFFFF, 4)] * 3 and column(pixels, 2, 0) == [1, 1, 1]


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [(1, [[0, 1], [2, 3], [4, 5]]), (3, [[5, 4], [3, 2], [1, 0]]), (6, [[4, 2, 0], [5, 3, 1]])],
)
def test_exif_orientation_is_applied(tmp_path, orientation, rows):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", "L", (2, 3), [0, 1, 2, 3, 4, 5], exif=exif)
    assert (read_image(path)[0] * 255).round().int().tolist() == rows


def test_unreadable_exif_does_not_hinder(tmp_path):
    path = save(tmp_path / "x.png", "L", (1, 1), [255], exif=b"Exif\0\0no such header")
    assert column(read_image(path), 0, 0) == [1, 1, 1]


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InvalidInput, match="does not exist"):
        read_image(tmp_path / "x.png")
    with pytest.raises(InvalidInput, match="is a folder"):
        read_image(tmp_path)


def test_formats_that_are_not_listed_are_refused(tmp_path):
    (tmp_path / "x.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InvalidInput, match="is not a picture") as caught:
        read_image(tmp_path / "x.eps")
    assert "png, jpeg, webp" in caught.value.hint


def test_a_picture_cut_short(tmp_path):
    path = save(tmp_path / "x.png", "L", (64, 64), random.Random(0).choices(range(256), k=64 * 64))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InvalidInput, match=r"x\.png is damaged"):
        read_image(path)


def test_32_bit_pixels_are_refused(tmp_path):
    PIL.Image.new("F", (2, 2)).save(tmp_path / "x.tiff")
    with pytest.raises(InvalidInput, match="32-bit"):
        read_image(tmp_path / "x.tiff")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", "L", (10, 10), [0] * 100)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(InvalidInput, match="too large"):
        read_image(path)
