"""What a user asks as the ids that the language model reads: formats, filled in and tokenised.

A format is a text with control tokens, such as "<|im_start|>", and places in braces. Control tokens, sizes
and pictures become single ids; the text between two of them, the user's with what surrounds it, is tokenised
as a whole, as the authors' code does it. What a user writes is text: nothing in it becomes a control token,
a place, a size or a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TypeGuard

from zoo.errors import InvalidInput
from zoo.runtime.capabilities import TextTokenizer
from zoo_illume.formats import PromptFormats
from zoo_illume.model_config import PICTURE, TokenTable
from zoo_illume.sizes import Size

#: A run of plain text, or the id of a single token.
Piece = str | int

#: How control tokens are written in formats.
_CONTROL = re.compile(r"(<\|\w+\|>)")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one model; each method gives ids, with `PICTURE` where a picture is read.

    Raises `InvalidInput` for a text that the tokenizer cannot write, and for a format with unknown places.
    """

    formats: PromptFormats
    tokenizer: TextTokenizer
    tokens: TokenTable

    def draw(self, prompt: str | None, size: Size) -> list[int]:
        """A picture of a size that shows what a prompt says, or anything where it says nothing."""
        name = "draw" if _says(prompt) else "draw_anything"
        return self._drawn(name, prompt, size)

    def edit(self, instruction: str | None, size: Size) -> list[int]:
        """A picture of a size, which the given one has too, changed as told, or as it is."""
        name = "edit" if _says(instruction) else "edit_nothing"
        return self._drawn(name, instruction, size)

    def ask(self, question: str | None) -> list[int]:
        """A question about a picture, or the usual one."""
        return self._framed("ask", {"prompt": [question if _says(question) else self.formats.question]})

    def write(self, text: str) -> list[int]:
        """A text to answer."""
        return self._framed("text", {"prompt": [text]})

    def _drawn(self, name: str, prompt: str | None, size: Size) -> list[int]:
        # The answer begins behind the size, so that the model knows how long its lines are.
        ids = self.tokens.size(*size) if self.tokens.sizes else ()
        return [*self._framed(name, {"prompt": [prompt or ""], "size": ids}), *ids]

    def _framed(self, name: str, values: Mapping[str, Sequence[Piece]]) -> list[int]:
        values = {**values, "picture": [PICTURE]}
        message = list(self._filled(name, values))
        return self._encoded(self._filled("frame", {"message": message}))

    def _filled(self, name: str, values: Mapping[str, Sequence[Piece]]) -> Iterator[Piece]:
        """The pieces of a format; a place that has no value here is an error."""
        try:
            parsed = list(Formatter().parse(getattr(self.formats, name)))
        except ValueError as error:
            raise InvalidInput(f"the model's format '{name}' is not one: {error}") from error
        for text, place, _, _ in parsed:
            for part in _CONTROL.split(text):
                yield self.tokenizer.control(part) if _CONTROL.fullmatch(part) else part
            if place is None:
                continue
            if place not in values:
                expected = ", ".join(f"{{{known}}}" for known in values)
                raise InvalidInput(
                    f"the model's format '{name}' has a place {{{place}}}, expected one of: {expected}"
                )
            yield from values[place]

    def _encoded(self, pieces: Iterator[Piece]) -> list[int]:
        ids: list[int] = []
        run = ""
        for piece in pieces:
            if isinstance(piece, str):
                run += piece
            else:
                ids += [*self.tokenizer.encode(run), piece] if run else [piece]
                run = ""
        return ids + (self.tokenizer.encode(run) if run else [])


def _says(text: str | None) -> TypeGuard[str]:
    return text is not None and bool(text.strip())
