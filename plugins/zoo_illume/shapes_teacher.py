"""What stands where in a picture of the shapes world, as features: the teacher of the small tokenizer.

ILLUME+ starts from a vision transformer that was trained together with a language model, so that its features
already mean something. A small one has nobody to learn that from; here the truth of a scene takes the place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.runtime.noise import generator
from zoo.shapes.rendering import masks
from zoo.shapes.scene import BACKGROUNDS, CLASSES, COLOURS, SHAPES, SIZES, Item, Scene

#: What is said of an object: shape, colour, both together (two objects may share a cell), size, and where its
#: centre is, seen from the cell.
_SAID_OF_OBJECTS = len(SHAPES) + len(COLOURS) + len(CLASSES) + len(SIZES) + 2

#: Numbers that describe a cell.
CONTENT = _SAID_OF_OBJECTS + len(BACKGROUNDS)


def cell_contents(scenes: Sequence[Scene], size: int, cell: int) -> Tensor:
    """What is seen in every cell of `cell` x `cell` pixels: float32 [n, CONTENT, size / cell, size / cell].

    Objects count by the root of the share of the cell that they cover, so that a thin part of one still
    counts; what lies hidden under others does not. The background counts by the share that is left of it.
    """
    side = size // cell
    contents = torch.zeros(len(scenes), CONTENT, side, side)
    items = [item for scene in scenes for item in scene.items]
    rows = torch.tensor([row for row, scene in enumerate(scenes) for _ in scene.items])
    shares = F.avg_pool2d(visible(scenes, items, size)[:, None], cell)[:, 0]
    contents[:, :_SAID_OF_OBJECTS].index_add_(0, rows, _said(items, side) * shares.sqrt()[:, None])
    left = torch.ones(len(scenes), side, side).index_add_(0, rows, shares, alpha=-1.0)
    names = list(BACKGROUNDS)
    behind = torch.tensor([names.index(scene.background) for scene in scenes])
    contents[:, _SAID_OF_OBJECTS:] = (
        F.one_hot(behind, len(names))[:, :, None, None] * left.clamp_min(0.0)[:, None]
    )
    return contents


def visible(scenes: Sequence[Scene], items: Sequence[Item], size: int) -> Tensor:
    """What can be seen of each object of each scene, all drawn at once: [objects, size, size] in [0, 1]."""
    seen = masks(items, size)
    full = seen.clone()
    first = 0
    for scene in scenes:
        last = first + len(scene.items)
        for behind in range(first, last - 1):
            seen[behind] *= (1.0 - full[behind + 1 : last]).prod(0)
        first = last
    return seen


def teacher_features(scenes: Sequence[Scene], size: int, cell: int, channels: int) -> Tensor:
    """A fixed random projection of `cell_contents`, without mean and scale in each cell.

    Returns float32 [n, channels, size / cell, size / cell]: as many features, of the same statistics, as a
    vision transformer with such cells has behind its parameter-free norm.
    """
    directions = torch.randn(CONTENT, channels, generator=generator("shapes teacher", channels))
    projected = cell_contents(scenes, size, cell).movedim(1, -1) @ directions
    return F.layer_norm(projected, (channels,), eps=1e-6).movedim(-1, 1)


def _said(items: Sequence[Item], side: int) -> Tensor:
    """What is said of each object in each cell: [objects, _SAID_OF_OBJECTS, side, side]."""
    names = (
        (list(SHAPES), [item.shape for item in items]),
        (list(COLOURS), [item.colour for item in items]),
        (list(CLASSES), [item.name for item in items]),
        (list(SIZES), [item.size for item in items]),
    )
    known = torch.cat(
        [F.one_hot(torch.tensor([of.index(name) for name in told]), len(of)) for of, told in names], dim=1
    )
    middles = (torch.arange(side) + 0.5) / side
    centres = torch.tensor([item.centre for item in items], dtype=torch.float32)
    across = (centres[:, 0, None, None] - middles[None, None, :]).expand(-1, side, -1)
    down = (centres[:, 1, None, None] - middles[None, :, None]).expand(-1, -1, side)
    # Distances in cells.
    places = torch.stack([across, down], dim=1) * side
    return torch.cat([known[:, :, None, None].expand(-1, -1, side, side).to(places), places], dim=1)
