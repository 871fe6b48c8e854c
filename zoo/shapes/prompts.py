"""Prompts of users as captions of the shapes world: the same grammar, written with less care.

Case, punctuation and articles do not matter, and other words are understood where they can mean one thing
only: "a picture of", "the top left corner", "to the left of", "under", "on black". Everything else is an
error that says what was expected.

A part is what one layer of a picture shows: a caption of one object, or a background alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from zoo.errors import InvalidInput
from zoo.shapes.captions import POSITIONS, RELATIONS, CaptionError, Description, parse
from zoo.shapes.naming import PLACES
from zoo.shapes.scene import BACKGROUNDS, SHAPES
from zoo.shapes.wording import PLACES_AND_OBJECTS, any_of, quoted, replaced, replacements, words_of
from zoo.shapes.wording import RELATIONS as RELATIONS_SAID

_EXAMPLE = "a large red circle left of a small blue square on a white background"
_GRAMMAR = (
    "Name one to three objects, each by its colour and shape, with "
    f"{', '.join(list(RELATIONS)[:-1])} or {list(RELATIONS)[-1]} between them, such as '{_EXAMPLE}'."
)
_PART_GRAMMAR = (
    "A part is one object by its colour and shape, such as 'a large red circle', or a background, such as "
    "'a white background'."
)
_MOST_OBJECTS = 3
_MOST_LISTED = 5  #: unknown words that an error names
_SIMILAR = 0.82  #: how alike a word has to be to one that is known to count as a slip

#: Phrases of prompts without silent words as phrases of captions without articles, to be replaced in turn.
_PHRASES = (
    *replacements(
        (r"^there (?=.)", ""),
        (r"^(?:please )?(?:draw|show|paint|make|create|generate)(?: me)? (?=.)", ""),
        (r"^(?:picture|photo|image|drawing|painting|illustration) (?:of|with|showing) (?=.)", ""),
        (r"\b(?:with|against|over|in front of|in) (?=\w+ background\b)", "on "),
        (rf"\bagainst (?={any_of(BACKGROUNDS)})", "on "),
    ),
    *PLACES_AND_OBJECTS,
    *RELATIONS_SAID,
    *replacements((r"\bto (?=(?:top|bottom|left|right|centre)\b)", "at ")),
)

#: The background, which a prompt may name anywhere; no object has its colour.
_BACKGROUND = re.compile(
    rf"\b(?:on )?({any_of(BACKGROUNDS)}) background\b|\bon ({any_of(BACKGROUNDS)})(?! {any_of(SHAPES)})"
)
#: Every place by the words that tell it from the others.
_PLACES = dict(zip(PLACES, POSITIONS, strict=True))
_PLACE = re.compile(
    rf"(?P<by>\b(?:at|in|on) )?(?P<name>{any_of(sorted(_PLACES, key=len, reverse=True))})(?! of\b)"
)
#: Where a noun phrase begins in a caption without its articles.
_NOUN = re.compile(rf"(^|{any_of([*RELATIONS, 'on'])} )(?=(\w))")


def caption_of(text: str) -> str:
    """The caption that a prompt means; the empty text for an empty one, which asks for anything.

    Raises `InvalidInput` that names the words that are not known, or what was expected where.
    """
    plain = _plain(text)
    return "" if plain is None else _caption(text, plain, _GRAMMAR)


def part_of(text: str) -> str:
    """What a prompt says of one layer, as a caption of one object or as "a white background".

    The empty text stays empty: it asks for anything. Raises `InvalidInput` as `caption_of` does, and for
    several objects.
    """
    plain = _plain(text)
    if plain is None:
        return ""
    if background := _background_alone(plain):
        return background
    objects = _objects(plain)
    if objects > 1:
        raise InvalidInput(
            f"prompt '{quoted(text)}' is no part: it names {objects} objects, expected one", _PART_GRAMMAR
        )
    return _caption(text, plain, _PART_GRAMMAR)


def check_parts(parts: Sequence[str]) -> None:
    """Refuse layers, back to front, that no picture has: a background is the first, and an object is not.

    Empty texts fit everywhere. Raises `InvalidInput` as `part_of` does, and for a part in the wrong place.
    """
    for place, text in enumerate(parts):
        part = part_of(text)
        if part and (part in _BACKGROUND_PARTS) != (place == 0):
            found, wanted = ("a background", "an object") if place else ("an object", "a background")
            raise InvalidInput(
                f"part {place} is '{quoted(text)}', {found}, expected {wanted}",
                "Parts are layers, back to front: the background first. An empty text leaves one open.",
            )


def parts_of(text: str) -> tuple[str, ...]:
    """The layers that a prompt asks for, back to front: the background, then each object in the order named.

    Each is as `part_of` writes it. The background is the empty text where the prompt leaves it out, and there
    are no layers for the empty prompt, which leaves open how many there are. Raises as `caption_of` does.
    """
    caption = caption_of(text)
    if not caption:
        return ()
    said = parse(caption)
    behind = "" if said.background is None else background_part(said.background)
    # Only single objects have a cell.
    return (behind, *(str(Description((mention,), cell=said.cell)) for mention in said.objects))


def background_part(background: str) -> str:
    """The part that is a background alone: "white" -> "a white background"."""
    return f"a {background} background"


_BACKGROUND_PARTS = frozenset(map(background_part, BACKGROUNDS))


@lru_cache(maxsize=4096)
def caption_or_part(text: str) -> str:
    """As `caption_of`, but a background alone is understood as well. Remembers texts: parts come often."""
    plain = _plain(text)
    if plain is None:
        return ""
    return _background_alone(plain) or _caption(text, plain, _GRAMMAR)


def unknown_words(unknown: Sequence[str], known: Sequence[str], grammar: str = _GRAMMAR) -> InvalidInput:
    """The error for words outside a vocabulary; its hint lists the vocabulary."""
    shown = unknown[:_MOST_LISTED]
    listed = ", ".join(map(repr, shown))
    more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
    slips = [difflib.get_close_matches(word, known, n=1, cutoff=_SIMILAR) for word in shown]
    meant = ", ".join(dict.fromkeys(match for matches in slips for match in matches))
    hint = f"It knows: {', '.join(known)}. {grammar}"
    return InvalidInput(
        f"this model does not know the word{'s' if len(unknown) > 1 else ''} {listed}{more}",
        f"Did you mean: {meant}? {hint}" if meant else hint,
    )


def _plain(text: str) -> str | None:
    """The words of a caption without its articles, if it is one; None for a text without words."""
    words = words_of(text)
    return None if words is None else replaced(words, _PHRASES)


def _caption(text: str, plain: str, grammar: str) -> str:
    written = _NOUN.sub(lambda found: found[1] + ("an " if found[2] in "aeiou" else "a "), _ordered(plain))
    try:
        return str(parse(written))
    except CaptionError as error:
        raise _refused(text, plain, error, grammar) from error


def _background_alone(plain: str) -> str:
    """The part that names a background and nothing else, or the empty text."""
    found = _BACKGROUND.fullmatch(plain)
    return background_part(found[1] or found[2]) if found else ""


def _ordered(plain: str) -> str:
    """The place of an only object, then the background, behind all else, as captions have them."""
    endings = []
    if found := _BACKGROUND.search(plain):
        plain = plain[: found.start()] + plain[found.end() :]
        endings = [f"on {found[1] or found[2]} background"]
    if _objects(plain) == 1 and (found := _PLACE.search(plain)):
        plain = plain[: found.start()] + plain[found.end() :]
        endings = [_PLACES[found["name"]], *endings]
    return " ".join([*plain.split(), *endings])


def _objects(plain: str) -> int:
    return sum(word in SHAPES for word in plain.split())


def _refused(text: str, plain: str, error: CaptionError, grammar: str) -> InvalidInput:
    if error.unknown:
        return unknown_words(error.unknown, error.known, grammar)
    objects = _objects(plain)
    reason = str(error)
    if objects > _MOST_OBJECTS:
        reason = f"not a caption: it names {objects} objects, expected one to three"
    elif objects > 1 and any(found["by"] for found in _PLACE.finditer(plain)):
        reason = "not a caption: a place is for an object alone, expected a relation between several"
    return InvalidInput(f"prompt '{quoted(text)}' is {reason}", grammar)
