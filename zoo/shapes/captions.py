"""Captions of scenes, and back: a closed grammar, so that every text has one meaning or a clear error.

    caption    = object [ " " position | { " " relation " " object } ] [ " on a " background " background" ]
    object     = article " " [ size " " ] colour " " shape
    article    = "a" | "an"                                    "an" before "orange"
    relation   = "left of" | "right of" | "above" | "below"
    position   = "in the centre" | "at the top" | "at the bottom" | "at the left" | "at the right"
               | "at the top left" | "at the top right" | "at the bottom left" | "at the bottom right"
    size       = "small" | "large"
    colour     = "red" | "orange" | "yellow" | "green" | "cyan" | "blue" | "purple" | "pink"
    shape      = "circle" | "square" | "triangle" | "diamond" | "cross" | "ring"
    background = "white" | "silver" | "gray" | "black"

There are one to three objects, and a relation holds between the objects on its two sides: in "a red circle
left of a blue square above a green ring" the circle is left of the square and the square is above the ring.
What a caption leaves out (size, position, background) it says nothing about.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations

from zoo.shapes.phrases import PhraseReader
from zoo.shapes.scene import BACKGROUNDS, COLOURS, GRID, SHAPES, SIZES, Item, Scene

#: Each relation as the axis of the centres (0 = x, 1 = y) and the sign of the first minus the second.
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}

#: Each position as the cell (row, column) it names.
POSITIONS = {
    "at the top left": (0, 0),
    "at the top": (0, 1),
    "at the top right": (0, 2),
    "at the left": (1, 0),
    "in the centre": (1, 1),
    "at the right": (1, 2),
    "at the bottom left": (2, 0),
    "at the bottom": (2, 1),
    "at the bottom right": (2, 2),
}

_MOST_OBJECTS = 3

#: Two centres count as left and right, or above and below, from half of the grid's spacing on: objects of one
#: column differ a little in x too, and neither is left of the other.
_CLEARLY_APART = (GRID[1] - GRID[0]) / 2.0

_ARTICLES = ("a", "an")


class CaptionError(ValueError):
    """Text that is no caption. `unknown` are its words outside the vocabulary (if any), `known` all words."""

    def __init__(self, message: str, unknown: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.unknown = unknown
        self.known = vocabulary()


@dataclass(frozen=True)
class Mention:
    """One object as a caption names it; None where nothing is said."""

    shape: str
    colour: str
    size: str | None = None

    def __str__(self) -> str:
        words = " ".join(word for word in (self.size, self.colour, self.shape) if word)
        return f"{article_of(words)} {words}"


@dataclass(frozen=True)
class Description:
    """What a caption says; `str` writes it as text and `parse` reads it back.

    `relations[i]` holds between objects `i` and `i + 1`. `cell` (row, column) is said of single objects only.
    """

    objects: tuple[Mention, ...]
    relations: tuple[str, ...] = ()
    cell: tuple[int, int] | None = None
    background: str | None = None

    def __str__(self) -> str:
        parts = [str(self.objects[0])]
        for relation, mention in zip(self.relations, self.objects[1:], strict=True):
            parts += [relation, str(mention)]
        parts += [position for position, cell in POSITIONS.items() if cell == self.cell]
        if self.background is not None:
            parts.append(f"on {article_of(self.background)} {self.background} background")
        return " ".join(parts)


def article_of(word: str) -> str:
    """The article in front of a word."""
    return "an" if word[0] in "aeiou" else "a"


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted."""
    objects = (*_ARTICLES, *SIZES, *COLOURS, *SHAPES)
    phrases = (*objects, *RELATIONS, *POSITIONS, "on", *BACKGROUNDS, "background")
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def relation_of(first: Item, second: Item) -> str:
    """How a caption says that two objects stand to each other.

    The axis on which the cells differ more decides; left and right if they differ equally.
    """
    rows, columns = first.cell[0] - second.cell[0], first.cell[1] - second.cell[1]
    if abs(columns) >= abs(rows):
        return "left of" if columns < 0 else "right of"
    return "above" if rows < 0 else "below"


def describe(scene: Scene, sizes: bool = True, position: bool = True, background: bool = True) -> Description:
    """What the full caption of a scene says, or less: objects in the scene's order."""
    objects = tuple(Mention(item.shape, item.colour, item.size if sizes else None) for item in scene.items)
    return Description(
        objects,
        tuple(relation_of(first, second) for first, second in pairwise(scene.items)),
        scene.items[0].cell if position and len(objects) == 1 else None,
        scene.background if background else None,
    )


def caption(scene: Scene, sizes: bool = True, position: bool = True, background: bool = True) -> str:
    """The scene in words: everything but displacements inside cells and depth order, or less.

    `position` concerns scenes of one object; the others are placed by relations.
    """
    return str(describe(scene, sizes, position, background))


def matches(description: Description, scene: Scene) -> bool:
    """Whether everything that is said is true of the scene, and the scene holds no further object."""
    if len(description.objects) != len(scene.items):
        return False
    if description.background not in (None, scene.background):
        return False
    if description.cell not in (None, scene.items[0].cell):
        return False
    return any(_holds(description, order) for order in permutations(scene.items))


def _holds(description: Description, items: tuple[Item, ...]) -> bool:
    named = all(
        (mention.shape, mention.colour) == (item.shape, item.colour) and mention.size in (None, item.size)
        for mention, item in zip(description.objects, items, strict=True)
    )
    pairs = zip(description.relations, pairwise(items), strict=True)
    return named and all(is_related(relation, first, second) for relation, (first, second) in pairs)


def is_related(relation: str, first: Item, second: Item) -> bool:
    """Whether a relation is true of two objects, which several may be."""
    axis, sign = RELATIONS[relation]
    return sign * (first.centre[axis] - second.centre[axis]) > _CLEARLY_APART


def _read_article(reader: PhraseReader) -> None:
    reader.need([article_of(reader.words[reader.at + 1])] if len(reader.words) > reader.at + 1 else _ARTICLES)


def _read_mention(reader: PhraseReader) -> Mention:
    _read_article(reader)
    size = reader.take(SIZES)
    colour = reader.need(COLOURS)
    return Mention(reader.need(SHAPES), colour, size)


def _check_words(reader: PhraseReader) -> None:
    known = vocabulary()
    unknown = tuple(dict.fromkeys(word for word in reader.words if word not in known))
    if unknown:
        listed = ", ".join(repr(word) for word in unknown)
        raise CaptionError(f"unknown in captions: {listed}; known words: {', '.join(known)}", unknown)


def parse(text: str) -> Description:
    """What a caption says. Case and spacing do not matter. Raises `CaptionError` for anything else."""
    reader = PhraseReader(text, "a caption", CaptionError)
    _check_words(reader)
    objects, relations, cell, background = [_read_mention(reader)], [], None, None
    position = reader.take(POSITIONS)
    if position is not None:
        cell = POSITIONS[position]
    while cell is None and len(objects) < _MOST_OBJECTS and (relation := reader.take(RELATIONS)):
        relations.append(relation)
        objects.append(_read_mention(reader))
    if reader.take(["on"]):
        _read_article(reader)
        background = reader.need(BACKGROUNDS)
        reader.need(["background"])
    reader.finish()
    return Description(tuple(objects), tuple(relations), cell, background)
