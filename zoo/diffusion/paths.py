"""Paths: what a sampler visits, with every level's signal and noise, worked out before the loop begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from zoo.diffusion.schedules import Schedule


@dataclass(frozen=True)
class Noising:
    """One level's scales along a path, in x = alpha x0 + sigma eps: steps + 1 numbers each."""

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]

    def log_ratio(self, point: int) -> float:
        """log(alpha / sigma): minus infinity without signal, infinity without noise."""
        alpha, sigma = self.alphas[point], self.sigmas[point]
        if sigma == 0:
            return math.inf
        return -math.inf if alpha == 0 else math.log(alpha / sigma)


@dataclass(frozen=True)
class Path:
    """The points 0 .. steps from noise to clean data, for every level.

    times: steps + 1 falling times; network_times: what the network is told at each but the last, where it
    is not asked.
    """

    times: tuple[float, ...]
    network_times: tuple[float, ...]
    levels: tuple[Noising, ...]

    @property
    def steps(self) -> int:
        """How many steps a solver makes."""
        return len(self.times) - 1

    def ends_clean(self, step: int) -> bool:
        """Whether a step leads to data without noise."""
        return self.levels[0].sigmas[step + 1] == 0.0


def path(schedules: Sequence[Schedule], times: Sequence[float]) -> Path:
    """The path through `times`, for levels that share the time axis of the first schedule.

    Raises ValueError where the times do not fall, a level has no noise before the last point, or only some
    levels have some there.
    """
    if len(times) < 2 or any(later >= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"times: expected two or more falling numbers, got {list(times)}")
    points = torch.tensor(times, dtype=torch.float64, device="cpu")
    levels = []
    for schedule in schedules:
        alphas, sigmas = schedule.alpha_sigma(points)
        levels.append(Noising(tuple(alphas.tolist()), tuple(sigmas.tolist())))
    if any(sigma <= 0 for level in levels for sigma in level.sigmas[:-1]):
        raise ValueError("times: expected noise at every point but the last")
    if len({level.sigmas[-1] == 0 for level in levels}) > 1:
        raise ValueError("times: expected all levels to end with noise, or all without")
    told = schedules[0].network_time(points[:-1]).tolist()
    return Path(tuple(float(time) for time in times), tuple(told), tuple(levels))
