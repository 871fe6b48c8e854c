"""The options that every sampler of an autoregressive flow has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.nn.products import Layout


@dataclass(frozen=True)
class DecodingOptions:
    """How blocks are inverted. A sampler's own options derive from this."""

    decode: Literal["sequential", "jacobi"] = "sequential"  #: token by token (exact), or tokens in parallel
    layout: Literal["auto", Layout] = "auto"  #: of the weights, see `zoo.nn.products`
    tolerance: float = 1e-5  #: jacobi: a token is done when a pass changes it by no more, in latent units
    window: int = 0  #: jacobi: tokens of one pass; 0 is all that are left
    limit: tuple[int, ...] = ()  #: jacobi: most passes of each block in sampling order, the last for the rest

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance is {self.tolerance}, expected a positive number")
        if self.window < 0:
            raise ValueError(f"window is {self.window}, expected a number of tokens, or 0 for all")
        if any(passes < 1 for passes in self.limit):
            raise ValueError(f"limit is {self.limit}, expected numbers of passes of at least 1")
