"""What users ask of models of the shapes world, task by task, written with less care.

As in `zoo.shapes.prompts`, case, punctuation and articles do not matter, other words are understood where
they can mean one thing only, and everything else is an error that says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from zoo.errors import InvalidInput
from zoo.shapes.captions import POSITIONS, RELATIONS, parse
from zoo.shapes.instructions import Instruction, Kind
from zoo.shapes.naming import PLACES, Name
from zoo.shapes.prompts import caption_of, unknown_words
from zoo.shapes.questions import (
    DESCRIBE,
    About,
    PictureQuestion,
    QuestionError,
    TextQuestion,
    parse_question,
    text_answer_of,
)
from zoo.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES
from zoo.shapes.vocabularies import task_vocabulary
from zoo.shapes.wording import (
    PLACES_AND_OBJECTS,
    SILENT,
    SPELLINGS,
    any_of,
    quoted,
    replaced,
    replacements,
    words_of,
)
from zoo.shapes.wording import RELATIONS as RELATIONS_SAID

_INSTRUCTIONS = (
    "Such as 'make the red circle blue', 'make the red circle large', 'turn the red circle into a square', "
    "'move the red circle to the top left', 'remove the red circle' or 'make the background black'."
)
_QUESTIONS = (
    f"Such as '{DESCRIBE}', 'what colour is the circle', 'what size is the red circle', 'where is the red "
    "circle', 'what shape is at the top left', 'what is left of the red circle', 'how many objects are "
    "there' or 'what colour is the background'."
)
_TEXTS = (
    "Such as 'a red circle left of a blue square. what colour is the square' or 'say it from the blue "
    "square: a red circle left of a blue square'."
)

_SILENT = (SILENT - {"which"}) | {
    "please",
    "now",
    "are",
    "there",
    "me",
    "it",
    "does",
    "do",
    "have",
    "has",
    "stands",
    "can",
}
_SPELLINGS = SPELLINGS | {
    **dict.fromkeys(["bigger", "larger"], "large"),
    **dict.fromkeys(["color", "recolour", "recolor"], "colour"),
    **dict.fromkeys(["image", "photo", "scene", "drawing"], "picture"),
    **dict.fromkeys(["shapes", "things"], "objects"),
    "smaller": "small",
    "which": "what",
}
#: Words that the patterns below understand beside those of the grammars.
_UNDERSTOOD = frozenset(
    [
        *("away", "background", "bring", "by", "caption", "change", "delete", "drop", "enlarge", "erase"),
        *("everything", "explain", "get", "in", "into", "object", "of", "on", "paint", "place", "put"),
        *("replace", "rid", "see", "seen", "set", "shift", "show", "shows", "shrink", "take", "thing"),
        *("transform", "with", "you"),
    ]
)

_THING = rf"(?:(?P<size>{any_of(SIZES)}) )?(?:(?P<colour>{any_of(COLOURS)}) )?(?P<shape>{any_of(SHAPES)})"
_PLACE = any_of(sorted(PLACES, key=len, reverse=True))

#: Ways to say an instruction as those that `_CHANGES` knows.
_VERBS = replacements(
    (r"^enlarge (.+)$", r"make \1 large"),
    (r"^shrink (.+)$", r"make \1 small"),
    (r"^take (.+) away$", r"remove \1"),
    (r"^(?:delete|erase|drop|take away|get rid of) ", "remove "),
    (r"^\w+ (?:colour|size|shape) of (.+) (?:to|into) (\w+)$", r"make \1 \2"),
    (r"^put (?:everything )?on (\w+) background$", r"make background \1"),
    (r"^\w+ background colour\b", "make background"),
    (r"^(?:put|place|shift|bring) ", "move "),
    (r"^(?:paint|colour|change|set|transform|replace|resize|scale) ", "make "),
    (r"^turn ", "make "),
)
#: Every kind of change in words without articles.
_CHANGES: dict[Kind, str] = {
    "background": rf"make background (?:to |into |in )?(?P<value>{any_of(BACKGROUNDS)})",
    "recolour": rf"make {_THING} (?:to |into |in )?(?P<value>{any_of(COLOURS)})",
    "resize": rf"make {_THING} (?:to |into )?(?P<value>{any_of(SIZES)})",
    "reshape": rf"make {_THING} (?:to |into |with |by )?(?P<value>{any_of(SHAPES)})",
    "move": rf"move {_THING} (?:to |at |in |into |on )?(?P<value>{_PLACE})",
    "remove": rf"remove {_THING}",
}

_IN_PICTURE = r"(?: (?:in|on) picture)?"
#: Every kind of question in words without articles.
_ASKED: dict[About, str] = {
    "all": r"(?:describe|caption|explain)(?: this)?(?: picture)?|what (?:you )?(?:see|seen|show|shows)|what",
    "background": r"what colour (?:of )?background|what background(?: colour)?",
    "number": r"how many objects(?: you see| seen)?",
    "colour": rf"what colour (?:of )?{_THING}",
    "size": rf"(?:what size (?:of )?|how large |how small ){_THING}",
    "place": rf"where {_THING}",
    "relation": rf"what (?:shape |object |thing )?(?P<phrase>{any_of(RELATIONS)}) {_THING}",
    "shape": rf"what (?:shape |object |thing )?(?:at|in|on) (?P<phrase>{_PLACE})",
}

#: A text that is to be told from another object, and one that ends with a question.
_FROM = re.compile(rf"\W*(?:say|tell) (?:it |this )?from (?:the )?{_THING}\W+(?P<caption>.+)", re.DOTALL)
_BEHIND = re.compile(r"(?P<caption>.+?)\W+(?P<question>(?:what|which|where|how)\b.*)", re.DOTALL)


def instruction_of(text: str) -> str:
    """The instruction that a text means; the empty text for one without words.

    Raises `InvalidInput` that names the words that are not known, or says what was expected.
    """
    plain = _plain(text, _VERBS)
    if plain is None:
        return ""
    for kind, pattern in _CHANGES.items():
        if found := re.fullmatch(pattern, plain):
            name = None if kind == "background" else _name(found)
            return str(Instruction(kind, name, None if kind == "remove" else found["value"]))
    raise _refused("instruction", text, plain, _INSTRUCTIONS)


def question_of(text: str) -> str:
    """The question about a picture that a text means; the empty text for one without words, and so for none.

    Raises `InvalidInput` as `instruction_of` does.
    """
    plain = _plain(text)
    if plain is None:
        return ""
    for about, pattern in _ASKED.items():
        if found := re.fullmatch(f"(?:{pattern}){_IN_PICTURE}", plain):
            return str(PictureQuestion(about, _asked_of(found), _phrase(found)))
    raise _refused("question", text, plain, _QUESTIONS)


def text_question_of(text: str) -> str:
    """The caption with a question, or with another object to begin with, that a text means.

    The empty text stays empty. Raises `InvalidInput` as `instruction_of` does, and where the caption does not
    answer the question.
    """
    lowered = text.lower()
    if _plain(text) is None:
        return ""
    if found := _FROM.fullmatch(lowered):
        asked = TextQuestion(parse(caption_of(found["caption"])), start=_name(found))
    elif found := _BEHIND.fullmatch(lowered):
        caption = parse(caption_of(found["caption"]))
        asked = TextQuestion(caption, parse_question(question_of(found["question"])))
    else:
        raise InvalidInput(
            f"text '{quoted(text)}' is no caption with a question, all that can be answered", _TEXTS
        )
    try:
        text_answer_of(asked)
    except QuestionError as error:
        raise InvalidInput(f"text '{quoted(text)}' has no answer: {error}", _TEXTS) from error
    return str(asked)


#: The reader of the prompts of each registered task; other tasks have no grammar.
_READERS: dict[str, Callable[[str], str]] = {
    "image-editing": instruction_of,
    "image-to-text": question_of,
    "text-to-text": text_question_of,
}


def check_prompt(text: str, tasks: Sequence[str]) -> str:
    """A prompt for a sampler of these registered tasks in the words of the grammar that the tasks have.

    "text-to-..." read captions, "image-editing" instructions, "image-to-text" questions and "text-to-text"
    captions with a question; for other tasks the text stays. Raises `InvalidInput` for a text that means
    nothing in that grammar.
    """
    for task in tasks:
        if task in _READERS:
            return _READERS[task](text)
        if task.startswith("text-to-"):
            return caption_of(text)
    return text


def _plain(text: str, *tables: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    words = words_of(re.sub(r"['\u2019]s\b", " is", text), _SILENT, _SPELLINGS)
    return None if words is None else replaced(words, PLACES_AND_OBJECTS, RELATIONS_SAID, *tables)


def _name(found: re.Match[str]) -> Name:
    return Name(found["shape"], found["colour"], found["size"])


def _asked_of(found: re.Match[str]) -> Name | None:
    return _name(found) if "shape" in found.re.groupindex else None


def _phrase(found: re.Match[str]) -> str | None:
    if "phrase" not in found.re.groupindex:
        return None
    phrase = str(found["phrase"])
    # A place with its preposition, as captions say it.
    return next((position for position in POSITIONS if position.endswith(f" the {phrase}")), phrase)


def _refused(what: str, text: str, plain: str, grammar: str) -> InvalidInput:
    known = {*task_vocabulary(), *_UNDERSTOOD}
    unknown = tuple(dict.fromkeys(word for word in plain.split() if word not in known))
    if unknown:
        return unknown_words(unknown, task_vocabulary(), grammar)
    return InvalidInput(f"{what} '{quoted(text)}' is not understood", grammar)
