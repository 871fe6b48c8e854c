"""Pictures in the sizes that the model reads and draws, and edited ones back in their own."""

from __future__ import annotations

import PIL.Image
import pytest
import torch
from small_illume import MODEL, pictures
from torch import Tensor

from zoo.errors import InvalidInput, ZooError
from zoo_illume.model_config import SIZES, IllumeConfig
from zoo_illume.preparing import Fit, nearest_size, resize, size_to_draw, size_to_read, to_read

CONFIG = IllumeConfig(**MODEL)
LANCZOS = PIL.Image.Resampling.LANCZOS


def picture(height: int, width: int) -> Tensor:
    """Smooth colours in [0, 1] that have 8 bits."""
    return pictures(1, height, width)[0].add(1.0).mul(127.5).round().div(255.0)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ((512, 512), (512, 512)),
        ((500, 333), (496, 336)),
        ((8, 24), (32, 64)),  # small: 32 / sqrt(8 * 24) = 2.31 times as large, rounded up
        ((1000, 1000), (768, 768)),
        ((3000, 1000), (1328, 432)),  # large: scaled by 0.4434, rounded down
        ((40, 40), (32, 32)),  # 2.5 squares are rounded to 2
        ((56, 56), (64, 64)),  # 3.5 to 4
        ((20000, 4), (2272, 16)),  # no square wide, which counts as small
    ],
)
def test_pictures_are_read_in_about_their_own_size(given, read) -> None:
    assert size_to_read(given, 16) == read
    assert size_to_read((given[1], given[0]), 16) == (read[1], read[0])


def test_limits_follow_the_squares_of_a_code() -> None:
    assert size_to_read((500, 500), 8) == (384, 384)
    assert size_to_read((4, 4), 8) == (16, 16)


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ((512, 512), (512, 512)),
        ((200, 200), (512, 512)),  # not 256x256: of one shape the usual size counts
        ((600, 800), (384, 512)),
        ((1080, 1920), (384, 768)),  # 1.78 is nearer to 2 than to 1.5
        ((1080, 1880), (384, 576)),  # 1.74 is not
        ((100, 1000), (256, 1024)),
        ((1000, 100), (1024, 256)),
        ((768, 384), (768, 384)),
    ],
)
def test_edited_pictures_go_to_the_size_of_the_nearest_shape(given, drawn) -> None:
    assert nearest_size(given, SIZES) == drawn


def test_of_shapes_that_are_equally_near_the_nearest_size_counts() -> None:
    sizes = ((64, 64), (32, 64), (128, 192))  # 1, 2 and 1.5; 1.25 is between the first and the last
    assert nearest_size((80, 100), sizes) == (64, 64)
    assert nearest_size((160, 200), sizes) == (128, 192)


def test_only_sizes_that_the_model_was_trained_for_are_drawn() -> None:
    assert size_to_draw(None, CONFIG) == (64, 64)
    assert size_to_draw((64, 128), CONFIG) == (64, 128)
    with pytest.raises(InvalidInput, match="no pictures of 100x64") as raised:
        size_to_draw((64, 100), CONFIG)
    assert raised.value.hint == "It draws: 64x64, 128x64, 64x128"
    with pytest.raises(InvalidInput, match="draws no pictures"):
        size_to_draw(None, IllumeConfig(**{**MODEL, "sizes": []}))


def test_a_picture_is_as_large_as_fits_and_centred_on_white() -> None:
    fit = Fit((50, 100), (64, 64))
    assert fit.box == (16, 0, 32, 64)
    put = fit.put(torch.zeros(3, 50, 100))
    assert put[:, :16].eq(1.0).all() and put[:, 48:].eq(1.0).all() and put[:, 16:48].eq(0.0).all()


@pytest.mark.parametrize("outer", [(64, 64), (512, 384), (320, 960)])
def test_the_side_that_fills_a_size_does_so_exactly(outer) -> None:
    for side in range(2, 1000):
        assert Fit((side, 1), outer).box[2] == outer[0]
        assert Fit((1, side * 4), outer).box[3] == outer[1]


def test_odd_rests_go_below_and_to_the_right() -> None:
    assert Fit((10, 9), (64, 64)).box == (0, 3, 64, 57)


@pytest.mark.parametrize("size", [(64, 64), (50, 100), (33, 97), (200, 120), (1, 300), (300, 1)])
@pytest.mark.parametrize("enlarged", [1, 2])
def test_taking_out_undoes_putting_in_and_keeps_the_size(size, enlarged) -> None:
    given = picture(*size)
    fit = Fit(size, nearest_size(size, CONFIG.sizes))
    whole = fit.put(given)
    # A decoder by diffusion draws everything in twice the size.
    taken = fit.take(whole.repeat_interleave(enlarged, 1).repeat_interleave(enlarged, 2))
    assert taken.shape == given.shape
    if min(size) > 1:
        assert (taken - given).abs().mean() < 0.04
        # Nothing of the white around it came along.
        assert taken.amax() < given.amax() + 0.1


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    given = picture(64, 128)
    assert torch.equal(Fit((64, 128), (64, 128)).put(given), given)
    assert torch.equal(to_read(given, CONFIG), given * 2.0 - 1.0)


def test_resizing_is_pillows() -> None:
    given = picture(37, 53)
    values = given.mul(255.0).round().byte().permute(1, 2, 0).contiguous()
    whole = PIL.Image.frombytes("RGB", (53, 37), bytes(values.flatten().tolist()))
    made = resize(given, (64, 80), LANCZOS).permute(1, 2, 0).mul(255.0).round().byte()
    assert bytes(made.flatten().tolist()) == whole.resize((80, 64), LANCZOS).tobytes()


def test_what_is_read_lies_within_minus_one_and_one() -> None:
    read = to_read(picture(100, 70), CONFIG)
    assert read.shape == (3, 96, 64)
    assert read.amin() >= -1.0 and read.amax() <= 1.0 and read.amin() < -0.5


def test_a_model_of_one_size_reads_in_that_size() -> None:
    config = IllumeConfig(**{**MODEL, "sizes": [[64, 64]]})
    read = to_read(picture(100, 50), config)
    assert read.shape == (3, 64, 64)
    assert read[:, :, :16].eq(1.0).all() and read[:, :, 48:].eq(1.0).all()


def test_pictures_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ZooError, match="not finite"):
        resize(torch.full((3, 8, 8), float("nan")), (8, 8), LANCZOS)
