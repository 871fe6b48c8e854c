"""The words of all closed grammars of the shapes world together, for tokenizers that know a list of words."""

from __future__ import annotations

from zoo.shapes.captions import vocabulary
from zoo.shapes.questions import FIXED_WORDS as OF_QUESTIONS

#: Words of instructions beside those of captions.
OF_INSTRUCTIONS = ("into", "make", "move", "remove", "the", "to", "turn")


def task_vocabulary() -> tuple[str, ...]:
    """Every word of captions, instructions, questions and answers, sorted."""
    return tuple(sorted({*vocabulary(), *OF_INSTRUCTIONS, *OF_QUESTIONS}))
