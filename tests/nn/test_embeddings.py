"""Embeddings of numbers and of places."""

import math

import pytest
import torch

from zoo.nn.embeddings import grid_sinusoids, sinusoids


def test_a_number_becomes_sines_then_cosines_of_falling_frequencies():
    made = sinusoids(torch.tensor([0, 3]), 4, max_period=100.0)
    angles = torch.tensor([3.0, 0.3])
    torch.testing.assert_close(made[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(made[1], torch.cat([angles.sin(), angles.cos()]))


def test_places_of_a_grid_are_told_by_their_row_then_their_column():
    made = grid_sinusoids(2, 3, 8)
    assert made.shape == (6, 8)
    assert torch.equal(made[0, :4], made[2, :4]) and torch.equal(made[1, 4:], made[4, 4:])
    assert len(made.unique(dim=0)) == 6
    # The slowest of a long row of numbers turns by about a quarter, so that it tells all of them apart.
    slowest = grid_sinusoids(1, 32, 256)[:, 128 + 63]
    assert bool((slowest.diff() > 0).all())
    assert float(slowest[-1].asin()) == pytest.approx(math.pi / 2, rel=0.1)


@pytest.mark.parametrize(
    ("make", "width"), [(lambda w: sinusoids(torch.zeros(1), w), 3), (lambda w: grid_sinusoids(2, 2, w), 6)]
)
def test_a_width_that_does_not_divide_is_refused(make, width):
    with pytest.raises(ValueError, match=f"width is {width}"):
        make(width)
