"""Training batches as functions of noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.runtime.noise import NoiseSource
from zoo.shapes.captions import Description, describe
from zoo.shapes.rendering import colour_table, coverage, render_all
from zoo.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, sample_scene
from zoo.shapes.splits import SEEN

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


def captioned_scenes(noise: NoiseSource, count: int, size: int) -> tuple[Tensor, list[str]]:
    """Scenes of one to three objects, all of combinations that are not held out, with captions.

    Returns images [count, 3, size, size] in [-1, 1] and a caption each, which leaves out the size of every
    object, the position and the background as often as it says them.
    """
    scenes = drawn_scenes(noise, count)
    said = (noise.uniform("said", (count, 5)) < 0.5).tolist()
    captions = [str(partly_described(scene, *flags)) for scene, flags in zip(scenes, said, strict=True)]
    return render_all(scenes, size) * 2.0 - 1.0, captions


def drawn_scenes(
    noise: NoiseSource, count: int, objects: Sequence[int] = (1, 2, 3), classes: Sequence[str] = SEEN
) -> list[Scene]:
    """Scenes of some combinations, without those that are held out by default.

    `objects` are the numbers of objects to choose from.
    """
    return [sample_scene(seed, objects, classes) for seed in whole_numbers(noise, "scene", count)]


def whole_numbers(noise: NoiseSource, name: str, count: int) -> list[int]:
    """Evenly drawn whole numbers below 2^48, for seeds: a function of the draw of that name."""
    halves = (noise.uniform(name, (count, 2)).double() * 2**24).long().tolist()
    return [(high << 24) + low for high, low in halves]


def partly_described(scene: Scene, position: bool, background: bool, *sizes: bool) -> Description:
    """What a caption may say of a scene; `sizes` has one entry for each object."""
    full = describe(scene, position=position, background=background)
    objects = tuple(
        mention if sized else dataclasses.replace(mention, size=None)
        for mention, sized in zip(full.objects, sizes, strict=False)
    )
    return dataclasses.replace(full, objects=objects)
