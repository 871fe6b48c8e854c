"""Texts to features: what text encoders and the networks that read them agree on, and what is kept of it.

An encoder is often larger than the model that it serves, and is needed for seconds of a run that takes
minutes: `RememberedTexts` has it made when a text is new, and lets it go when all that are known to come have
been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

#: Texts that are read ahead; features of twice as many are kept, half a megabyte each at the longest for
#: encoders of today.
MOST_TEXTS = 512


@dataclass(frozen=True)
class EncodedTexts:
    """What a network reads of n texts that were padded to the longest of them.

    features: [n, tokens, width], exactly zero where `valid` is.
    valid: float [n, tokens], 1 for tokens and 0 for padding.
    lengths: int64 [n] on the CPU, the tokens of each text before padding.
    """

    features: Tensor
    valid: Tensor
    lengths: Tensor


@runtime_checkable
class TextEncoder(Protocol):
    """`text-encoder`: a component that turns texts into features, one text independent of the others."""

    def encode(self, texts: Sequence[str], most_tokens: int, most_characters: int = 0) -> EncodedTexts:
        """Features of texts, on the encoder's device.

        Texts are cut to `most_characters` before (0 is no limit) and to `most_tokens` after they are split
        into tokens. Raises `InvalidInput` for a text that the encoder cannot read.
        """
        ...


class RememberedTexts:
    """A `TextEncoder` that reads every text once.

    make: makes the encoder; called when there is a new text.
    keep: whether the encoder stays once it was made. If not, it is let go as soon as the texts that were
        asked for and those that were expected are read, so that its memory is free before they are used.

    Every text is read by itself, so that its features do not depend, not even in the last digit, on what else
    is asked for. They are kept on the CPU.
    """

    def __init__(self, make: Callable[[], TextEncoder], keep: bool = True) -> None:
        self._make = make
        self._keep = keep
        self._encoder: TextEncoder | None = None
        self._coming: dict[str, None] = {}
        self._read: dict[tuple[str, int, int], EncodedTexts] = {}

    @property
    def loaded(self) -> bool:
        """Whether the encoder is in memory now."""
        return self._encoder is not None

    def expect(self, texts: Iterable[str]) -> None:
        """Texts that will be asked for: they are read together with the next new one."""
        for text in texts:
            if len(self._coming) >= MOST_TEXTS:
                return
            self._coming[text] = None

    def encode(self, texts: Sequence[str], most_tokens: int, most_characters: int = 0) -> EncodedTexts:
        """See `TextEncoder`; the features are on the CPU."""
        asked = dict.fromkeys(texts)
        if any((text, most_tokens, most_characters) not in self._read for text in asked):
            self._read_new({**asked, **self._coming}, most_tokens, most_characters)
        self._coming = {text: None for text in self._coming if text not in asked}
        found = {text: self._read.pop((text, most_tokens, most_characters)) for text in asked}
        # Put behind the others: what goes first is what was asked for longest ago.
        self._read |= {(text, most_tokens, most_characters): found[text] for text in asked}
        for key in list(self._read)[: -max(len(asked), 2 * MOST_TEXTS)]:
            del self._read[key]
        return _joined([found[text] for text in texts])

    def _read_new(self, texts: Iterable[str], most_tokens: int, most_characters: int) -> None:
        encoder = self._encoder or self._make()
        self._encoder = encoder if self._keep else None
        for text in texts:
            key = (text, most_tokens, most_characters)
            if key not in self._read:
                one = encoder.encode([text], most_tokens, most_characters)
                self._read[key] = EncodedTexts(one.features.cpu(), one.valid.cpu(), one.lengths)
        self._coming = {}


def _joined(texts: Sequence[EncodedTexts]) -> EncodedTexts:
    """Texts of one row each as a batch, padded with zeros to the longest."""
    return EncodedTexts(
        pad_sequence([text.features[0] for text in texts], batch_first=True),
        pad_sequence([text.valid[0] for text in texts], batch_first=True),
        torch.cat([text.lengths for text in texts]),
    )
