"""What the engine asks of a method: the network of one block, ready for a batch.

A block maps tokens x to latents z by z_i = (x_i - shift_i) / scale_i, where scale and shift of a token come
from the tokens before it, and the first token passes unchanged. (A block with a learnt start token is of this
form too, with the start token before the sequence.)
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from zoo.nn.decoding import Position

#: (scale, shift) of the next token; a scale of None is one.
Affine = tuple[Tensor | None, Tensor]


class BlockNetwork(Protocol):
    """Predicts the affine map of each token from the tokens before it; guidance is applied inside.

    n is the batch, f the features of a token. Tokens are read in order, the weights are those that were
    loaded last.
    """

    def step(self, token: Tensor, at: Position) -> Affine:
        """Read token i [n, f]: the map of token i + 1, each part [n, f]."""
        ...

    def span(self, tokens: Tensor, start: int) -> Affine:
        """Read tokens [w, n, f] from position `start` on: the maps of the tokens after each, [w, n, f]."""
        ...


def applied(affine: Affine, latents: Tensor) -> Tensor:
    """latents * scale + shift."""
    scale, shift = affine
    return latents + shift if scale is None else shift.addcmul(latents, scale)
