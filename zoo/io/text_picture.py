"""Pictures of texts, for contact sheets: wrapped lines in the font that Pillow brings along."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from math import ceil

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from torch import Tensor

from zoo.io.pixels import from_raw

WIDTH = 320
"""Pixels from side to side; the height is that of the lines."""

_MARGIN = 12
_FONT_SIZE = 15
_LINE_HEIGHT = 20

#: What is shown of a long text; a sheet is no place to read on.
_MOST_LINES = 40
_MOST_CHARACTERS = 4000
_CUT = "..."


def text_pixels(text: str) -> Tensor:
    """Return a picture of the beginning of `text`: float32 [1, h, WIDTH] in [0, 1], black on white.

    Characters that the font lacks are boxes. The same text makes the same pixels with the same Pillow.
    """
    font = PIL.ImageFont.load_default(_FONT_SIZE)
    lines = _lines(text, font.getlength)
    height = 2 * _MARGIN + _LINE_HEIGHT * len(lines)
    picture = PIL.Image.new("L", (WIDTH, height), 255)
    draw = PIL.ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + number * _LINE_HEIGHT), line, fill=0, font=font)
    return from_raw(picture.tobytes(), height, WIDTH, 1).div(255.0)


def _lines(text: str, length: Callable[[str], float]) -> list[str]:
    """The lines of a text, at least one; a last line of dots where it goes on."""
    shown = text[:_MOST_CHARACTERS]
    lines = [line for paragraph in shown.splitlines() or [""] for line in _wrapped(paragraph, length)]
    if len(lines) <= _MOST_LINES and len(shown) == len(text):
        return lines
    return [*lines[: _MOST_LINES - 1], _CUT]


def _wrapped(paragraph: str, length: Callable[[str], float]) -> Iterator[str]:
    """Lines of whole words that fit; a word that is too long is cut, and so is writing without spaces."""
    room = WIDTH - 2 * _MARGIN
    line = ""
    for word in paragraph.split():
        joined = f"{line} {word}" if line else word
        if length(joined) <= room:
            line = joined
            continue
        if line:
            yield line
        rest = word
        while length(rest) > room:
            fitting = _fitting(rest, room, length)
            yield rest[:fitting]
            rest = rest[fitting:]
        line = rest
    yield line


def _fitting(word: str, room: int, length: Callable[[str], float]) -> int:
    """How many characters of a word fit, and at least one."""
    return max(1, bisect_right(range(1, len(word)), room, key=lambda count: ceil(length(word[:count]))))
