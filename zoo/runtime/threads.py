"""How many CPU threads a run uses: a small model on many threads loses to itself.

Threads have to meet after every operation. For small operations the meeting costs more than the work that is
shared, and on a busy machine, where a thread may not be running when the others wait for it, many times more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

#: Parameters times samples below which one thread is used: more gain little or nothing there.
SINGLE_THREAD_WORK = 64_000_000

#: Parameters times samples below which two threads are used. `benchmarks/threads.py` measures the price: on
#: four quiet cores four would be faster. Why it is paid: with two of the cores busy, four threads were more
#: than ten times slower than one, and two were not slower.
TWO_THREAD_WORK = 256_000_000


def suitable_threads(module: nn.Module, batch_size: int, device: torch.device) -> int:
    """Threads for a batch: one or two for little work on the CPU, else what torch is set to."""
    allowed = torch.get_num_threads()
    if device.type != "cpu":
        return allowed
    work = batch_size * sum(parameter.numel() for parameter in module.parameters())
    if work < SINGLE_THREAD_WORK:
        return 1
    return min(2, allowed) if work < TWO_THREAD_WORK else allowed


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
