"""From scores to tokens: the likeliest, at random, or as told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.runtime.noise import NoiseSource

#: Steps whose random numbers are drawn together, under one name: a generator of its own for each sample and
#: step would take longer than the choice.
STEPS_PER_DRAW = 64


class Choose(Protocol):
    """Chooses the token of each row."""

    def __call__(self, scores: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """Scores float32 [n, vocab] of the samples `rows` in step 0, 1, ... to ids int64 [n]."""
        ...


def likeliest(scores: Tensor, rows: Sequence[int], step: int) -> Tensor:
    """See `Choose`; the lowest id where several are the likeliest."""
    best, ids = scores.max(-1)
    # No token at all where no score is a number, as in `AtRandom`: see `check_choice`.
    return ids.masked_fill(~best.isfinite(), scores.shape[-1])


class AtRandom:
    """By probability: the inverse of the distribution function at one uniform number per sample and step.

    count: samples of the batch, whose numbers come from `noise` under the names "choice.0", "choice.1", ...,
    each for `STEPS_PER_DRAW` steps. So a sample does not depend on the batch that it is in.
    """

    def __init__(self, noise: NoiseSource, count: int) -> None:
        self._noise, self._count = noise, count
        self._drawn = (-1, torch.empty(0))

    def __call__(self, scores: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """See `Choose`."""
        numbers = self._numbers(step)[list(rows)]
        # In float32 the sum over a large vocabulary is too coarse to be inverted; not all devices have more.
        place = torch.device("cpu") if scores.device.type == "mps" else scores.device
        reached = scores.to(place).softmax(-1).to(torch.float64).cumsum(-1)
        targets = numbers.to(place, torch.float64)[:, None] * reached[:, -1:]
        chosen = torch.searchsorted(reached, targets, right=True).squeeze(-1)
        return chosen.to(scores.device)

    def _numbers(self, step: int) -> Tensor:
        draw, column = divmod(step, STEPS_PER_DRAW)
        if self._drawn[0] != draw:
            name = f"choice.{draw}"
            self._drawn = (draw, self._noise.uniform(name, (self._count, STEPS_PER_DRAW)))
        return self._drawn[1][:, column]


class Told:
    """Given tokens first, the same for all samples; another choice behind them."""

    def __init__(self, tokens: Sequence[int], then: Choose) -> None:
        self._tokens, self._then = tuple(tokens), then

    def __call__(self, scores: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """See `Choose`."""
        if step >= len(self._tokens):
            return self._then(scores, rows, step)
        return torch.full((len(rows),), self._tokens[step], dtype=torch.int64, device=scores.device)


def check_choice(tokens: Sequence[int], vocabulary: int) -> None:
    """Raise `ZooError` for ids that only scores that are no numbers, or all "never", can lead to."""
    if not all(0 <= token < vocabulary for token in tokens):
        raise ZooError(
            f"a token could not be chosen among {vocabulary}: the model's scores are not numbers, or all "
            "are minus infinity",
            "The weights may be damaged (zoo verify), or overflow in this number format (--dtype float32).",
        )
