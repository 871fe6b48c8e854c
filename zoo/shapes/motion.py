"""Moving scenes: objects that move along straight lines, as frames of a video."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zoo.shapes.rendering import render
from zoo.shapes.scene import Item, Scene

Velocity = tuple[float, float]


def _moved(item: Item, velocity: Velocity, time: int) -> Item:
    x, y = item.offset
    return replace(item, offset=(x + velocity[0] * time, y + velocity[1] * time))


def _room(centre: float, radius: float) -> tuple[float, float]:
    """How far an object can go towards 0 (negative) and towards 1 without leaving the picture."""
    return min(radius - centre, 0.0), max(1.0 - radius - centre, 0.0)


def at_time(scene: Scene, velocities: Sequence[Velocity], time: int) -> Scene:
    """The scene `time` frames later: one velocity (x, y) per object, in fractions of the side per frame.

    Depth order stays; so do the cells, of which the offsets grow.
    """
    if len(velocities) != len(scene.items):
        raise ValueError(f"{len(scene.items)} objects need as many velocities, got {len(velocities)}")
    items = (_moved(item, velocity, time) for item, velocity in zip(scene.items, velocities, strict=True))
    return replace(scene, items=tuple(items))


def frames(scene: Scene, velocities: Sequence[Velocity], count: int, size: int) -> Tensor:
    """`count` pictures of the moving scene, the first one at rest: [count, 3, size, size] in [0, 1].

    `velocities` as in `at_time`. Objects that leave the picture are cut off at its edge.
    """
    if count < 1:
        raise ValueError(f"a moving scene has at least 1 frame, got {count}")
    return torch.stack([render(at_time(scene, velocities, time), size) for time in range(count)])


def sample_velocities(scene: Scene, seed: int, count: int, fastest: float = 0.05) -> tuple[Velocity, ...]:
    """Velocities that keep every object wholly inside the picture for `count` frames.

    No component exceeds `fastest` (fractions of the side per frame). The same arguments always give the same
    velocities. An object that starts beyond an edge does not move farther out.
    """
    rng = random.Random(f"shapes motion {seed}")
    steps = max(count - 1, 1)

    def draw(centre: float, radius: float) -> float:
        low, high = _room(centre, radius)
        return rng.uniform(max(low / steps, -fastest), min(high / steps, fastest))

    return tuple(
        (draw(item.centre[0], item.radius), draw(item.centre[1], item.radius)) for item in scene.items
    )
