"""Drawing scenes: anti-aliased pictures and layers, from signed distances.

All functions are vectorised over objects, so that a training batch is drawn at once.
Coordinates are fractions of the picture's side; colours are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, Item, Scene

#: Triangle corners in units of the radius: apex, right, left.
_TRIANGLE = ((0.0, -0.95), (1.0, 0.85), (-1.0, 0.85))


def _triangle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Distance to the nearest edge line; exact near edges, which is where anti-aliasing looks."""
    worst = None
    corners = [(cx * radius, cy * radius) for cx, cy in _TRIANGLE]
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        outside = ((x - ax) * ey - (y - ay) * ex) / torch.hypot(ex, ey)
        worst = outside if worst is None else torch.maximum(worst, outside)
    assert worst is not None
    return worst


def _box(x: Tensor, y: Tensor, half_width: Tensor, half_height: Tensor) -> Tensor:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _signed_distances(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Negative inside. Stacked over `SHAPES` in the first dimension; every shape fits the radius."""
    length = torch.hypot(x, y)
    return torch.stack(
        (
            length - radius,
            _box(x, y, 0.86 * radius, 0.86 * radius),
            _triangle(x, y, radius),
            (x.abs() + y.abs() - radius) * 0.5**0.5,
            torch.minimum(_box(x, y, radius, 0.36 * radius), _box(x, y, 0.36 * radius, radius)),
            (length - 0.72 * radius).abs() - 0.28 * radius,
        )
    )


def coverage(shape: Tensor, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """How much of each pixel an object covers.

    `shape` [n] indexes `SHAPES`, `centre` [n, 2] is (x, y), `radius` [n]; returns [n, size, size] in [0, 1].
    """
    axis = (torch.arange(size) + 0.5) / size
    x = (axis[None, None, :] - centre[:, 0, None, None]).expand(-1, size, -1)
    y = (axis[None, :, None] - centre[:, 1, None, None]).expand(-1, -1, size)
    distance = _signed_distances(x, y, radius[:, None, None])
    chosen = distance[shape, torch.arange(len(shape))]
    return (0.5 - chosen * size).clamp(0.0, 1.0)


def colour_table(table: dict[str, tuple[int, int, int]]) -> Tensor:
    """[n, 3] in [0, 1], rows in the table's order."""
    return torch.tensor(list(table.values()), dtype=torch.float32) / 255.0


def masks(items: Sequence[Item], size: int) -> Tensor:
    """Coverage of each object, ignoring the others: [len(items), size, size] in [0, 1]."""
    return coverage(
        torch.tensor([SHAPES.index(item.shape) for item in items]),
        torch.tensor([item.centre for item in items], dtype=torch.float32),
        torch.tensor([item.radius for item in items], dtype=torch.float32),
        size,
    )


def layers(scene: Scene, size: int) -> Tensor:
    """RGBA layers back to front, the background first: [1 + objects, 4, size, size] in [0, 1]."""
    background = torch.tensor(BACKGROUNDS[scene.background], dtype=torch.float32) / 255.0
    result = torch.ones(1 + len(scene.items), 4, size, size)
    result[0, :3] = background[:, None, None]
    for layer, item, mask in zip(result[1:], scene.items, masks(scene.items, size), strict=True):
        layer[:3] = torch.tensor(COLOURS[item.colour], dtype=torch.float32)[:, None, None] / 255.0
        layer[3] = mask
    return result


def composite(stack: Tensor) -> Tensor:
    """Alpha-composite RGBA layers [n, 4, h, w], back to front, into RGB [3, h, w]."""
    picture = stack[0, :3] * stack[0, 3:]
    for layer in stack[1:]:
        picture = picture * (1.0 - layer[3:]) + layer[:3] * layer[3:]
    return picture


def visible_masks(scene: Scene, size: int) -> Tensor:
    """What can be seen of each object under those in front: [len(items), size, size] in [0, 1]."""
    full = masks(scene.items, size)
    visible = full.clone()
    shown = torch.ones(size, size)
    for index in reversed(range(len(full))):
        visible[index] *= shown
        shown = shown * (1.0 - full[index])
    return visible


def render(scene: Scene, size: int) -> Tensor:
    """The picture: RGB [3, size, size] in [0, 1]."""
    return composite(layers(scene, size))


def render_all(scenes: Sequence[Scene], size: int) -> Tensor:
    """The pictures of several scenes at once: RGB [n, 3, size, size] in [0, 1]."""
    colours, backgrounds = colour_table(COLOURS), colour_table(BACKGROUNDS)
    behind = backgrounds[[list(BACKGROUNDS).index(scene.background) for scene in scenes]]
    pictures = behind[:, :, None, None].repeat(1, 1, size, size)
    for depth in range(max((len(scene.items) for scene in scenes), default=0)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.items) > depth]
        items = [scenes[row].items[depth] for row in rows]
        colour = colours[[list(COLOURS).index(item.colour) for item in items]][:, :, None, None]
        mask = masks(items, size)[:, None]
        pictures[rows] = pictures[rows] * (1.0 - mask) + colour * mask
    return pictures
