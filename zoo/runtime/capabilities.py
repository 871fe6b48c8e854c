"""What architectures can offer and samplers can need, by name.

The core compares the names before it loads anything, so that any sampler that fits may run any architecture
that offers what it needs, from whichever plugin. Names that are not in `CAPABILITIES` are allowed between
plugins that agree on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Likelihood(Protocol):
    """`likelihood`: exact densities."""

    def log_prob(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p of images [n, c, h, w] in [-1, 1] under class labels [n]: [n], in nats for a whole image."""
        ...

    def bits_per_dim(self, images: Tensor, uniform: Tensor) -> Tensor:
        """[n] for 8-bit images [n, c, h, w] (0..255) dequantised with `uniform` in [0, 1) of that shape."""
        ...


@runtime_checkable
class AutoregressiveFlow(Protocol):
    """`autoregressive-flow`: an invertible map whose inverse runs token by token, block after block.

    Samplers invert it with `zoo.runtime.decoding.engine.Engine`.
    """

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in the order of the forward map, all of one shape."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(tokens, features) of one sample's noise."""
        ...

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images to (latents [n, tokens, features], log-determinant per dimension [n])."""
        ...


@runtime_checkable
class MemoryEstimate(Protocol):
    """`memory-estimate`: tells what sampling takes beside the weights."""

    def sampling_memory(self, batch_size: int, dtype: torch.dtype) -> int:
        """Bytes of working memory for a batch."""
        ...


CAPABILITIES: dict[str, type] = {
    "likelihood": Likelihood,
    "autoregressive-flow": AutoregressiveFlow,
    "memory-estimate": MemoryEstimate,
}
