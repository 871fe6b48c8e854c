"""How the same is said with less care: spellings, silent words and places, for all forgiving readers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from zoo.shapes.scene import COLOURS, SIZES

ARTICLES = frozenset(["a", "an", "the", "one", "single"])
#: Words that change nothing of what is said.
SILENT = ARTICLES | {"is", "that", "which", "placed", "located", "plain", "solid", "coloured", "colored"}

SPELLINGS = {
    **dict.fromkeys(["center", "middle", "centered", "centred"], "centre"),
    **dict.fromkeys(["under", "underneath", "beneath"], "below"),
    **dict.fromkeys(["disc", "disk"], "circle"),
    "big": "large",
    "grey": "gray",
    "little": "small",
    "lower": "bottom",
    "rhombus": "diamond",
    "upper": "top",
}

#: A pattern, and what replaces it.
Replacement = tuple[re.Pattern[str], str]


def any_of(words: Iterable[str]) -> str:
    """A pattern of any of the words."""
    return rf"\b(?:{'|'.join(words)})\b"


def replacements(*pairs: tuple[str, str]) -> tuple[Replacement, ...]:
    """Patterns as they are written, compiled."""
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


#: Objects and places in the words of the grammars; articles and silent words are gone before.
PLACES_AND_OBJECTS = replacements(
    (rf"({any_of(COLOURS)}) ({any_of(SIZES)})", r"\2 \1"),
    (r"\b((?:top|bottom) (?:left|right)) corner\b", r"\1"),
    (r"\b(top|bottom|left|right)(?: hand)? (?:side|edge)\b", r"\1"),
    (r"\b(top|bottom|left|right|centre) of (?:picture|photo|image|canvas|frame)\b", r"\1"),
    (r"\b(left|right) (top|bottom)\b", r"\2 \1"),
    (r"\b(top|bottom|left|right) centre\b", r"\1"),
    (r"\bcentre (top|bottom|left|right)\b(?! of)", r"\1"),
)

#: Relations in the words of the grammars.
RELATIONS = replacements(
    (r"\b(?:to|on|at) (left|right) of\b", r"\1 of"),
    (r"\b(?:over|on top of)\b", "above"),
)


def words_of(text: str, silent: Iterable[str] = SILENT, spellings: dict[str, str] = SPELLINGS) -> str | None:
    """The words of a text in the spelling of the grammars, without silent ones; None for a text without any.

    Case and punctuation do not matter.
    """
    words = re.findall(r"[^\W_]+", text.lower())
    if not words:
        return None
    left_out = frozenset(silent)
    return " ".join(spellings.get(word, word) for word in words if word not in left_out)


def replaced(text: str, *tables: Sequence[Replacement]) -> str:
    """A text with every replacement made, in turn."""
    for table in tables:
        for pattern, replacement in table:
            text = pattern.sub(replacement, text)
    return text


def quoted(text: str) -> str:
    """A text as an error quotes it."""
    return textwrap.shorten(text, 80, placeholder=" ...")
