"""The loss of a batch and its gradients; on a CPU, slices of the batch side by side.

The operations of a small network are too short to be shared between threads: they would wait for each other
at the end of each of some thousand operations in a step, and all for the slowest wherever something else runs
on the machine. So every worker takes a slice of the batch through the whole network and back, and they meet
once a step. The random numbers are those of the whole batch, so that the result is the same but for the order
of sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zoo.runtime.noise import NoiseSource
from zoo.training.recipe import Recipe
from zoo.training.slices import Share, SideBySide, Slice, share_of, side_by_side

#: Slices hold at least this many rows: smaller ones cost more than they save.
LEAST_ROWS = 8

#: Bytes of gradients that all slices together may hold; larger models fill all threads by themselves.
MOST_BYTES = 2**30


class Gradients:
    """Computes the loss of a batch and its gradient for every parameter of a model on `device`."""

    def __init__(self, recipe: Recipe, model: nn.Module, device: torch.device) -> None:
        self.recipe = recipe
        self.model = model
        self.device = device
        self.parameters = list(model.parameters())
        self.workers = self._fitting_workers()
        self._team: SideBySide | None = None

    def _fitting_workers(self) -> int:
        if self.device.type != "cpu":
            return 1
        held = sum(parameter.nbytes for parameter in self.parameters)
        rows = self.recipe.budget.batch_size // LEAST_ROWS
        return max(1, min(torch.get_num_threads(), rows, MOST_BYTES // max(1, held)))

    def start(self) -> None:
        """Have workers ready, before threads are started: forked processes do not have them."""
        if self.workers > 1 and self._team is None:
            self._team = side_by_side(self.recipe, self.model, self.workers)

    def close(self) -> None:
        """End the workers; the next batch starts new ones."""
        if self._team is not None:
            self._team.close()
            self._team = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Beside workers this thread computes alone: others would wait for it where the workers compute."""
        threads = torch.get_num_threads()
        if self._team is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def of(self, batch: Mapping[str, Tensor], noise: NoiseSource) -> Tensor:
        """The batch's loss; the gradients become the parameters' `grad`."""
        rows = len(next(iter(batch.values())))
        self.start()
        if self._team is None:
            whole = Slice(range(rows), rows, batch, noise)
            loss, gradients = share_of(self.recipe, self.model, self.device, whole)
        else:
            loss, gradients = _added(self._team.shares(_slices(batch, noise, rows, self.workers)))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss


def _slices(batch: Mapping[str, Tensor], noise: NoiseSource, rows: int, count: int) -> list[Slice]:
    """The batch dealt out: rows of one kind that follow each other go to different workers."""
    return [
        Slice(range(start, rows, count), rows, {name: t[start::count] for name, t in batch.items()}, noise)
        for start in range(count)
    ]


def _added(shares: list[Share]) -> Share:
    """The sums of losses and of gradients, in the order of the slices, in memory of their own."""
    loss = torch.stack([share[0] for share in shares]).sum()
    gradients = []
    for parts in zip(*(share[1] for share in shares), strict=True):
        total: Tensor | None = None
        for part in parts:
            if part is not None:
                total = part.clone() if total is None else total.add_(part)
        gradients.append(total)
    return loss, gradients
