"""What this machine could do at best, measured on the spot: memory bandwidth and the rate of matmuls.

The roofline model: a stage that moves b bytes and computes f operations takes at least
max(b / bandwidth, f / rate) seconds (Williams, Waterman and Patterson, 2009).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zoo.nn.products import packed_matmul
from zoo.runtime.decoding.plan import packs
from zoo.runtime.devices import available_memory, dtype_name
from zoo.runtime.reports import Work
from zoo.runtime.threads import cpu_threads

#: Buffers whose reading is timed, in bytes. A smaller one would time the call and not the memory; a larger
#: one lies as far beyond every cache and takes long to fill.
SMALLEST_BUFFER, LARGEST_BUFFER = 2**20, 2**29

#: On a GPU the launch of a kernel takes as long as reading tens of megabytes.
SMALLEST_GPU_BUFFER = 2**28

#: Seconds that one measurement goes on for, and that one of its rounds lasts at least: clocks and calls cost
#: microseconds.
MEASURED_SECONDS, ROUND_SECONDS = 0.1, 0.002

#: Sides of the matmuls that are tried; no further one once a product takes `SLOW_PRODUCT` seconds.
SIDES, SLOW_PRODUCT = (256, 512, 1024, 2048, 4096, 8192), 0.01


@dataclass(frozen=True)
class Bandwidth:
    """Reading a buffer of `buffer` bytes over and over with so many CPU threads."""

    threads: int
    buffer: int
    bytes_per_second: float


@dataclass(frozen=True)
class MatmulRate:
    """Multiplying square matrices of a number format with so many CPU threads."""

    threads: int
    dtype: str
    flops_per_second: float  #: multiplications and additions


class Machine:
    """A device, measured when it is asked for the first time; every figure is measured once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._bandwidths: dict[tuple[int, int], Bandwidth] = {}
        self._rates: dict[tuple[int, str], MatmulRate] = {}

    @property
    def bandwidths(self) -> tuple[Bandwidth, ...]:
        """Everything that was measured so far, by threads and size."""
        return tuple(self._bandwidths[key] for key in sorted(self._bandwidths))

    @property
    def rates(self) -> tuple[MatmulRate, ...]:
        """Everything that was measured so far, by threads."""
        return tuple(sorted(self._rates.values(), key=lambda rate: rate.threads))

    def bandwidth(self, working_set: int, threads: int) -> Bandwidth:
        """The best of several reads of a buffer as large as what a stage reads over and over, in bytes.

        So a model that lies in the cache is compared with the cache.
        """
        size = self.buffer_size(working_set)
        if (threads, size) not in self._bandwidths:
            with cpu_threads(threads), torch.inference_mode():
                rate = self._read_rate(size)
            self._bandwidths[threads, size] = Bandwidth(threads, size, rate)
        return self._bandwidths[threads, size]

    def matmul_rate(self, dtype: torch.dtype, threads: int) -> MatmulRate:
        """The best of several square matmuls."""
        name = dtype_name(dtype)
        if (threads, name) not in self._rates:
            with cpu_threads(threads), torch.inference_mode():
                rate = self._matmul_rate(dtype)
            self._rates[threads, name] = MatmulRate(threads, name, rate)
        return self._rates[threads, name]

    def floor(self, works: Iterable[Work], dtype: torch.dtype, threads: int) -> float | None:
        """Seconds that the stages take at least; None where there is nothing to go by."""
        needed = [self._least(work, dtype, threads) for work in works if work.bytes or work.flops]
        return sum(needed) if needed else None

    def _least(self, work: Work, dtype: torch.dtype, threads: int) -> float:
        moving = work.bytes / self.bandwidth(work.working_set or work.bytes, threads).bytes_per_second
        computing = work.flops / self.matmul_rate(dtype, threads).flops_per_second
        return max(moving, computing)

    def buffer_size(self, working_set: int) -> int:
        """Bytes of the buffer that stands for a working set: the nearest power of two within limits."""
        nearest = 1 << round(math.log2(max(1, working_set)))
        smallest = SMALLEST_GPU_BUFFER if self.device.type == "cuda" else SMALLEST_BUFFER
        return max(smallest, min(nearest, LARGEST_BUFFER))

    def _read_rate(self, size: int) -> float:
        # What is free may be less than what the model takes.
        fits = max(SMALLEST_BUFFER, min(size, available_memory(self.device) // 4))
        buffer = torch.ones(fits // 4, dtype=torch.float32, device=self.device)
        total = torch.empty((), device=self.device)
        return fits / self._best(partial(torch.sum, buffer, dim=0, out=total))

    def _matmul_rate(self, dtype: torch.dtype) -> float:
        best = 0.0
        for side in SIDES:
            product = torch.empty(side, side, dtype=dtype, device=self.device)
            left, right = (self._matrix(side, seed).to(product) for seed in range(2))
            seconds = self._best(partial(torch.mm, left, right, out=product))
            # BLAS and oneDNN differ by as much as two times, and models run on both.
            if self.device.type == "cpu" and dtype != torch.float16 and packs():
                seconds = min(seconds, self._best(packed_matmul(left, right)))
            best = max(best, 2.0 * side**3 / seconds)
            if seconds > SLOW_PRODUCT:
                break
        return best

    def _matrix(self, side: int, seed: int) -> Tensor:
        # Not constant: a GPU multiplies equal numbers with less power, and so faster.
        return torch.randn(side, side, generator=torch.Generator().manual_seed(seed))

    def _best(self, run: Callable[[], object]) -> float:
        """Seconds of the fastest call."""
        self._seconds(run, 1)
        count = math.ceil(ROUND_SECONDS / self._seconds(run, 1))
        rounds: list[float] = []
        while sum(rounds) < MEASURED_SECONDS:
            rounds.append(self._seconds(run, count))
        return min(rounds) / count

    def _seconds(self, run: Callable[[], object], count: int) -> float:
        self._wait()
        started = time.perf_counter()
        for _ in range(count):
            run()
        self._wait()
        return max(time.perf_counter() - started, 1e-9)

    def _wait(self) -> None:
        # A GPU works on behind the host, which would time the launch of its kernels.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
