"""Slices of a batch through a network and back, side by side: in processes, or in threads else.

The network's operations are short, and between them Python runs one thread at a time. Processes do not wait
for each other.
"""

from __future__ import annotations

import mmap
import multiprocessing
import signal
import sys
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from zoo.errors import DoesNotFit
from zoo.runtime.noise import NoiseSource, SomeRows
from zoo.training.recipe import Recipe

#: Every tensor in shared memory begins at a multiple of this, bytes.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Slice:
    """Some rows of a batch of `count`, and the noise of the whole batch."""

    rows: range
    count: int
    tensors: Mapping[str, Tensor]
    noise: NoiseSource


#: The share of a slice in the loss of its batch, and in the gradient of every parameter.
Share = tuple[Tensor, list[Tensor | None]]


def share_of(recipe: Recipe, model: nn.Module, device: torch.device, part: Slice) -> Share:
    """One slice through the network and back; its tensors may lie elsewhere."""
    budget = recipe.budget
    tensors = {name: tensor.to(device) for name, tensor in part.tensors.items()}
    dtype = getattr(torch, budget.autocast) if budget.autocast else torch.float32
    noise = SomeRows(part.noise, tuple(part.rows), part.count)
    with torch.autocast(device.type, dtype, enabled=budget.autocast is not None):
        loss = recipe.loss(model, tensors, noise)
    loss = loss * (len(part.rows) / part.count)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return loss.detach(), list(gradients)


class SideBySide(Protocol):
    """Computes the shares of slices at the same time, on a CPU."""

    def shares(self, slices: Sequence[Slice]) -> list[Share]:
        """Of each slice; at most as many as there are workers. Raises what a loss raises."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


def side_by_side(recipe: Recipe, model: nn.Module, workers: int) -> SideBySide:
    """Workers for a model on the CPU. Processes see its weights and buffers as they are at every call."""
    return (InProcesses if may_fork() else InThreads)(recipe, model, workers)


def may_fork() -> bool:
    """Whether forked processes can train here.

    On other systems they may find libraries in no state to go on with, and so they may autograd's threads
    where there are other devices.
    """
    return sys.platform == "linux" and not torch.cuda.is_available()


class InThreads:
    """Threads of this process."""

    def __init__(self, recipe: Recipe, model: nn.Module, workers: int) -> None:
        self._recipe, self._model = recipe, model
        self._pool = ThreadPoolExecutor(workers, "slice", torch.set_num_threads, (1,))

    def shares(self, slices: Sequence[Slice]) -> list[Share]:
        """See `SideBySide`."""
        device = torch.device("cpu")
        tasks = [self._pool.submit(share_of, self._recipe, self._model, device, part) for part in slices]
        return [task.result() for task in tasks]

    def close(self) -> None:
        """See `SideBySide`."""
        self._pool.shutdown()


class InProcesses:
    """Forked processes; weights go to them and gradients come back through memory that all share."""

    def __init__(self, recipe: Recipe, model: nn.Module, workers: int) -> None:
        parameters = list(model.parameters())
        self._state = [tensor.detach() for tensor in (*parameters, *model.buffers())]
        self._sent = _shared_like(self._state)
        self._gradients = [_shared_like(parameters) for _ in range(workers)]
        context = multiprocessing.get_context("fork")
        pipes = [context.Pipe() for _ in range(workers)]
        self._pipes = [ours for ours, _ in pipes]
        every = [end for pipe in pipes for end in pipe]
        self._processes = [
            context.Process(
                target=_serve,
                args=(recipe, model, self._sent, made, theirs, [end for end in every if end is not theirs]),
                daemon=True,
            )
            for made, (_, theirs) in zip(self._gradients, pipes, strict=True)
        ]
        with _no_warning_of_threads():
            for process in self._processes:
                process.start()
        for _, theirs in pipes:
            theirs.close()
        self._end = weakref.finalize(self, _end, self._pipes, self._processes)

    def shares(self, slices: Sequence[Slice]) -> list[Share]:
        """See `SideBySide`; raises `DoesNotFit` where a process was ended from outside."""
        torch._foreach_copy_(self._sent, self._state)
        used = self._pipes[: len(slices)]
        try:
            for pipe, part in zip(used, slices, strict=True):
                tensors = {name: tensor.contiguous() for name, tensor in part.tensors.items()}
                pipe.send((part.rows, part.count, save(tensors), part.noise))
            # Every answer is read before any is acted on, so that none is left for the next call.
            answers = [pipe.recv() for pipe in used]
        except (EOFError, OSError) as error:
            self.close()
            raise DoesNotFit(
                "a process of the training was ended, probably for want of memory",
                "Use fewer with --threads N; --resume goes on from the last checkpoint.",
            ) from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [
            (
                torch.tensor(loss),
                [made if has else None for made, has in zip(gradients, present, strict=True)],
            )
            for (loss, present), gradients in zip(answers, self._gradients, strict=False)
        ]

    def close(self) -> None:
        """See `SideBySide`."""
        self._end()


def _serve(
    recipe: Recipe,
    model: nn.Module,
    sent: Sequence[Tensor],
    gradients: Sequence[Tensor],
    pipe: Connection,
    others: Sequence[Connection],
) -> None:
    """The life of a worker: slices in, gradients out, until it is told to end or the trainer is no more."""
    # An interruption is the trainer's to handle; a pipe ends when no process holds its other side.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for end in others:
        end.close()
    torch.set_num_threads(1)
    state = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
    while True:
        try:
            told = pipe.recv()
        except EOFError:
            return
        if told is None:
            return
        rows, count, tensors, noise = told
        torch._foreach_copy_(state, list(sent))
        try:
            part = Slice(rows, count, load(tensors), noise)
            loss, made = share_of(recipe, model, torch.device("cpu"), part)
        except Exception as error:  # whatever a loss raises is the trainer's to see
            pipe.send(error)
            continue
        for place, gradient in zip(gradients, made, strict=True):
            if gradient is not None:
                place.copy_(gradient)
        pipe.send((float(loss), [gradient is not None for gradient in made]))


def _shared_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of these shapes, strides and dtypes in memory that forked processes share."""
    places, size = [], 0
    for tensor in tensors:
        places.append(size)
        size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    memory = mmap.mmap(-1, max(size, _ALIGNMENT))
    return [
        torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=place).as_strided(
            tensor.shape, torch.empty_like(tensor, device="meta").stride()
        )
        if tensor.numel()
        else torch.empty_like(tensor)
        for tensor, place in zip(tensors, places, strict=True)
    ]


@contextmanager
def _no_warning_of_threads() -> Iterator[None]:
    # Python warns of locks that its other threads may hold; workers take none of theirs.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _end(pipes: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    for pipe in pipes:
        # One that has ended already hears nothing.
        with suppress(OSError):
            pipe.send(None)
        pipe.close()
    for process in processes:
        process.join()
