"""Which combinations of colour and shape training leaves out, to measure whether a model composes.

Every colour and every shape occurs in training; only some of their combinations do not.
"""

from __future__ import annotations

from itertools import product

from zoo.shapes.scene import CLASSES, COLOURS, SHAPES, Scene


def _held_out() -> tuple[str, ...]:
    """One shape of each colour, taking the shapes in turn, so no shape loses more than two."""
    return tuple(
        f"{colour} {shape}"
        for (row, colour), (column, shape) in product(enumerate(COLOURS), enumerate(SHAPES))
        if (row + 1) % len(SHAPES) == column
    )


#: Combinations that training never shows, in the order of `CLASSES`.
HELD_OUT = _held_out()

#: Combinations that training shows, in the order of `CLASSES`.
SEEN = tuple(name for name in CLASSES if name not in HELD_OUT)


def is_held_out(scene: Scene) -> bool:
    """Whether any object of the scene is one that training never shows."""
    return any(item.name in HELD_OUT for item in scene.items)
