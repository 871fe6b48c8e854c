"""The loss of a batch and its gradients; on a CPU, slices of the batch side by side.

The operations of a small network are too short to be shared between threads: they would wait for each other
at the end of each of some thousand operations in a step, and all for the slowest wherever something else runs
on the machine. So every thread takes a slice of the batch through the whole network and back, and they meet
once a step. The random numbers are those of the whole batch, so that the result is the same but for the order
of sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from zoo.runtime.noise import NoiseSource
from zoo.training.recipe import Recipe

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
        self._threads = ThreadPoolExecutor(self.workers, "slice", torch.set_num_threads, (1,))

    def _fitting_workers(self) -> int:
        if self.device.type != "cpu":
            return 1
        held = sum(parameter.nbytes for parameter in self.parameters)
        rows = self.recipe.budget.batch_size // LEAST_ROWS
        return max(1, min(torch.get_num_threads(), rows, MOST_BYTES // max(1, held)))

    def of(self, batch: Mapping[str, Tensor], noise: NoiseSource) -> Tensor:
        """The batch's loss; the gradients become the parameters' `grad`."""
        rows = len(next(iter(batch.values())))
        if self.workers == 1:
            loss, gradients = self._slice(batch, noise, 0, rows, rows)
        else:
            ends = [rows * (index + 1) // self.workers for index in range(self.workers)]
            tasks = [
                self._threads.submit(self._slice, batch, noise, start, end, rows)
                for start, end in zip([0, *ends[:-1]], ends, strict=True)
            ]
            loss, gradients = _added([task.result() for task in tasks])
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _slice(
        self, batch: Mapping[str, Tensor], noise: NoiseSource, start: int, end: int, rows: int
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The share of rows `start` to `end` in the loss of the batch and in its gradients."""
        budget = self.recipe.budget
        part = {name: tensor[start:end].to(self.device) for name, tensor in batch.items()}
        dtype = getattr(torch, budget.autocast) if budget.autocast else torch.float32
        with torch.autocast(self.device.type, dtype, enabled=budget.autocast is not None):
            loss = self.recipe.loss(self.model, part, _Rows(noise, start, end, rows))
        loss = loss * ((end - start) / rows)
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return loss.detach(), list(gradients)


class _Rows:
    """Some rows of what a whole batch draws."""

    def __init__(self, noise: NoiseSource, start: int, end: int, rows: int) -> None:
        self.noise, self.start, self.end, self.rows = noise, start, end, rows

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self.noise.normal(name, (self.rows, *shape[1:]))[self.start : self.end]

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self.noise.uniform(name, (self.rows, *shape[1:]))[self.start : self.end]


def _added(slices: Sequence[tuple[Tensor, list[Tensor | None]]]) -> tuple[Tensor, list[Tensor | None]]:
    """The sums of losses and of gradients, in the order of the slices."""
    loss, gradients = slices[0]
    for more, others in slices[1:]:
        loss = loss + more
        for gradient, other in zip(gradients, others, strict=True):
            if gradient is not None and other is not None:
                gradient.add_(other)
    return loss, gradients
