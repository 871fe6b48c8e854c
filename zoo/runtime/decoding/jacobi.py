"""Parallel decoding: a block's inverse as a fixed point (after arXiv 2505.12849 and arXiv 2505.24791).

x_i = z_i scale_i(x_<i) + shift_i(x_<i) is triangular. Iterating all tokens of a window at once converges,
because the first token of the window is exact after one pass, the second after two; in practice many settle
together. This form keeps what has settled: tokens whose change falls to the tolerance, in an unbroken run
from the front, stay in the key-value cache, and the window moves on behind them. Every pass settles at least
one token, so settling never takes more passes than there are tokens.

Each pass reads many tokens, which costs more than reading one: parallel decoding pays where launches or
weights bound the speed (a GPU with a small batch), not where arithmetic does. A block whose tokens settle too
slowly goes on in the exact loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from zoo.runtime.decoding import sequential
from zoo.runtime.decoding.network import BlockNetwork, applied
from zoo.runtime.decoding.sequential import OnToken

#: Passes after which a block's progress is looked at, again and again.
PATIENCE = 8
#: Settled tokens per pass below which parallel passes do not pay: they read more tokens than the exact loop.
WORTHWHILE = 1.5
#: Rounds of checking a finished block and repairing what the check moved by more than the tolerance.
CHECKS = 3


@dataclass(frozen=True)
class Settings:
    """How parallel decoding runs."""

    tolerance: float  #: in latent units
    window: int = 0  #: tokens of a pass; 0 is all that are left
    limit: int | None = None  #: most parallel passes


@dataclass
class Outcome:
    """`passes` ran one after another and read `reads` tokens; see `zoo.runtime.reports.BlockDecoding`."""

    passes: int = 0
    reads: int = 0
    sequential_from: int | None = None
    residual: float = 0.0


def decode(network: BlockNetwork, x: Tensor, settings: Settings, on_token: OnToken) -> Outcome:
    """Latents to tokens in place, x [tokens, n, f].

    The last pass reads the whole block again: the largest change it makes is the `residual`. What it moves by
    more than the tolerance is decoded again from there on.
    """
    latents, outcome, last = x.clone(), Outcome(), len(x) - 1
    settled = 0
    for _ in range(CHECKS if last else 0):
        settled = _settle(network, x, latents, settled, settings, outcome, on_token)
        if settled < last:
            _finish(network, x, latents, settled, outcome, on_token)
        moved = _pass(network, x, latents, 0, last, outcome)
        outcome.residual = float(moved.max())
        wrong = (moved > settings.tolerance).nonzero()
        # The exact loop leaves nothing to repair, and repairing must not take longer than that loop.
        if not len(wrong) or outcome.sequential_from is not None or WORTHWHILE * outcome.passes > last:
            break
        # Token i + 1 is what moved[i] belongs to; all up to it have just been read again.
        settled = int(wrong[0]) + 1
    return outcome


def _settle(
    network: BlockNetwork,
    x: Tensor,
    latents: Tensor,
    settled: int,
    settings: Settings,
    outcome: Outcome,
    on_token: OnToken,
) -> int:
    """Parallel passes until all tokens have settled or it does not pay; the last settled token."""
    last, progress = len(x) - 1, [settled]
    before = math.inf
    while settled < last:
        if settings.limit is not None and outcome.passes >= settings.limit:
            break
        count = min(settings.window or last, last - settled)
        moved = _pass(network, x, latents, settled, count, outcome)
        # The first token of the window was computed from settled tokens only: it is exact.
        unsettled = (moved[1:] > settings.tolerance).logical_or(moved[1:].isnan()).nonzero()
        settled += 1 + int(unsettled[0]) if len(unsettled) else count
        on_token(settled)
        progress.append(settled)
        if len(progress) > PATIENCE and (len(progress) - 1) % PATIENCE == 0:
            change = float(moved.max())
            if not _pays(progress, before, change, settings.tolerance, last):
                break
            before = change
    return settled


def _pays(progress: list[int], before: float, change: float, tolerance: float, last: int) -> bool:
    """Whether parallel passes settle enough tokens, or will: judged by how the change shrinks."""
    settled = progress[-1]
    if settled - progress[-1 - PATIENCE] >= WORTHWHILE * PATIENCE:
        return True
    if not 0 < change < before < math.inf:
        return before == math.inf
    passes_left = PATIENCE * math.log(max(change / tolerance, 1.0)) / math.log(before / change)
    return passes_left * WORTHWHILE <= last - settled


def _pass(
    network: BlockNetwork, x: Tensor, latents: Tensor, start: int, count: int, outcome: Outcome
) -> Tensor:
    """Read `count` tokens from `start` on and renew those after each; the largest change of each, [count]."""
    following = slice(start + 1, start + count + 1)
    renewed = applied(network.span(x[start : start + count], start), latents[following])
    moved = (renewed - x[following]).abs().amax(dim=(1, 2))
    x[following] = renewed
    outcome.passes += 1
    outcome.reads += count
    return moved


def _finish(
    network: BlockNetwork, x: Tensor, latents: Tensor, settled: int, outcome: Outcome, on_token: OnToken
) -> None:
    """The exact loop from the last settled token on."""
    x[settled + 1 :] = latents[settled + 1 :]
    sequential.decode(network, x, settled, on_token)
    left = len(x) - 1 - settled
    outcome.passes += left
    outcome.reads += left
    outcome.sequential_from = settled if outcome.sequential_from is None else outcome.sequential_from
