"""What can be asked to change in a scene: a closed grammar, and what each instruction makes of a scene.

    instruction = "make " name " " colour              recolour
                | "make " name " " size                resize
                | "turn " name " into " article shape  reshape
                | "move " name " to the " place        move
                | "remove " name                       remove
                | "make the background " background    background
    name        = "the " [ size " " ] [ colour " " ] shape
    article     = "a" | "an"
    place       = "centre" | "top" | "bottom" | "left" | "right"
                | "top left" | "top right" | "bottom left" | "bottom right"

Colours, shapes, sizes and backgrounds are those of captions. An instruction can be applied to a scene in
which its name fits exactly one object, which it really changes, and in which all is well afterwards: two
objects differ in colour or shape and stand in different cells, and at least one is left.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from zoo.shapes.captions import article_of
from zoo.shapes.naming import PLACES, Name, names_of, read_name
from zoo.shapes.phrases import PhraseReader
from zoo.shapes.scene import BACKGROUNDS, CLASSES, COLOURS, SHAPES, SIZES, Item, Scene

Kind = Literal["recolour", "resize", "reshape", "move", "remove", "background"]

#: Every kind of instruction, and how often it is drawn among those that a scene allows.
KINDS: dict[Kind, float] = {
    "recolour": 0.25,
    "reshape": 0.2,
    "resize": 0.15,
    "move": 0.2,
    "remove": 0.1,
    "background": 0.1,
}

#: How often a name that is drawn tells the size too, where the shorter one would do.
_SIZED = 0.15


class InstructionError(ValueError):
    """Text that is no instruction, or an instruction that a scene does not allow."""


@dataclass(frozen=True)
class Instruction:
    """One change; `str` writes it as text and `parse_instruction` reads it back.

    `name` is None for the background alone. `value` is the new colour, size, shape, background or name of a
    place; None for "remove".
    """

    kind: Kind
    name: Name | None
    value: str | None

    def __str__(self) -> str:
        if self.kind == "background":
            return f"make the background {self.value}"
        if self.kind == "remove":
            return f"remove {self.name}"
        if self.kind == "move":
            return f"move {self.name} to the {self.value}"
        if self.kind == "reshape":
            return f"turn {self.name} into {article_of(str(self.value))} {self.value}"
        return f"make {self.name} {self.value}"


def parse_instruction(text: str) -> Instruction:
    """What an instruction says. Case and spacing do not matter. Raises `InstructionError` for other texts."""
    reader = PhraseReader(text, "an instruction", InstructionError)
    verb = reader.need(["make the background", "make", "turn", "move", "remove"])
    if verb == "make the background":
        instruction = Instruction("background", None, reader.need(BACKGROUNDS))
    else:
        instruction = _of_an_object(verb, reader)
    reader.finish()
    return instruction


def _of_an_object(verb: str, reader: PhraseReader) -> Instruction:
    name = read_name(reader)
    if verb == "remove":
        return Instruction("remove", name, None)
    if verb == "move":
        reader.need(["to the"])
        return Instruction("move", name, reader.need(PLACES))
    if verb == "turn":
        reader.need(["into"])
        article = reader.need(["an", "a"])
        fitting = [shape for shape in SHAPES if article_of(shape) == article]
        return Instruction("reshape", name, reader.need(fitting))
    value = reader.need([*COLOURS, *SIZES])
    return Instruction("recolour" if value in COLOURS else "resize", name, value)


def apply(instruction: Instruction, scene: Scene) -> Scene:
    """The scene after the change: everything else, displacements and depth order too, stays.

    Raises `InstructionError` that says why for an instruction that the scene does not allow.
    """
    if instruction.name is None:
        if instruction.value == scene.background:
            raise InstructionError(f"the background is {scene.background} already")
        return replace(scene, background=str(instruction.value))
    index = instruction.name.found(scene.items)
    if index is None:
        fitting = sum(instruction.name.fits(item) for item in scene.items)
        raise InstructionError(
            f"{instruction.name} is meant to be one object of the scene, and fits {fitting}"
        )
    before, after = scene.items[:index], scene.items[index + 1 :]
    if instruction.kind == "remove":
        if len(scene.items) == 1:
            raise InstructionError(f"{instruction.name} is the only object, and a scene holds at least one")
        return replace(scene, items=(*before, *after))
    changed = _changed(instruction, scene.items[index])
    if changed == scene.items[index]:
        raise InstructionError(f"{instruction.name} would stay as it is")
    for other in (*before, *after):
        if other.cell == changed.cell:
            raise InstructionError(f"the {other.name} stands where {instruction.name} would")
        if other.name == changed.name:
            raise InstructionError(f"there is {article_of(other.name)} {other.name} already")
    return replace(scene, items=(*before, changed, *after))


def _changed(instruction: Instruction, item: Item) -> Item:
    value = str(instruction.value)
    if instruction.kind == "move":
        return replace(item, cell=PLACES[value])
    if instruction.kind == "recolour":
        return replace(item, colour=value)
    return replace(item, size=value) if instruction.kind == "resize" else replace(item, shape=value)


_VALUES: dict[Kind, Collection[str]] = {
    "recolour": COLOURS,
    "resize": SIZES,
    "reshape": SHAPES,
    "move": PLACES,
    "background": BACKGROUNDS,
}


def _changes(kind: Kind, scene: Scene, classes: Collection[str]) -> Iterator[tuple[int | None, str | None]]:
    """(object, value) of everything of a kind that a scene allows, results being of `classes`."""
    if kind == "background":
        yield from ((None, value) for value in BACKGROUNDS if value != scene.background)
        return
    if kind == "remove":
        yield from ((index, None) for index in range(len(scene.items)) if len(scene.items) > 1)
        return
    names = {item.name for item in scene.items}
    taken = {item.cell for item in scene.items}
    for index, item in enumerate(scene.items):
        for value in _VALUES[kind]:
            changed = _changed(Instruction(kind, None, value), item)
            moved_onto = changed.cell != item.cell and changed.cell in taken
            same = changed.name != item.name and changed.name in names
            if changed != item and not moved_onto and not same and changed.name in classes:
                yield index, value


def draw_instruction(
    scene: Scene, rng: random.Random, classes: Collection[str] = CLASSES, kind: Kind | None = None
) -> Instruction:
    """Any instruction that a scene allows, or any of a kind, whose result holds `classes` alone.

    Raises `InstructionError` where the scene allows none.
    """
    weights = dict(KINDS) if kind is None else {kind: 1.0}
    while weights:
        chosen = rng.choices(list(weights), list(weights.values()))[0]
        changes = list(_changes(chosen, scene, classes))
        if changes:
            index, value = rng.choice(changes)
            return Instruction(chosen, None if index is None else _name(scene, index, rng), value)
        del weights[chosen]
    raise InstructionError(f"the scene allows no instruction of the kind {kind}")


def _name(scene: Scene, index: int, rng: random.Random) -> Name:
    """Mostly without the size; short or with the colour, as it falls, where the shape alone would do."""
    every = list(names_of(scene.items, index, sizes=True))
    plain = [name for name in every if name.size is None]
    return rng.choice(every if not plain or rng.random() < _SIZED else plain)
