"""What is done to logits before a token is chosen. Minus infinity is "never".

The functions are pure and work row by row: logits [n, vocab] to a new tensor of the same shape. The classes
are the same with their settings checked, for lists of processors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zoo.errors import InvalidInput

NEVER = float("-inf")


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of log-probabilities: lu + scale (lc - lu), lc where the scale is 1.

    Both are normalised first, so their own offsets do not matter (after arXiv 2306.17806).
    """
    normalised = conditional.log_softmax(-1)
    return torch.lerp(unconditional.log_softmax(-1), normalised, scale) if scale != 1 else normalised


def keep_top_k(logits: Tensor, count: int) -> Tensor:
    """All values that are at least the `count`-th highest of their row, so ties stay; 0 keeps everything."""
    if count <= 0 or count >= logits.shape[-1]:
        return logits
    least = logits.topk(count, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, NEVER)


def keep_top_p(logits: Tensor, mass: float) -> Tensor:
    """The likeliest values until their probabilities exceed `mass` together; 1 keeps everything.

    The value that crosses the mass stays, and the likeliest always does (arXiv 1904.09751).
    """
    if mass >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    # What stands before a value; before the likeliest that is nothing.
    beyond = probabilities.cumsum(-1) - probabilities > mass
    return logits.masked_fill(torch.zeros_like(beyond).scatter_(-1, order, beyond), NEVER)


class Processor(Protocol):
    """Logits [n, vocab] of the samples `rows` to scores of the same shape, each row by itself.

    One that also has a method `read(row, token)` is told of each token that was chosen.
    """

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor: ...


@dataclass(frozen=True)
class Warp:
    """Temperature, then top-k, then top-p: how sharply tokens are chosen."""

    temperature: float = 1.0  #: positive; below 1 is sharper
    top_k: int = 0  #: 0 is off
    top_p: float = 1.0  #: above 0, at most 1, which is off

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise InvalidInput(f"temperature is {self.temperature}, expected a positive number")
        if self.top_k < 0:
            raise InvalidInput(f"top_k is {self.top_k}, expected a number of tokens, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise InvalidInput(f"top_p is {self.top_p}, expected above 0 and at most 1")

    def __call__(self, logits: Tensor, rows: Sequence[int] = ()) -> Tensor:
        """See `Processor`."""
        if self.temperature != 1:
            logits = logits / self.temperature
        return keep_top_p(keep_top_k(logits, self.top_k), self.top_p)


class Allowed:
    """Only some tokens: a mask bool [vocab] for all samples, or [samples, vocab] with one for each."""

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.dim() not in (1, 2) or not bool(mask.any(-1).all()):
            raise InvalidInput(
                f"the mask of allowed tokens is {mask.dtype} {list(mask.shape)}, "
                "expected booleans [vocab] or [samples, vocab] that allow every sample a token"
            )
        self._forbidden = ~mask

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """See `Processor`."""
        self._forbidden = self._forbidden.to(logits.device)
        forbidden = self._forbidden if self._forbidden.dim() == 1 else self._forbidden[list(rows)]
        return logits.masked_fill(forbidden, NEVER)
