"""Training batches of scenes as layers: functions of noise, like those of `zoo.shapes.batches`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.runtime.noise import NoiseSource
from zoo.shapes.batches import drawn_scenes, partly_described
from zoo.shapes.captions import Description, describe
from zoo.shapes.prompts import background_part
from zoo.shapes.rendering import colour_table, masks
from zoo.shapes.scene import BACKGROUNDS, COLOURS, Scene

#: Layers of a scene at most: its background and three objects.
MOST_LAYERS = 4


@dataclass(frozen=True, eq=False)
class LayeredBatch:
    """Scenes as layers back to front: layer 0 is the background, layer i the object i of the scene.

    pictures: [n, 4, 3, size, size] in [-1, 1], `mask * colour + (1 - mask) * 0`: every object stands alone on
        the neutral grey 0, so a picture lies over what is behind it as `picture + (1 - mask) * behind`.
    masks: [n, 4, 1, size, size] in [0, 1]: how much of each pixel the whole object covers, hidden or not;
        ones for backgrounds, zeros for layers that a scene does not use.
    present: bool [n, 4], the layers that a scene uses.
    captions: what may be said of a scene, its objects in the order of the layers.
    parts: what may be said of each layer that a scene uses; an empty text says nothing.
    """

    pictures: Tensor
    masks: Tensor
    present: Tensor
    captions: list[str]
    parts: list[tuple[str, ...]]


def layered_scenes(
    noise: NoiseSource, count: int, size: int, objects: Sequence[int] = (1, 2, 3)
) -> LayeredBatch:
    """Scenes of combinations that are not held out; `objects` are the numbers of objects to choose from.

    Captions leave out as much as those of `zoo.shapes.batches.captioned_scenes`. Whether a part says the
    background, or the size or the position of its object, is an even chance of its own, whatever the caption
    says: a model that is told positions learns sooner what relations mean for them.
    """
    scenes = drawn_scenes(noise, count, objects)
    said = (noise.uniform("said", (count, 5)) < 0.5).tolist()
    in_parts = (noise.uniform("parts", (count, MOST_LAYERS, 2)) < 0.5).tolist()
    described = [partly_described(scene, *flags) for scene, flags in zip(scenes, said, strict=True)]
    parts = [_parts(scene, flags) for scene, flags in zip(scenes, in_parts, strict=True)]
    pictures, covers, present = _layers(scenes, size)
    return LayeredBatch(pictures, covers, present, [str(caption) for caption in described], parts)


def _parts(scene: Scene, said: Sequence[tuple[bool, bool]]) -> tuple[str, ...]:
    """What is said of each layer; `said` tells for each whether its size, or background, and its position."""
    (background, _), *of_objects = said
    objects = (
        Description(
            (mention if sized else dataclasses.replace(mention, size=None),),
            cell=item.cell if placed else None,
        )
        for item, mention, (sized, placed) in zip(
            scene.items, describe(scene).objects, of_objects, strict=False
        )
    )
    return (background_part(scene.background) if background else "", *map(str, objects))


def _layers(scenes: Sequence[Scene], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, masks and which layers are used; all objects of all scenes are drawn at once."""
    pictures = torch.zeros(len(scenes), MOST_LAYERS, 3, size, size)
    covers = torch.zeros(len(scenes), MOST_LAYERS, 1, size, size)
    used = torch.tensor([1 + len(scene.items) for scene in scenes])
    present = torch.arange(MOST_LAYERS) < used[:, None]
    names = list(BACKGROUNDS)
    behind = colour_table(BACKGROUNDS)[[names.index(scene.background) for scene in scenes]]
    pictures[:, 0] = (behind * 2.0 - 1.0)[:, :, None, None]
    covers[:, 0] = 1.0
    items = [item for scene in scenes for item in scene.items]
    # In the order of `items`: scene by scene, and in each back to front.
    rows, layers = present[:, 1:].nonzero(as_tuple=True)
    mask = masks(items, size)[:, None]
    colours = list(COLOURS)
    colour = colour_table(COLOURS)[[colours.index(item.colour) for item in items]] * 2.0 - 1.0
    covers[rows, 1 + layers] = mask
    pictures[rows, 1 + layers] = mask * colour[:, :, None, None]
    return pictures, covers, present
