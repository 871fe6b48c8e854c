"""A pickle interpreter that executes nothing: it cannot import, call, hash or recurse.

A pickle is a program for a small stack machine, and Python's own interpreter imports and calls whatever the
program names. Here a name stays a `Name`, and applying one is the reader's business: it gets the name and
the arguments and answers with a value, or with an `Inert` that stands for something unknown. Setting state,
items or elements of an `Inert` does nothing. Mappings are `Table`s, lists of pairs, because hashing keys
that a stranger chose can take forever; sets are lists. Opcodes and their meaning: Python's `pickletools`.

Every opcode puts at most one object on the stack and one into the memo, so that one budget of steps bounds
time and memory together. A length in the file is compared with the bytes that follow before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MOST_STEPS = 4_000_000
NEWEST_PROTOCOL = 5
_LONGEST_INTEGER = 255  #: bytes; the longest that a checkpoint has are seeds of random generators
_MOST_DIGITS = 620  #: what such an integer has in decimal


class Malformed(ValueError):
    """The program is damaged, or means nothing."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the program names: not imported, only remembered."""

    module: str
    name: str


class Inert:
    """Stands for an object of an unknown class: `maker` is what would have made it.

    `of_tensors` tells that it would have been made from tensors or storages, as a quantised tensor is.
    """

    __slots__ = ("maker", "of_tensors")

    def __init__(self, maker: Name | None = None, of_tensors: bool = False) -> None:
        self.maker, self.of_tensors = maker, of_tensors


class Table(list[tuple[Any, Any]]):
    """A mapping as its pairs of key and value in the order written; of equal keys the last counts."""

    __slots__ = ()


#: What a name makes of positional arguments, of which an `Inert` may stand for all.
Apply = Callable[[Name | Inert, tuple[Any, ...] | Inert], Any]
#: What stands for an object outside the pickle.
Resolve = Callable[[Any], Any]


def interpret(
    program: bytes, apply: Apply, resolve: Resolve, start: int = 0, most_steps: int = MOST_STEPS
) -> tuple[Any, int]:
    """The object that the pickle at byte `start` describes, and where the pickle ends. Protocols 0 to 5.

    The object consists of None, bool, int, float, str, bytes, list, tuple, `Table`, `Name`, `Inert` and what
    `apply` and `resolve` return. It may be nested without limit and may contain itself. Raises `Malformed`,
    also when the program takes more than `most_steps` steps.
    """
    machine = _Machine(program, apply, resolve, start, most_steps)
    return machine.run(), machine.at


class _Machine:
    def __init__(self, program: bytes, apply: Apply, resolve: Resolve, start: int, most_steps: int) -> None:
        self.program, self.at = program, start
        self.apply, self.resolve = apply, resolve
        self.steps = most_steps
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        program = self.program
        while True:
            self.spend(1)
            if self.at >= len(program):
                raise Malformed("it ends before its last instruction")
            code = program[self.at]
            self.at += 1
            if code == _STOP:
                return self.pop()
            action = _ACTIONS.get(code)
            if action is None:
                raise Malformed(f"it has an unknown instruction 0x{code:02x} at byte {self.at - 1}")
            action(self)

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Malformed("it takes more steps than any checkpoint needs")

    # Reading the program

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.program):
            raise Malformed(f"it is cut off at byte {self.at}")
        taken = self.program[self.at : end]
        self.at = end
        return taken

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> bytes:
        end = self.program.find(b"\n", self.at)
        if end < 0:
            raise Malformed(f"it is cut off at byte {self.at}")
        taken = self.program[self.at : end]
        self.at = end + 1
        return taken

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("it takes from an empty stack")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def pop_many(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise Malformed("it takes from an empty stack")
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return values

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("it goes back to a mark that it did not set")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def pop_one(self) -> None:
        """Drop the top, or the mark that lies on it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    # Numbers and texts

    def push_decimal(self, text: bytes) -> None:
        if text in (b"00", b"01"):
            self.push(text == b"01")
            return
        if len(text) > _MOST_DIGITS:
            # Reading decimal digits takes time that grows with their square.
            self.push(Inert())
            return
        try:
            self.push(int(text.removesuffix(b"L")))
        except ValueError:
            raise Malformed("a number is not decimal") from None

    def push_float_text(self) -> None:
        try:
            self.push(float(self.line()))
        except ValueError:
            raise Malformed("a number is not decimal") from None

    def push_long(self, size: int) -> None:
        length = self.number(size, signed=size == 4)
        if length < 0:
            raise Malformed("a number has a negative length")
        digits = self.take(length)
        too_long = length > _LONGEST_INTEGER
        self.push(Inert() if too_long else int.from_bytes(digits, "little", signed=True))

    def push_text(self, size: int) -> None:
        self.push(_decoded(self.take(self.number(size))))

    def push_old_text(self, size: int) -> None:
        """A text of Python 2, which is bytes where it is not UTF-8."""
        raw = self.take(self.number(size))
        try:
            self.push(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self.push(raw)

    def push_quoted(self) -> None:
        raw = self.line().strip()
        plain = len(raw) >= 2 and raw[:1] == raw[-1:] and raw[:1] in (b"'", b'"') and b"\\" not in raw
        self.push(_decoded(raw[1:-1]) if plain else Inert())

    def push_escaped(self) -> None:
        raw = self.line()
        self.push(Inert() if b"\\" in raw else raw.decode("latin-1"))

    # Containers

    def append(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is list:
            target.extend(values)
        elif not isinstance(target, Inert | Name):
            raise Malformed("it appends to something that is no list")

    def set_items(self, values: Sequence[Any]) -> None:
        if len(values) % 2:
            raise Malformed("a key has no value")
        target = self.top()
        if isinstance(target, Table):
            target.extend(zip(values[::2], values[1::2], strict=True))
        elif not isinstance(target, Inert | Name):
            raise Malformed("it sets items of something that is no mapping")

    def push_table(self) -> None:
        values = self.pop_to_mark()
        self.push(Table())
        self.set_items(values)

    # The memo

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed("it recalls an object that it did not store")
        self.push(self.memo[index])

    def index_line(self) -> int:
        text = self.line()
        if not text.isdigit() or len(text) > 20:
            raise Malformed("the index of a stored object is not a number")
        return int(text)

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    # Names, and what is made of them

    def line_name(self) -> Name:
        return Name(_decoded(self.line()), _decoded(self.line()))

    def push_stack_name(self) -> None:
        module, name = self.pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a name is not text")
        self.push(Name(module, name))

    def make(self, maker: Any, arguments: Any) -> None:
        if not isinstance(maker, Name | Inert):
            raise Malformed("it calls something that has no name")
        if not isinstance(arguments, tuple | Inert):
            raise Malformed("it calls with arguments that are no tuple")
        self.push(self.apply(maker, arguments))

    def reduce(self) -> None:
        self.make(*self.pop_many(2))

    def make_with_keywords(self) -> None:
        maker, arguments, keywords = self.pop_many(3)
        takes_keywords = not isinstance(keywords, Table) or bool(keywords)
        # No known name takes keywords, so that one with them is another function.
        self.make(Inert(maker) if takes_keywords and isinstance(maker, Name) else maker, arguments)

    def make_from_mark(self) -> None:
        values = self.pop_to_mark()
        if not values:
            raise Malformed("it makes an object of nothing")
        self.make(values[0], tuple(values[1:]))

    def build(self) -> None:
        """State of an object: of no interest for what is known, and nothing to set it on for the rest."""
        self.pop()
        self.top()

    def check_protocol(self) -> None:
        protocol = self.number(1)
        if protocol > NEWEST_PROTOCOL:
            raise Malformed(f"it is of protocol {protocol}, and {NEWEST_PROTOCOL} is the newest known")

    def push_unknown(self, count: int) -> None:
        """An extension code stands for a class in a registry of the writer's."""
        self.take(count)
        self.push(Inert())


def _decoded(raw: bytes) -> str:
    try:
        # Lone surrogates may stand in a text of no interest, and shall not spoil the rest.
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


def _make_tuple(count: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(machine.pop_many(count))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(value)


def _ignored(count: int) -> Callable[[_Machine], None]:
    def skip(machine: _Machine) -> None:
        machine.take(count)

    return skip


_STOP = ord(".")
_ACTIONS: dict[int, Callable[[_Machine], object]] = {
    0x80: _Machine.check_protocol,
    0x95: _ignored(8),  # FRAME: how much to read ahead
    # Constants, numbers and texts
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("I"): lambda m: m.push_decimal(m.line()),
    ord("L"): lambda m: m.push_decimal(m.line()),
    ord("J"): lambda m: m.push(m.number(4, signed=True)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    0x8A: lambda m: m.push_long(1),
    0x8B: lambda m: m.push_long(4),
    ord("F"): _Machine.push_float_text,
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("X"): lambda m: m.push_text(4),
    0x8C: lambda m: m.push_text(1),
    0x8D: lambda m: m.push_text(8),
    ord("T"): lambda m: m.push_old_text(4),
    ord("U"): lambda m: m.push_old_text(1),
    ord("S"): _Machine.push_quoted,
    ord("V"): _Machine.push_escaped,
    ord("B"): lambda m: m.push(m.take(m.number(4))),
    ord("C"): lambda m: m.push(m.take(m.number(1))),
    0x8E: lambda m: m.push(m.take(m.number(8))),
    0x96: lambda m: m.push(m.take(m.number(8))),  # BYTEARRAY8
    0x98: _ignored(0),  # READONLY_BUFFER
    # Containers
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append(m.pop_many(1)),
    ord("e"): lambda m: m.append(m.pop_to_mark()),
    ord("l"): lambda m: m.push(m.pop_to_mark()),
    0x8F: lambda m: m.push([]),  # EMPTY_SET
    0x90: lambda m: m.append(m.pop_to_mark()),  # ADDITEMS
    0x91: lambda m: m.push(m.pop_to_mark()),  # FROZENSET
    ord(")"): _constant(()),
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
    0x85: _make_tuple(1),
    0x86: _make_tuple(2),
    0x87: _make_tuple(3),
    ord("}"): lambda m: m.push(Table()),
    ord("s"): lambda m: m.set_items(m.pop_many(2)),
    ord("u"): lambda m: m.set_items(m.pop_to_mark()),
    ord("d"): _Machine.push_table,
    # The stack and the memo
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): _Machine.pop_one,
    ord("1"): _Machine.pop_to_mark,
    ord("2"): lambda m: m.push(m.top()),
    ord("p"): lambda m: m.remember(m.index_line()),
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("g"): lambda m: m.recall(m.index_line()),
    ord("h"): lambda m: m.recall(m.number(1)),
    ord("j"): lambda m: m.recall(m.number(4)),
    # Names and objects
    ord("c"): lambda m: m.push(m.line_name()),
    0x93: _Machine.push_stack_name,
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,  # NEWOBJ
    0x92: _Machine.make_with_keywords,
    ord("o"): _Machine.make_from_mark,
    ord("i"): lambda m: m.make(m.line_name(), tuple(m.pop_to_mark())),
    ord("b"): _Machine.build,
    0x82: lambda m: m.push_unknown(1),
    0x83: lambda m: m.push_unknown(2),
    0x84: lambda m: m.push_unknown(4),
    # Objects outside the pickle
    ord("P"): lambda m: m.push(m.resolve(_decoded(m.line()))),
    ord("Q"): lambda m: m.push(m.resolve(m.pop())),
}
