"""Measuring a model on this machine: loading, sampling speed by batch size, memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.io.request import Request
from zoo.registry import Sampler
from zoo.runtime import memory
from zoo.runtime.model import LoadedModel
from zoo.runtime.prepare import sampler_failed
from zoo.runtime.sampling import Batch


@dataclass(frozen=True)
class BatchTiming:
    """One batch size. `seconds` is the median of the runs; None where the batch does not fit in memory."""

    batch_size: int
    threads: int
    seconds: float | None
    runs: tuple[float, ...]
    tokens: int | None

    @property
    def seconds_per_sample(self) -> float | None:
        """Seconds of a batch over its samples."""
        return None if self.seconds is None else self.seconds / self.batch_size

    @property
    def samples_per_second(self) -> float | None:
        """Samples of a batch over its seconds."""
        return None if self.seconds is None else self.batch_size / self.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of a batch over its seconds, for models that sample token by token."""
        return None if self.seconds is None or self.tokens is None else self.tokens / self.seconds


def measure_batches(
    loaded: LoadedModel, request: Request, sizes: Sequence[int], repeat: int
) -> Iterator[BatchTiming]:
    """Time the sampler for each batch size: one warm-up, then `repeat` runs of which the median counts."""
    tokens = tokens_of(loaded)
    for size in sizes:
        runs = _timed(_run(loaded, request, size), repeat, loaded.sampler(request.sampler))
        median = statistics.median(runs) if runs else None
        total = None if tokens is None else tokens * size
        yield BatchTiming(size, loaded.threads_for(size), median, tuple(runs), total)


def tokens_of(loaded: LoadedModel) -> int | None:
    """Tokens of one sample where the model is an autoregressive flow, else None."""
    if "autoregressive-flow" not in loaded.architecture.offers:
        return None
    return int(loaded.model.latent_shape[0])


def _run(loaded: LoadedModel, request: Request, size: int) -> Callable[[], Any]:
    # Conditions are repeated in turn, so that every batch size draws the same mixture.
    prompts = [request.prompts[i % len(request.prompts)] for i in range(size)] if request.prompts else ()
    classes = [request.classes[i % len(request.classes)] for i in range(size)] if request.classes else ()
    wanted = replace(request, prompts=prompts, classes=classes, num=1 if prompts or classes else size)
    items, options = loaded.plan(wanted), loaded.options(wanted)
    batch = Batch(items[:], request.size, request.images)
    return lambda: loaded.draw(batch, options, batch.noise(), lambda *_: None, request.sampler)


def _timed(run: Callable[[], Any], repeat: int, sampler: Sampler) -> list[float]:
    seconds = []
    try:
        for _ in range(repeat + 1):
            started = time.perf_counter()
            # Artifacts lie in RAM, so a GPU has finished when they are there.
            run()
            seconds.append(time.perf_counter() - started)
    except ZooError:
        raise
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise sampler_failed(sampler, error) from error
        return []
    return seconds[1:]


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: allocated on the CUDA device, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
