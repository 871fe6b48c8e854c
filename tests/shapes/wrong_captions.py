"""Captions made wrong by one word, for the tests of captions and of the judge."""

from __future__ import annotations

from dataclasses import replace

from zoo.shapes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Description
from zoo.shapes.captions import POSITIONS


def altered(said: Description) -> list[Description]:
    """The description with one word changed, every way that certainly makes it false."""
    result = [replace(said, background=other) for other in BACKGROUNDS if other != said.background]
    if said.cell is not None:
        result += [replace(said, cell=cell) for cell in POSITIONS.values() if cell != said.cell]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for index, relation in enumerate(said.relations):
        result.append(replace(said, relations=_put(said.relations, index, opposite[relation])))
    for index, mention in enumerate(said.objects):
        others = [replace(mention, shape=shape) for shape in SHAPES if shape != mention.shape]
        others += [replace(mention, colour=colour) for colour in COLOURS if colour != mention.colour]
        others += [replace(mention, size=size) for size in SIZES if size != mention.size]
        result += [replace(said, objects=_put(said.objects, index, other)) for other in others]
    return result


def _put(values: tuple, index: int, value: object) -> tuple:
    return (*values[:index], value, *values[index + 1 :])
