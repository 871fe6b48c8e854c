"""What a picture of the shapes world can hold: its words, and `Scene`, the truth of one picture."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")

#: sRGB, 8 bits per channel. Chosen far apart from each other and from every background.
COLOURS = {
    "red": (225, 45, 45),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 50),
    "green": (50, 170, 75),
    "cyan": (60, 200, 215),
    "blue": (50, 90, 220),
    "purple": (140, 60, 190),
    "pink": (245, 130, 190),
}

#: Backgrounds are neutral, so that no object colour is ever a background colour.
BACKGROUNDS = {
    "white": (255, 255, 255),
    "silver": (192, 192, 192),
    "gray": (112, 112, 112),
    "black": (0, 0, 0),
}

#: Radius (half of the largest extent) as a fraction of the picture's side.
SIZES = {"small": 0.13, "large": 0.19}

#: Centres of the grid's rows and columns, as fractions of the picture's side.
GRID = (0.21, 0.5, 0.79)

#: (row, column) of every cell, row by row.
CELLS = tuple(product(range(len(GRID)), range(len(GRID))))

#: Largest displacement of an object from the centre of its cell that `sample_scene` draws.
MAX_OFFSET = 0.02

#: Every combination of colour and shape, in the order that class ids use.
CLASSES = tuple(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES))


@dataclass(frozen=True)
class Item:
    """One object. `cell` is (row, column) from the top left, `offset` (x, y) in fractions of the side."""

    shape: str
    colour: str
    size: str = "large"
    cell: tuple[int, int] = (1, 1)
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.shape, SHAPES, "shape"),
            (self.colour, COLOURS, "colour"),
            (self.size, SIZES, "size"),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}, expected one of: {', '.join(known)}")
        if not all(0 <= index < len(GRID) for index in self.cell):
            raise ValueError(f"cell {self.cell} is outside the {len(GRID)}x{len(GRID)} grid")

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in fractions of the picture's side, from the top left."""
        row, column = self.cell
        return GRID[column] + self.offset[0], GRID[row] + self.offset[1]

    @property
    def radius(self) -> float:
        """Half of the largest extent, as a fraction of the picture's side."""
        return SIZES[self.size]

    @property
    def name(self) -> str:
        """Colour and shape, as in `CLASSES`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A background and one to three objects in different cells, listed back to front."""

    background: str
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"unknown background {self.background!r}, expected one of: {', '.join(BACKGROUNDS)}"
            )
        if not 1 <= len(self.items) <= 3:
            raise ValueError(f"a scene holds 1 to 3 objects, got {len(self.items)}")
        if len({item.cell for item in self.items}) != len(self.items):
            raise ValueError("two objects stand in the same cell")


def sample_scene(seed: int, objects: Sequence[int] = (1, 2, 3), classes: Sequence[str] = CLASSES) -> Scene:
    """Draw a scene: the same seed and arguments always give the same scene.

    `objects` are the counts to choose from; `classes` the allowed "colour shape" combinations. Objects of
    one scene differ in colour or shape, so that a caption can always tell them apart.
    """
    rng = random.Random(f"shapes scene {seed}")
    count = rng.choice(list(objects))
    names = rng.sample(list(classes), count)
    cells = rng.sample(CELLS, count)
    items = []
    for name, cell in zip(names, cells, strict=True):
        colour, shape = name.split()
        offset = (rng.uniform(-MAX_OFFSET, MAX_OFFSET), rng.uniform(-MAX_OFFSET, MAX_OFFSET))
        items.append(Item(shape, colour, rng.choice(list(SIZES)), cell, offset))
    return Scene(rng.choice(list(BACKGROUNDS)), tuple(items))


def sample_scenes(seed: int, count: int, objects: Sequence[int] = (1, 2, 3)) -> Iterator[Scene]:
    """`count` scenes for the seeds `seed`, `seed + 1`, ..."""
    return (sample_scene(seed + index, objects) for index in range(count))
