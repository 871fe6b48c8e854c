"""What the vision transformer reads, in which order, and that pictures do not see each other."""

from __future__ import annotations

import pytest
import torch
from small_illume import pictures, randomised, small_tokenizer

from zoo_illume.config import VisionConfig
from zoo_illume.patches import block_positions, normalised, patch_rows
from zoo_illume.vision import Block, VisionTransformer, rotated, rotation


def transformer(**changes: int) -> VisionTransformer:
    sizes = {"depth": 2, "width": 16, "heads": 2, "expansion": 2, "out_channels": 24, **changes}
    made = randomised(VisionTransformer(VisionConfig(**sizes)))
    assert isinstance(made, VisionTransformer)
    return made.requires_grad_(False)


def test_rows_run_block_after_block_and_inside_a_block_patch_after_patch() -> None:
    # Every pixel is the number of its patch, counted left to right, top to bottom in a picture of 4 x 6.
    numbers = torch.arange(24.0).view(4, 6).repeat_interleave(5, 0).repeat_interleave(5, 1)
    rows = patch_rows(numbers.expand(2, 1, -1, -1), patch=5, merge=2, frames=1)
    assert rows.shape == (2, 24, 25)
    assert (rows == rows[:, :, :1]).all()
    expected = [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 12, 13, 18, 19, 14, 15, 20, 21, 16, 17, 22, 23]
    assert rows[1, :, 0].tolist() == expected
    positions = block_positions(4, 6, 2)
    assert (positions[:, 0] * 6 + positions[:, 1]).tolist() == expected


def test_features_of_a_row_run_channel_frame_row_column() -> None:
    picture = torch.arange(3 * 4 * 4.0).view(1, 3, 4, 4)
    row = patch_rows(picture, patch=4, merge=1, frames=2)[0, 0].view(3, 2, 4, 4)
    assert torch.equal(row[:, 0], picture[0])
    assert torch.equal(row[:, 1], picture[0])


def test_without_merging_positions_run_left_to_right() -> None:
    assert block_positions(2, 3, 1).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_pictures_are_clamped_and_normalised() -> None:
    images = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    made = normalised(images, (2, 2))
    mean, deviation = 0.48145466, 0.26862954
    expected = [(value - mean) / deviation for value in (0.0, 0.0, 0.5, 1.0, 1.0)]
    torch.testing.assert_close(made[:, 0, 0, 0], torch.tensor(expected))
    assert normalised(images.half(), (4, 6)).dtype == torch.float32
    assert normalised(images, (4, 6)).shape == (5, 3, 4, 6)


def test_resizing_smooths_what_is_too_fine_to_see() -> None:
    stripes = torch.tensor([-1.0, 1.0]).repeat(1, 3, 56, 28)
    small = normalised(stripes, (28, 28))[0, :, 4:-4, 4:-4]
    grey = normalised(torch.zeros(1, 3, 28, 28), (28, 28))[0, :, 4:-4, 4:-4]
    torch.testing.assert_close(small, grey, atol=1e-4, rtol=0)


def test_the_angle_between_two_positions_depends_on_their_distance_alone() -> None:
    torch.manual_seed(1)
    query, key = torch.randn(2, 1, 1, 1, 16)
    places = torch.tensor([[0, 0], [3, 5], [10, 2], [13, 7]])
    turned = [
        [rotated(side.expand(1, 1, 4, 16), rotation(places, 16))[0, 0, i] for i in range(4)]
        for side in (query, key)
    ]
    products = [[float(q @ k) for k in turned[1]] for q in turned[0]]
    assert products[0][1] == pytest.approx(products[2][3], abs=1e-5)
    assert products[0][2] == pytest.approx(products[1][3], abs=1e-5)
    assert products[0][1] != pytest.approx(products[1][0], abs=1e-3)
    assert products[0][0] == pytest.approx(float(query.flatten() @ key.flatten()), abs=1e-5)


def test_rows_and_columns_turn_different_halves() -> None:
    by_row, by_column = (rotation(torch.tensor([place]), 16)[0].flatten() for place in ([5, 0], [0, 5]))
    assert torch.equal(by_row[4:], torch.ones(4)) and torch.equal(by_column[:4], torch.ones(4))
    assert torch.equal(by_row[:4], by_column[4:])
    expected = torch.cos(5.0 * 10000.0 ** -(torch.arange(4) / 4))
    torch.testing.assert_close(by_row[:4], expected)


def test_a_batch_is_its_pictures_one_by_one() -> None:
    vit, images = transformer(), pictures(3, 56, 84)
    together = vit(images)
    assert together.shape == (3, 6, 24)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], vit(images[row : row + 1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "cells"), [((28, 28), 1), ((60, 90), 6), ((20, 140), 5)])
def test_features_of_other_sizes(size: tuple[int, int], cells: int) -> None:
    assert transformer()(pictures(2, *size)).shape == (2, cells, 24)


def test_other_patches_and_frames() -> None:
    vit = transformer(patch=4, merge=3, frames=1)
    assert vit.embed.weight.shape == (16, 3 * 16)
    assert vit(pictures(1, 24, 36)).shape == (1, 6, 24)
    assert vit.patches(pictures(1, 24, 36)).shape == (1, 54, 48)


def test_blocks_behind_the_transformer_have_sixteen_heads() -> None:
    tokenizer = small_tokenizer()
    assert tokenizer.semantic is not None
    blocks = [part for part in tokenizer.semantic.modules() if isinstance(part, Block)]
    assert [block.heads for block in blocks] == [16, 2, 16]
    assert [block.up.out_features for block in blocks] == [256, 32, 256]
