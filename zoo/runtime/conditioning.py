"""From words to class ids: how a class-conditional model takes `--class` and `--prompt`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zoo.errors import InvalidInput, near

#: Words that a prompt may hold beside a class name without changing what is asked.
FILLERS = frozenset(["a", "an", "the", "of", "one", "photo", "picture", "image"])


def class_id(value: str | int, classes: Sequence[str], count: int) -> int:
    """The id of a class given by name or number; raises `InvalidInput` with the nearest names.

    `classes` may be empty (a model whose classes have no names here); then only numbers are taken.
    """
    text = str(value).strip()
    if re.fullmatch(r"-?\d+", text):
        if 0 <= int(text) < count:
            return int(text)
        raise InvalidInput(f"class {text} is out of range, expected 0 to {count - 1}")
    folded = [name.lower() for name in classes]
    if text.lower() in folded:
        return folded.index(text.lower())
    raise InvalidInput(f"there is no class '{text}'", _nearest(text, classes, count))


def class_of_prompt(prompt: str, classes: Sequence[str]) -> int:
    """The class that a prompt names, as in "a red circle"; raises `InvalidInput`.

    Every word has to be known: a word that the model cannot draw is an error, not ignored.
    """
    words = re.findall(r"[^\W_]+", prompt.lower())
    names = [tuple(re.findall(r"[^\W_]+", name.lower())) for name in classes]
    known = {word for name in names for word in name}
    unknown = [word for word in dict.fromkeys(words) if word not in known | FILLERS]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise InvalidInput(
            f"this model does not know the word{plural} {', '.join(map(repr, unknown))}",
            _vocabulary(known, classes),
        )
    content = tuple(word for word in words if word not in FILLERS)
    if content in names:
        return names.index(content)
    hint = _nearest(" ".join(content), classes, len(classes))
    raise InvalidInput(f"the prompt '{prompt}' does not name exactly one class of this model", hint)


def _vocabulary(known: set[str], classes: Sequence[str]) -> str:
    words = list(dict.fromkeys(word for name in classes for word in re.findall(r"[^\W_]+", name.lower())))
    if len(words) <= 60:
        return f"It knows: {', '.join(words)}. A prompt names one class, such as '{classes[0]}'."
    return f"It knows {len(classes)} classes, such as: {', '.join(classes[:5])}."


def _nearest(text: str, classes: Sequence[str], count: int) -> str:
    if not classes:
        return f"The classes of this model are given by number, 0 to {count - 1}."
    words = set(text.lower().split())
    sharing = [name for name in classes if words & set(name.lower().split())]
    matches = list(dict.fromkeys([*near(text, classes), *sharing]))
    if matches:
        return f"Nearest classes: {', '.join(matches[:6])}"
    listed = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    return f"Classes: {listed}"
