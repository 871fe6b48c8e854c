"""Every random number of a sample, reproducible whatever the batch size, device or order of calls.

A draw is keyed by the sample's seed and the draw's name and is made on the CPU, one generator for each row,
so sample `i` of a request sees the same numbers alone or in a batch of a thousand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def generator(*key: object) -> torch.Generator:
    """A CPU generator that depends on nothing but `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class NoiseSource(Protocol):
    """What samplers and losses draw from. `shape` is the whole shape; its first entry is the batch."""

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, float32 on the CPU."""
        ...

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), float32 on the CPU."""
        ...


class Noise:
    """Row `i` of every draw is a function of (`seeds[i]`, name) alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(shape[1:], generator=g) for g in self._rows(name, shape)])

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.stack([torch.rand(shape[1:], generator=g) for g in self._rows(name, shape)])

    def _rows(self, name: str, shape: Sequence[int]) -> list[torch.Generator]:
        if shape[0] != len(self.seeds):
            raise ValueError(
                f"noise {name!r} was asked for {shape[0]} rows, but this batch has {len(self.seeds)} samples"
            )
        return [generator(seed, name) for seed in self.seeds]


@dataclass(frozen=True)
class SomeRows:
    """The random numbers of the samples `rows` among the `count` of a batch, under names behind `prefix`."""

    source: NoiseSource
    rows: tuple[int, ...]
    count: int
    prefix: str = ""

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._of(self.source.normal, name, shape)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._of(self.source.uniform, name, shape)

    def _of(self, draw: Callable[[str, Sequence[int]], Tensor], name: str, shape: Sequence[int]) -> Tensor:
        if shape[0] != len(self.rows):
            raise ValueError(
                f"noise {name!r} was asked for {shape[0]} rows, but these are {len(self.rows)} samples"
            )
        return draw(f"{self.prefix}{name}", (self.count, *shape[1:]))[list(self.rows)]


class BatchNoise:
    """Whole batches from one generator, keyed by (key, name): for training, where rows have no identity."""

    def __init__(self, *key: object) -> None:
        self.key = key

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=generator(*self.key, name))

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=generator(*self.key, name))


class RecordedNoise:
    """Replays given tensors by name: for parity with another program's random numbers."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._replay(name, shape)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._replay(name, shape)

    def _replay(self, name: str, shape: Sequence[int]) -> Tensor:
        if name not in self.tensors:
            known = ", ".join(sorted(self.tensors)) or "nothing"
            raise KeyError(f"no recorded noise {name!r}; recorded: {known}")
        tensor = self.tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"recorded noise {name!r} has shape {tuple(tensor.shape)}, "
                f"the sampler asked for {tuple(shape)}"
            )
        return tensor
