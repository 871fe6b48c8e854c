"""Objects of a scene by the words that tell them from the others: "the red circle".

name = "the " [ size " " ] [ colour " " ] shape
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from zoo.shapes.captions import POSITIONS, Mention
from zoo.shapes.phrases import PhraseReader
from zoo.shapes.scene import COLOURS, SHAPES, SIZES, Item

#: Every place by the words that tell it from the others, and its cell: "top left" -> (0, 0).
PLACES = {phrase.partition(" the ")[2]: cell for phrase, cell in POSITIONS.items()}


@dataclass(frozen=True)
class Name:
    """What is said of one object; None where nothing is."""

    shape: str
    colour: str | None = None
    size: str | None = None

    def __str__(self) -> str:
        return "the " + " ".join(word for word in (self.size, self.colour, self.shape) if word)

    def fits(self, thing: Item | Mention) -> bool:
        """Whether all that is said is true of an object of a scene or of a caption."""
        return (
            thing.shape == self.shape
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
        )

    def found(self, things: Sequence[Item | Mention]) -> int | None:
        """The index of the only object that the name fits; None where that is none, or several."""
        fitting = [index for index, thing in enumerate(things) if self.fits(thing)]
        return fitting[0] if len(fitting) == 1 else None


def names_of(things: Sequence[Item | Mention], index: int, sizes: bool = False) -> Iterator[Name]:
    """The names that fit an object and no other, the shortest first; with `sizes` those with its size too."""
    thing = things[index]
    for sized, coloured in product((False, True) if sizes and thing.size else (False,), (False, True)):
        name = Name(thing.shape, thing.colour if coloured else None, thing.size if sized else None)
        if name.found(things) == index:
            yield name


def read_name(reader: PhraseReader) -> Name:
    """A name off the front of a text."""
    reader.need(["the"])
    size, colour = reader.take(SIZES), reader.take(COLOURS)
    return Name(reader.need(SHAPES), colour, size)
