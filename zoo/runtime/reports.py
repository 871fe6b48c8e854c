"""What a sampler finds out on the way, for those who want to know: `zoo sample -v`, `zoo bench`.

A sampler says `report(finding)`; outside of `collecting` that does nothing, so samplers stay pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockDecoding:
    """How one block of an autoregressive flow was inverted. Blocks count from 0 in the order of sampling."""

    block: int
    decode: str  #: "sequential" or "jacobi"
    tokens: int  #: tokens that were predicted: the passes that the sequential loop takes
    passes: int  #: network passes that ran one after another
    sequential_from: int | None = None  #: token from which Jacobi gave way to the sequential loop
    residual: float | None = None  #: largest change that a further pass made; None where decoding is exact


@dataclass(frozen=True)
class Decoding:
    """How the inversion of one batch ran."""

    decode: str  #: what was asked for
    rows: int  #: rows of every product: the batch, twice where both branches of guidance run
    layout: str  #: how the weights lay, see `zoo.nn.products`; several are joined by "+"
    dtype: str  #: number format of the weights
    graphs: bool  #: whether CUDA graphs were replayed
    blocks: tuple[BlockDecoding, ...]

    @property
    def passes(self) -> int:
        """Sequential depth: network passes that ran one after another."""
        return sum(block.passes for block in self.blocks)

    @property
    def tokens(self) -> int:
        """Depth of the sequential loop."""
        return sum(block.tokens for block in self.blocks)

    @property
    def gave_way(self) -> int:
        """Blocks that parallel decoding left to the sequential loop, at some token."""
        return sum(block.sequential_from is not None for block in self.blocks)

    @property
    def residual(self) -> float | None:
        """The largest residual of any block; None where decoding is exact."""
        return max((b.residual for b in self.blocks if b.residual is not None), default=None)


@dataclass(frozen=True)
class Work:
    """The least that a stage has to do: what it moves and computes, and how large what it reads again is."""

    stage: str
    bytes: int  #: bytes that must be read at least
    flops: int  #: multiplications and additions
    working_set: int  #: bytes of the memory that is read over and over


_findings: ContextVar[list[object] | None] = ContextVar("zoo_findings", default=None)


def report(finding: object) -> None:
    """Hand a finding to whoever collects; nothing happens where nobody does."""
    findings = _findings.get()
    if findings is not None:
        findings.append(finding)


@contextmanager
def collecting() -> Iterator[list[object]]:
    """Collect what samplers report inside the block, in order; an inner block keeps its findings."""
    findings: list[object] = []
    token = _findings.set(findings)
    try:
        yield findings
    finally:
        _findings.reset(token)
