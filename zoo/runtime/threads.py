"""How many CPU threads a run uses: a small model on many threads loses to itself.

Threads have to meet after every operation. For small operations the meeting costs more than the work that is
shared, and on a busy machine, where a thread may not be running when the others wait for it, many times more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

#: Parameters times samples below which one thread is used. `benchmarks/threads.py` measures the price: on
#: four quiet cores, four threads draw 64 samples of `tarflow:shapes` 2.1 times as fast as one. Why it is
#: paid: with two of the cores busy, three rounds of batches of 4, 16 and 64 did not end in two minutes.
SINGLE_THREAD_WORK = 256_000_000


def suitable_threads(module: nn.Module, batch_size: int, device: torch.device) -> int:
    """Threads for a batch: one for little work on the CPU, else what torch is set to."""
    allowed = torch.get_num_threads()
    if device.type != "cpu":
        return allowed
    work = batch_size * sum(parameter.numel() for parameter in module.parameters())
    return 1 if work < SINGLE_THREAD_WORK else allowed


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads, and set torch back to what it was afterwards."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)
