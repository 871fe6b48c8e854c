"""What stands between a model's logits and the choice of a token: guidance and processors, per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from zoo.errors import InvalidInput
from zoo.runtime.tokens.processors import Processor, guided


@dataclass(frozen=True)
class StepLogits:
    """What the model says in one step, float32.

    rows: the samples that still run, by number in ascending order.
    conditional: [n, vocab], one row for each of them.
    guided: which of these rows have an unconditional branch, as indices into `rows`, in ascending order.
    unconditional: [m, vocab], one row for each of those; None where there are none.
    """

    rows: tuple[int, ...]
    conditional: Tensor
    guided: tuple[int, ...] = ()
    unconditional: Tensor | None = None


class Rules(Protocol):
    """The rules of one generation. They know samples by number and may keep a state for each.

    In each step the engine asks `guided` for every sample that still runs, asks `unconditional` for those
    whose branch starts, calls `process` once, and tells every chosen token with `read`.
    """

    @property
    def longest_unconditional(self) -> int:
        """Tokens of the longest prompt that `unconditional` will return; 0 where nothing is ever guided."""
        ...

    def guided(self, row: int) -> bool:
        """Whether the next choice of a sample needs the unconditional logits.

        The branch starts, with a prompt of its own, when this turns true. It then reads every token that is
        chosen, and is forgotten when this turns false.
        """
        ...

    def unconditional(self, row: int) -> Tensor:
        """What the branch that starts now has read, up to the newest token: embeddings [tokens, width]."""
        ...

    def process(self, logits: StepLogits) -> Tensor:
        """Scores [n, vocab] that the next tokens are chosen by; minus infinity is never chosen."""
        ...

    def read(self, row: int, token: int) -> None:
        """A sample's newest token."""
        ...


@runtime_checkable
class ReadsTokens(Protocol):
    """A processor that is told of each token."""

    def read(self, row: int, token: int) -> None:
        """As in `Rules`."""
        ...


class PlainRules:
    """A list of processors, behind guidance from the first token to the last where `prompts` are given.

    scale: of guidance; at 1 the unconditional branch is not run.
    prompts: the unconditional prompt of each sample as embeddings [tokens, width].
    """

    def __init__(
        self, processors: Sequence[Processor] = (), scale: float = 1.0, prompts: Sequence[Tensor] = ()
    ) -> None:
        if scale != 1 and not prompts:
            raise InvalidInput(f"guidance is {scale}, which needs unconditional prompts; there are none")
        self._processors, self._scale = tuple(processors), scale
        self._prompts = tuple(prompts) if scale != 1 else ()

    @property
    def longest_unconditional(self) -> int:
        """See `Rules`."""
        return max(map(len, self._prompts), default=0)

    def guided(self, row: int) -> bool:
        """See `Rules`."""
        return bool(self._prompts)

    def unconditional(self, row: int) -> Tensor:
        """See `Rules`."""
        return self._prompts[row]

    def process(self, logits: StepLogits) -> Tensor:
        """See `Rules`."""
        scores = logits.conditional
        if logits.unconditional is not None:
            scores = guided(scores, logits.unconditional, self._scale)
        for processor in self._processors:
            scores = processor(scores, logits.rows)
        return scores

    def read(self, row: int, token: int) -> None:
        """See `Rules`."""
        for processor in self._processors:
            if isinstance(processor, ReadsTokens):
                processor.read(row, token)
