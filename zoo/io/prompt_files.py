"""Prompt files: one thing to draw in each line, as plain text or as a JSON object with settings of its own.

A file whose name ends in .jsonl holds one object in each line. In any other file a line that begins with "{"
is an object, and every other one is a prompt. Empty lines and lines that begin with "#" are skipped. Every
line is read before any is used, so that all mistakes are told at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import InvalidInput, did_you_mean
from zoo.io.request import MAX_SEED, read_size

USUAL_ROLE = "image"
"""The role of a picture for which none is named."""

SHOWN_IN_FULL = 5
"""So many mistakes are told with their reason; of the others, the numbers of their lines."""


@dataclass(frozen=True)
class Line:
    """What one line asks for. `number` counts from 1; None leaves a setting to the command line.

    `prompt` or `class_` is given, never both; neither where `part_prompts` or `images` say it all. `images`
    are paths by role, as they stand in the file. `size` is (height, width) in pixels.
    """

    number: int
    prompt: str | None = None
    class_: str | int | None = None
    negative: str | None = None
    part_prompts: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    num: int | None = None
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mistake:
    """What is wrong in a line, and perhaps what to do about it."""

    number: int
    text: str
    hint: str = ""


@dataclass(frozen=True)
class PromptFile:
    """The lines of a file that can be used, and what is wrong with the others.

    Paths in it are relative to `folder`.
    """

    name: str
    lines: tuple[Line, ...]
    mistakes: tuple[Mistake, ...] = ()
    folder: Path = Path()


def read_prompt_file(path: Path) -> PromptFile:
    """Read a prompt file; raises `InvalidInput` when it cannot be read, and returns mistakes in its lines."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidInput(f"{path}: no such file", "Check the path after --prompts.") from error
    except IsADirectoryError as error:
        raise InvalidInput(
            f"{path} is a folder, expected a text or JSONL file", "Give the path of a file."
        ) from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    return parse_prompts(data, str(path), path.suffix.lower() == ".jsonl", path.parent)


def parse_prompts(
    data: bytes, name: str, objects: bool = False, folder: str | PathLike[str] = ""
) -> PromptFile:
    """Read the lines of a file called `name`, in UTF-8; with `objects` each has to be a JSON object.

    folder: what paths in the file are relative to; by default the current one.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput(f"{name} is in UTF-16, expected UTF-8", "Save it as UTF-8.")
    lines: list[Line] = []
    mistakes: list[Mistake] = []
    # Not splitlines, which also ends a line at characters that a prompt may hold.
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = _line(number, raw, objects)
        except InvalidInput as error:
            mistakes.append(Mistake(number, error.message, error.hint))
        else:
            lines += [] if line is None else [line]
    return PromptFile(name, tuple(lines), tuple(mistakes), Path(folder))


def mistakes_error(name: str, mistakes: Sequence[Mistake]) -> InvalidInput:
    """One error for all mistakes in a file: the first few in full, then the lines of the others."""
    ordered = sorted(mistakes, key=lambda mistake: mistake.number)
    if len(ordered) == 1:
        return InvalidInput(f"{name}, line {ordered[0].number}: {ordered[0].text}", ordered[0].hint)
    told, hints = [], [""]
    for mistake in ordered[:SHOWN_IN_FULL]:
        hint = "" if mistake.hint in hints else f". {mistake.hint}"
        hints.append(mistake.hint)
        told.append(f"line {mistake.number}: {mistake.text}{hint}")
    rest = ordered[SHOWN_IN_FULL:]
    if rest:
        told.append(f"and {len(rest)} more, in lines {_ranges([mistake.number for mistake in rest])}")
    return InvalidInput(
        "\n".join([f"{name} has {len(ordered)} mistakes", *told]), "Nothing was drawn. Correct these lines."
    )


def _ranges(numbers: Sequence[int]) -> str:
    """[3, 4, 5, 9] -> "3-5, 9"."""
    runs: list[list[int]] = []
    for number in dict.fromkeys(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _line(number: int, raw: bytes, objects: bool) -> Line | None:
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput("this is not UTF-8", "Save the file as UTF-8.") from error
    if not text or text.startswith("#"):
        return None
    if text.startswith("{"):
        return _from_object(number, _object(text))
    if objects:
        raise InvalidInput(
            f"expected a JSON object, got {_short(text)}", 'Such as {"prompt": "a red circle"}.'
        )
    return Line(number, prompt=text)


def _object(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise InvalidInput(f"{constant} is not a number that JSON has")

    try:
        value: dict[str, Any] = json.loads(text, object_pairs_hook=_unique, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"this is not JSON: {error.msg.lower()} at column {error.colno}",
            "A plain prompt does not begin with {; an object stands in one line.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidInput("this JSON is nested too deeply or holds a number that is too long") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"key '{twice}' stands there twice")
    return values


def _from_object(number: int, values: dict[str, Any]) -> Line:
    unknown = [key for key in values if key not in _READERS]
    if unknown:
        hint = did_you_mean(unknown[0], _READERS) or f"Keys: {', '.join(_READERS)}."
        raise InvalidInput(f"unknown key '{unknown[0]}'", hint)
    # null is what other programs write for "not set".
    given = {key: _READERS[key](value) for key, value in values.items() if value is not None}
    if "prompt" in given and "class" in given:
        raise InvalidInput("expected prompt or class, got both")
    if not any((given.get("part_prompts"), "prompt" in given, "class" in given, "image" in given)):
        raise InvalidInput("expected prompt or class, got neither")
    for key, name in (("class", "class_"), ("image", "images")):
        if key in given:
            given[name] = given.pop(key)
    return Line(number, **given)


def _reader(key: str, expected: str, accept: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that returns what `accept` makes of a value, or complains where that is None."""

    def read(value: Any) -> Any:
        accepted = accept(value)
        if accepted is None:
            raise InvalidInput(
                f"{key} is {_short(json.dumps(value, ensure_ascii=False))}, expected {expected}"
            )
        return accepted

    return read


def _whole(least: int, most: int) -> Callable[[Any], int | None]:
    return lambda value: value if type(value) is int and least <= value <= most else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return tuple(value) if texts else None


def _images(value: Any) -> dict[str, str] | None:
    images = {USUAL_ROLE: value} if isinstance(value, str) else value
    told = isinstance(images, dict) and images and all(map(_some_text, [*images, *images.values()]))
    return images if told else None


def _some_text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _class(value: Any) -> str | int | None:
    return value if type(value) is int else _some_text(value)


def _size(value: Any) -> tuple[int, int] | None:
    return read_size(str(value)) if type(value) is int or isinstance(value, str) else None


def _weight(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # The largest float is some 1.8e308; JSON's whole numbers have no end.
    return value if number and 0 <= value <= sys.float_info.max else None


def _options(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


_COUNT = 2**31 - 1
_READERS: dict[str, Callable[[Any], Any]] = {
    "prompt": _reader("prompt", "a text", _some_text),
    "class": _reader("class", "a name or a number", _class),
    "negative": _reader("negative", "a text", _text),
    "seed": _reader("seed", "a whole number of at least 0 and less than 2^63", _whole(0, MAX_SEED - 1)),
    "num": _reader("num", "a whole number of at least 1", _whole(1, _COUNT)),
    "size": _reader("size", 'WIDTHxHEIGHT or one number, such as "64x32" or 64', _size),
    "steps": _reader("steps", "a whole number of at least 1", _whole(1, _COUNT)),
    "guidance": _reader("guidance", "a number of at least 0", _weight),
    "sampler": _reader("sampler", "a sampler's name", _some_text),
    "options": _reader("options", 'an object, such as {"anneal": true}', _options),
    "part_prompts": _reader(
        "part_prompts", 'a list of texts, such as ["a white background", "a red circle"]', _texts
    ),
    "image": _reader("image", 'a path, or an object of paths by role, such as {"image": "cat.png"}', _images),
}


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
