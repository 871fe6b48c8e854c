import pytest
import torch

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.grid import grid


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [
        (1, None, (4, 6)),
        (2, None, (4, 14)),
        (3, None, (10, 14)),
        (4, None, (10, 14)),
        (5, None, (16, 14)),
        (9, None, (16, 22)),
        (10, None, (22, 22)),
        (5, 1, (28, 6)),
        (5, 5, (4, 38)),
        (5, 99, (4, 38)),
    ],
)
def test_shape_of_the_sheet(sized, count, columns, shape):
    sheet = grid([sized(0.0, 4, 6)] * count, columns=columns, gap=2)
    assert sheet.pixels.shape == (3, *shape)


def test_rows_of_pictures_stand_below_each_other(sized):
    assert grid([sized(0.0, 4, 26)] * 3, gap=2).pixels.shape == (3, 16, 26)
    assert grid([sized(0.0, 26, 4)] * 3, gap=2).pixels.shape == (3, 26, 16)
    assert grid([sized(0.0, 4, 4)] * 5, gap=2).pixels.shape == (3, 10, 16)


def test_pictures_stand_in_row_major_order(sized):
    sheet = grid([sized(level / 8, 2, 2) for level in range(5)], columns=3, gap=1, background=1.0)
    expected = torch.tensor(
        [
            [0, 0, 8, 1, 1, 8, 2, 2],
            [0, 0, 8, 1, 1, 8, 2, 2],
            [8, 8, 8, 8, 8, 8, 8, 8],
            [3, 3, 8, 4, 4, 8, 8, 8],
            [3, 3, 8, 4, 4, 8, 8, 8],
        ]
    )
    assert torch.equal(sheet.pixels, (expected / 8).expand(3, -1, -1))


def test_smaller_pictures_stand_in_the_middle_of_the_largest_cell(sized):
    sheet = grid([sized(0.25, 1, 4), sized(0.75, 3, 1)], columns=2, gap=0, background=0.5)
    expected = torch.tensor(
        [
            [2, 2, 2, 2, 2, 3, 2, 2],
            [1, 1, 1, 1, 2, 3, 2, 2],
            [2, 2, 2, 2, 2, 3, 2, 2],
        ]
    )
    assert torch.equal(sheet.pixels[0], expected / 4)


def test_grey_pictures_make_a_grey_sheet_and_join_an_rgb_one(sized):
    grey, rgb = sized(0.25, 2, 2, channels=1), sized(0.75, 2, 2)
    assert grid([grey, grey]).pixels.shape[0] == 1
    mixed = grid([grey, rgb], gap=0).pixels
    assert torch.equal(mixed[:, 0], torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(3, -1))


def test_a_grid_keeps_its_pictures_and_has_no_provenance_of_its_own(sized):
    images = [sized(0.0, 2, 2, seed=seed) for seed in range(3)]
    sheet = grid(images)
    assert sheet.images == tuple(images)
    assert sheet.provenance is None
    assert sheet.metadata() == {"zoo_grid": [image.provenance.to_dict() for image in images]}
    assert grid([Image(torch.zeros(3, 2, 2))]).metadata() is None


def test_a_grid_leaves_its_pictures_unchanged(sized):
    image = sized(0.25, 2, 2)
    grid([image, image]).pixels.zero_()
    assert torch.equal(image.pixels, torch.full((3, 2, 2), 0.25))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, "at least one column, got 0"),
        ({"gap": -1}, "got -1"),
        ({"background": 1.5}, "got 1.5"),
        ({"background": float("nan")}, "got nan"),
    ],
)
def test_arguments_out_of_range(sized, options, message):
    with pytest.raises(InvalidInput, match=message):
        grid([sized(0.0, 2, 2)], **options)


def test_no_pictures():
    with pytest.raises(InvalidInput, match="at least one picture"):
        grid([])
