"""Training batches drawn straight from noise, without building `Scene` objects one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.runtime.noise import NoiseSource
from zoo.shapes.rendering import colour_table, coverage
from zoo.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES

#: Largest displacement of a single object from the picture's centre, as a fraction of the side.
CENTRE_OFFSET = 0.05


def single_objects(noise: NoiseSource, count: int, size: int) -> tuple[Tensor, Tensor]:
    """One object of either size near the centre, on any background.

    Returns images [count, 3, size, size] in [-1, 1] and class ids [count] into `zoo.shapes.CLASSES`.
    """

    def choose(name: str, options: int) -> Tensor:
        return (noise.uniform(name, (count,)) * options).long()

    colour, shape = choose("colour", len(COLOURS)), choose("shape", len(SHAPES))
    radius = torch.tensor(list(SIZES.values()))[choose("size", len(SIZES))]
    background = colour_table(BACKGROUNDS)[choose("background", len(BACKGROUNDS))]
    centre = 0.5 + CENTRE_OFFSET * (2.0 * noise.uniform("centre", (count, 2)) - 1.0)
    mask = coverage(shape, centre, radius, size)[:, None]
    object_colour = colour_table(COLOURS)[colour]
    picture = background[:, :, None, None] * (1.0 - mask) + object_colour[:, :, None, None] * mask
    return picture * 2.0 - 1.0, colour * len(SHAPES) + shape
