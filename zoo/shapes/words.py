"""A text encoder without learned parts for the shapes world: every word of a closed list is a number.

What the words mean together is left to the network that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.runtime.texts import EncodedTexts
from zoo.shapes.prompts import caption_of, caption_or_part, unknown_words


@dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """Which words there are, in the order that the network was trained with, and what a token tells of them.

    A token carries the words around it as well, so that "circle" is at once a large red one.
    """

    words: tuple[str, ...]
    tokens: int = 24  #: how many fit into a text, with the one that stands for the beginning
    before: int = 5  #: words before a token that it carries: as many as a relation and an object have
    after: int = 2  #: words behind it, as many as a relation has
    parts: bool = False  #: whether it also reads what one layer shows: a background alone

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        if len(set(self.words)) != len(self.words):
            raise ValueError("words holds one of them twice")
        if self.tokens < 1:
            raise ValueError(f"tokens ({self.tokens}) must be at least 1, which the beginning takes")
        for name in ("before", "after"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must not be negative")

    @property
    def offsets(self) -> tuple[int, ...]:
        """The places of the words that a token carries beside its own, relative to it."""
        return (*range(-1, -self.before - 1, -1), *range(1, self.after + 1))

    @property
    def width(self) -> int:
        """Numbers that stand for one token."""
        return (1 + len(self.offsets)) * (1 + len(self.words)) + self.tokens


class WordEncoder(nn.Module):
    """Captions of the shapes world to features [n, tokens, width]: which word, at which place, among which.

    All are one-hot, the beginning being word 0, so that a linear layer behind them is a convolution over the
    words and a table of places. In the middle of a text they have a mean square of 1, which suits the usual
    initialisation of such layers. The empty text is its beginning alone.
    """

    def __init__(self, config: WordsConfig) -> None:
        super().__init__()
        self.config = config
        self.number = {word: index for index, word in enumerate(config.words, start=1)}
        # A buffer, so that the module knows which device and number format it is in.
        self.register_buffer("places", torch.eye(config.tokens), persistent=False)

    places: Tensor

    def encode(self, texts: Sequence[str], most_tokens: int = 0, most_characters: int = 0) -> EncodedTexts:
        """See `zoo.runtime.texts.TextEncoder`. Raises `InvalidInput` for a text that is no caption.

        With `parts` a background alone is no caption and read all the same: "a white background".
        """
        most = min(most_tokens or self.config.tokens, self.config.tokens)
        rows = [self._numbers(text[: most_characters or None])[:most] for text in texts]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device="cpu")
        longest = int(lengths.max()) if rows else 0
        like = self.places
        valid = (torch.arange(longest, device="cpu") < lengths[:, None]).to(like)
        padded = [row + [0] * (longest - len(row)) for row in rows]
        numbers = torch.tensor(padded, dtype=torch.int64, device=like.device).view(len(rows), longest)
        words = F.one_hot(numbers, 1 + len(self.config.words)).to(like) * valid[:, :, None]
        places = like[:longest].expand(len(rows), -1, -1)
        features = torch.cat([words, places, *self._around(words)], dim=2) * valid[:, :, None]
        said = 2 + len(self.config.offsets)
        return EncodedTexts(features * (self.config.width / said) ** 0.5, valid, lengths)

    def _around(self, words: Tensor) -> list[Tensor]:
        """The words at every offset from each token, zero where the text has none."""
        before, longest = self.config.before, words.shape[1]
        padded = F.pad(words, (0, 0, before, self.config.after))
        return [padded[:, before + offset : before + offset + longest] for offset in self.config.offsets]

    def _numbers(self, text: str) -> list[int]:
        read = caption_or_part if self.config.parts else caption_of
        words = read(text).split()
        unknown = tuple(dict.fromkeys(word for word in words if word not in self.number))
        if unknown:
            raise unknown_words(unknown, self.config.words)
        return [0, *(self.number[word] for word in words)]
