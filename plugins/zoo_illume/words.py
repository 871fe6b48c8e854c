"""A tokenizer of texts that knows a list of words and nothing else, for models of a small world."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from zoo.errors import InvalidInput, did_you_mean
from zoo.shapes.prompts import unknown_words

#: A word, or a single mark of punctuation.
_PIECES = re.compile(r"[^\W_]+|[^\w\s]|_")
#: Said behind the list of known words where one is unknown.
_FORGIVEN = "Case, and punctuation that is not among them, do not matter."


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """The vocabulary: ids count from `first` on, control tokens before words, both in their order here.

    Words are in lower case; a mark of punctuation that the texts shall hold is a word of its own.
    """

    words: tuple[str, ...]
    controls: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    first: int = 0

    def __post_init__(self) -> None:
        for name in ("words", "controls"):
            given = tuple(getattr(self, name))
            object.__setattr__(self, name, given)
            twice = next((entry for entry in given if given.count(entry) > 1), None)
            if twice is not None:
                raise ValueError(f"{name} holds {twice!r} twice")
        wrong = next((word for word in self.words if _PIECES.findall(word.lower()) != [word]), None)
        if wrong is not None:
            raise ValueError(f"words holds {wrong!r}, expected words in lower case or marks of punctuation")
        if self.first < 0:
            raise ValueError(f"first is {self.first}, expected an id of at least 0")

    @property
    def end(self) -> int:
        """The id behind the last."""
        return self.first + len(self.controls) + len(self.words)


class Words(nn.Module):
    """A `zoo.runtime.capabilities.TextTokenizer` of a closed vocabulary.

    Texts are read in lower case, and marks of punctuation apart from words; of what is no word, line ends
    among it, only the marks of the vocabulary are kept. What is decoded has one space between words.
    """

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.config = config
        self._controls = {name: config.first + index for index, name in enumerate(config.controls)}
        start = config.first + len(config.controls)
        self._ids = {word: start + index for index, word in enumerate(config.words)}
        self._words = {index: word for word, index in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        """See `TextTokenizer`; raises `InvalidInput` that names the words that are unknown."""
        pieces = _PIECES.findall(text.lower())
        unknown = [piece for piece in pieces if piece not in self._ids and piece.isalnum()]
        if unknown:
            known = [word for word in self.config.words if word.isalnum()]
            raise unknown_words(tuple(dict.fromkeys(unknown)), known, _FORGIVEN)
        return [self._ids[piece] for piece in pieces if piece in self._ids]

    def control(self, name: str) -> int:
        """See `TextTokenizer`."""
        if name not in self._controls:
            known = list(self._controls)
            hint = did_you_mean(name, known) or f"It has: {', '.join(known) or 'none'}"
            raise InvalidInput(f"the tokenizer has no control token {name}", hint)
        return self._controls[name]

    def decode(self, ids: Sequence[int]) -> str:
        """See `TextTokenizer`; marks of punctuation stand directly behind the word before them."""
        text = ""
        for word in (self._words[index] for index in ids if index in self._words):
            text += f" {word}" if text and word.isalnum() else word
        return text
