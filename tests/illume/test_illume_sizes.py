"""At which size a picture is looked at, and how many codes it becomes."""

from __future__ import annotations

import pytest
from small_illume import small_tokenizer

from zoo.errors import InvalidInput
from zoo_illume.sizes import RESIZED, semantic_size


def test_some_sizes_of_the_table_are_not_what_rounding_down_gives() -> None:
    floored = {size: (size[0] // 28 * 28, size[1] // 28 * 28) for size in RESIZED}
    upright = {size for size in RESIZED if size[0] > size[1] and floored[size] != semantic_size(*size)}
    assert upright == {(512, 384), (768, 384), (576, 384), (960, 320)}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((90, 120), (84, 112)),
        ((28, 56), (28, 56)),
        ((27, 500), (28, 476)),
        ((1, 1), (28, 28)),
        ((512, 511), (504, 504)),
        ((512, 400), (504, 392)),
        ((640, 384), (616, 364)),
    ],
)
def test_other_sizes_are_rounded_down_and_never_below_a_cell(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert semantic_size(*size) == expected


def test_the_table_is_of_the_released_cell_alone() -> None:
    assert semantic_size(512, 384, cell=32) == (512, 384)
    assert semantic_size(30, 9, cell=8) == (24, 8)


@pytest.mark.parametrize(
    ("size", "semantic", "pixel"),
    [
        ((256, 256), (9, 9), (16, 16)),
        ((512, 512), (18, 18), (32, 32)),
        ((512, 384), (16, 12), (32, 24)),
        ((384, 512), (12, 16), (24, 32)),
        ((768, 384), (26, 13), (48, 24)),
        ((384, 768), (13, 26), (24, 48)),
        ((1024, 256), (36, 9), (64, 16)),
        ((256, 1024), (9, 36), (16, 64)),
        ((384, 576), (12, 18), (24, 36)),
        ((576, 384), (18, 12), (36, 24)),
        ((960, 320), (33, 11), (60, 20)),
        ((320, 960), (11, 33), (20, 60)),
    ],
)
def test_grids_of_the_table_are_the_authors(
    size: tuple[int, int], semantic: tuple[int, int], pixel: tuple[int, int]
) -> None:
    assert small_tokenizer().grids(*size) == (semantic, pixel)


@pytest.mark.parametrize("size", [(500, 512), (512, 8), (0, 16)])
def test_sizes_that_are_no_whole_codes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match=rf"of {size[0]}x{size[1]} .*expected multiples of 16"):
        small_tokenizer().grids(*size)
