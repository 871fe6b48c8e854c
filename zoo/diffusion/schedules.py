"""Noise schedules: how much signal and noise a time means, in x = alpha(t) x0 + sigma(t) eps.

Times run from `start` (noise) to 0 (clean data). Nothing here knows networks, solvers or guidance. All is
computed in float64; tables are made on the CPU whatever torch's default device is, so that a model built on
the meta device has them whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

#: Tables that a card can name.
TableName = Literal["cosine-capped", "linear-betas", "scaled-linear-betas", "cosine-log-ratio"]


class Schedule(Protocol):
    """Signal and noise by time, and how time is told to the network.

    Implementations: `TableSchedule`, `VPSchedule`, `EDMSchedule`, `FlowSchedule`.
    """

    @property
    def start(self) -> float:
        """The time of most noise, where sampling starts; the other end, clean data, is time 0."""
        ...

    @property
    def finest(self) -> float:
        """The time of least noise that networks are trained on; samplers jump from there to 0."""
        ...

    def alpha_sigma(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise scale at times of any shape, in float64 on the device of `time`; (1, 0) at 0."""
        ...

    def network_time(self, time: Tensor) -> Tensor:
        """What the network is told at such times."""
        ...

    def time_at(self, log_ratio: Tensor) -> Tensor:
        """The times (float64) at which log(alpha / sigma) has these values: the inverse of `alpha_sigma`."""
        ...

    def shifted(self, factor: float) -> Self:
        """The same time axis with the signal-to-noise ratio alpha^2 / sigma^2 divided by `factor` > 0.

        Pictures of S times the side look less noisy at the same ratio, so that a level of S times the side
        of the innermost one takes S to some power (arXiv 2301.11093, 2310.15111).
        """
        ...


def log_ratio(schedule: Schedule, time: Tensor) -> Tensor:
    """log(alpha / sigma) at some times, in float64: half the logarithm of the signal-to-noise ratio."""
    alpha, sigma = schedule.alpha_sigma(time)
    return alpha.log() - sigma.log()


@dataclass(frozen=True, eq=False)
class TableSchedule:
    """A variance-preserving table: alpha^2 = gammas[t] and sigma^2 = 1 - gammas[t] for t = 0 .. n.

    gammas: float32 [n + 1] on the CPU, decreasing, gammas[0] = 1. Between two entries log(alpha / sigma) is
    linear in t; below 1, where that would be infinite, gamma is. The network is told t - 1, the index that
    training draws. Make one with `named_table`, or `cosine_capped` and its neighbours.
    """

    gammas: Tensor

    def __post_init__(self) -> None:
        gammas = self.gammas
        if gammas.dim() != 1 or len(gammas) < 2 or gammas.dtype != torch.float32 or gammas[0] != 1:
            raise ValueError("gammas: expected float32 [n + 1] that starts with 1")
        if not bool((gammas.diff() < 0).all()) or gammas[-1] < 0:
            raise ValueError("gammas: expected numbers that fall from 1 and stay at least 0")

    @property
    def steps(self) -> int:
        """n, the number of noise levels."""
        return len(self.gammas) - 1

    @property
    def start(self) -> float:
        return float(self.steps)

    @property
    def finest(self) -> float:
        return 1.0

    @cached_property
    def _log_ratios(self) -> Tensor:
        gammas = self.gammas[1:].double()
        return 0.5 * (gammas.log() - (1.0 - gammas).log())

    def alpha_sigma(self, time: Tensor) -> tuple[Tensor, Tensor]:
        gamma = self.gamma(time)
        return gamma.sqrt(), (1.0 - gamma).sqrt()

    def gamma(self, time: Tensor) -> Tensor:
        """alpha^2 at times of 0 .. n, in float64; whole numbers read the table as it is."""
        table = self.gammas.to(time.device).double()
        if not time.is_floating_point():
            return table[time]
        position = time.double()
        below = position.floor().long().clamp(0, self.steps)
        weight = position - below
        ratios = self._log_ratios.to(time.device)
        left, right = ratios[(below - 1).clamp(min=0)], ratios[below.clamp(max=self.steps - 1)]
        between = torch.sigmoid(2.0 * torch.lerp(left, right, weight))
        first = torch.lerp(table[0], table[1], weight)
        return torch.where(weight == 0, table[below], torch.where(position < 1, first, between))

    def network_time(self, time: Tensor) -> Tensor:
        return time - 1

    def time_at(self, log_ratio: Tensor) -> Tensor:
        """Times of 1 .. n; ratios beyond the table's ends are held there."""
        ratios = self._log_ratios.to(log_ratio.device).flip(0)
        wanted = log_ratio.double().clamp(ratios[0], ratios[-1])
        right = torch.searchsorted(ratios, wanted.contiguous()).clamp(1, self.steps - 1)
        low, high = ratios[right - 1], ratios[right]
        return self.steps - (right - 1 + (wanted - low) / (high - low))

    def shifted(self, factor: float) -> TableSchedule:
        gammas = self.gammas.double()
        return TableSchedule((gammas / (gammas + _positive(factor) * (1.0 - gammas))).float())


@dataclass(frozen=True)
class VPSchedule:
    """The continuous variance-preserving process with a rate of beta_min .. beta_max (arXiv 2011.13456).

    Times 0 .. 1. `time_scale` multiplies what the network is told.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    time_scale: float = 1.0
    finest: float = 1e-3
    factor: float = 1.0

    @property
    def start(self) -> float:
        return 1.0

    def alpha_sigma(self, time: Tensor) -> tuple[Tensor, Tensor]:
        t = time.double()
        log_alpha = -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min
        gamma, rest = torch.exp(2.0 * log_alpha), -torch.expm1(2.0 * log_alpha)
        total = gamma + self.factor * rest
        return (gamma / total).sqrt(), (self.factor * rest / total).sqrt()

    def network_time(self, time: Tensor) -> Tensor:
        return time * self.time_scale

    def time_at(self, log_ratio: Tensor) -> Tensor:
        unshifted = log_ratio.double() + 0.5 * math.log(self.factor)
        fallen = 0.5 * torch.nn.functional.softplus(-2.0 * unshifted)
        half, slope = 0.5 * self.beta_min, self.beta_max - self.beta_min
        return 2.0 * fallen / (half + (half**2 + slope * fallen).sqrt())

    def shifted(self, factor: float) -> VPSchedule:
        return replace(self, factor=self.factor * _positive(factor))


@dataclass(frozen=True)
class EDMSchedule:
    """Noise that explodes (arXiv 2206.00364): alpha = 1, and time is sigma itself."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    factor: float = 1.0

    @property
    def start(self) -> float:
        return self.sigma_max

    @property
    def finest(self) -> float:
        return self.sigma_min

    def alpha_sigma(self, time: Tensor) -> tuple[Tensor, Tensor]:
        sigma = time.double() * math.sqrt(self.factor)
        return torch.ones_like(sigma), sigma

    def network_time(self, time: Tensor) -> Tensor:
        return time

    def time_at(self, log_ratio: Tensor) -> Tensor:
        return torch.exp(-log_ratio.double()) / math.sqrt(self.factor)

    def shifted(self, factor: float) -> EDMSchedule:
        return replace(self, factor=self.factor * _positive(factor))


@dataclass(frozen=True)
class FlowSchedule:
    """Flow matching along straight lines (arXiv 2209.03003, 2210.02747): alpha = 1 - t and sigma = t.

    Times 0 .. 1. `time_scale` multiplies what the network is told. A shift by `factor` moves t to
    s t / (1 + (s - 1) t) with s = sqrt(factor) (arXiv 2403.03206).
    """

    time_scale: float = 1.0
    finest: float = 1e-3
    factor: float = 1.0

    @property
    def start(self) -> float:
        return 1.0

    def alpha_sigma(self, time: Tensor) -> tuple[Tensor, Tensor]:
        t, shift = time.double(), math.sqrt(self.factor)
        total = 1.0 + (shift - 1.0) * t
        return (1.0 - t) / total, shift * t / total

    def network_time(self, time: Tensor) -> Tensor:
        return time * self.time_scale

    def time_at(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(-log_ratio.double() - 0.5 * math.log(self.factor))

    def shifted(self, factor: float) -> FlowSchedule:
        return replace(self, factor=self.factor * _positive(factor))


def cosine_capped(steps: int, offset: float = 0.008, cap: float = 0.999) -> TableSchedule:
    """The squared cosine of arXiv 2102.09672 with its betas capped; MDM's "DEEPFLOYD"."""
    angles = (torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps + offset) / (1.0 + offset)
    remaining = torch.cos(angles * (0.5 * math.pi)).square()
    return table_of_betas((1.0 - remaining[1:] / remaining[:-1]).clamp(max=cap))


def linear_betas(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> TableSchedule:
    """Betas on a line (arXiv 2006.11239); MDM's "DDPM"."""
    return table_of_betas(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64, device="cpu"))


def scaled_linear_betas(steps: int, beta_start: float = 0.00085, beta_end: float = 0.012) -> TableSchedule:
    """Betas whose square roots lie on a line: latent diffusion's (arXiv 2112.10752), with SD's numbers."""
    roots = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64, device="cpu")
    return table_of_betas(roots.square())


def cosine_log_ratio(steps: int, log_snr_min: float = -5.0, log_snr_max: float = 5.0) -> TableSchedule:
    """The cosine schedule between two log signal-to-noise ratios (arXiv 2202.00512); MDM's "COSINE"."""
    last, first = (math.atan(math.exp(-0.5 * value)) for value in (log_snr_min, log_snr_max))
    angles = first + (last - first) * torch.linspace(0.0, 1.0, steps, dtype=torch.float64, device="cpu")
    return _table(angles.cos().square())


def named_table(name: TableName, steps: int) -> TableSchedule:
    """The table of this name, with its usual numbers, for so many training times."""
    return _TABLES[name](steps)


def table_of_betas(betas: Tensor) -> TableSchedule:
    """The table of n variances that each step adds: gammas are the running products of 1 - beta."""
    return _table(torch.log1p(-betas.double()).cumsum(0).exp())


def _table(gammas: Tensor) -> TableSchedule:
    clean = torch.ones(1, dtype=torch.float64, device="cpu")
    # Networks are trained with the table rounded to float32: sampling has to use the same numbers.
    return TableSchedule(torch.cat([clean, gammas]).float())


_TABLES: Mapping[TableName, Callable[[int], TableSchedule]] = {
    "cosine-capped": cosine_capped,
    "linear-betas": linear_betas,
    "scaled-linear-betas": scaled_linear_betas,
    "cosine-log-ratio": cosine_log_ratio,
}


def _positive(factor: float) -> float:
    if not 0 < factor < math.inf:
        raise ValueError(f"the shift of a schedule is {factor}, expected a positive number")
    return factor
