"""Patch sequences: order and inverse."""

from __future__ import annotations

import torch

from zoo.nn.patches import patchify, unpatchify


def test_order_is_rows_of_patches_then_channel_row_column() -> None:
    image = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    assert patches[0, 1].tolist() == [2, 3, 8, 9, 26, 27, 32, 33]
    assert patches[0, 3].tolist() == [12, 13, 18, 19, 36, 37, 42, 43]


def test_unpatchify_is_the_inverse() -> None:
    images = torch.rand(2, 3, 8, 12)
    assert torch.equal(unpatchify(patchify(images, 4), 4, 3, 8, 12), images)
