"""Solvers: from noise to clean data along a path, as pure functions of one signature.

Each takes what predicts clean data (`Denoise`), the state x at the first point of a `Path`, and a function
that gives standard normal noise for a step, where it adds some. None knows what the network predicts, how it
is guided, or which schedule made the path: a level has signal and noise scales alpha and sigma, whatever they
sum to. Coefficients are worked out in float64 before the loop. A step to a point without noise gives exactly
the predicted clean data.

| solver | order | source |
|---|---|---|
| `ddpm` | ancestral | arXiv 2006.11239, algorithm 2; for general scales arXiv 2107.00630 |
| `ddim` | 1, or eta > 0 | arXiv 2010.02502, eq. 12 and 16 |
| `euler` | 1 | arXiv 2206.00364, algorithm 1 without its second half; flow matching's Euler step |
| `heun` | 2 | arXiv 2206.00364, algorithm 1 |
| `dpm_multistep` | 1, 2, 3 | arXiv 2211.01095, algorithm 2; with three points see below |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor

from zoo.diffusion.denoising import Denoise
from zoo.diffusion.levels import State
from zoo.diffusion.paths import Noising, Path

#: Standard normal noise for a step (0 .. steps - 1), one tensor of the state's shape for each level.
StepNoise = Callable[[int], State]


@dataclass(frozen=True)
class Preview:
    """Where a solver stands after a step. What it gives is detached and the caller's own."""

    _clean: State
    _state: State

    def clean(self, level: int = 0) -> Tensor:
        """The clean data that the step worked with, predicted at its first point and thresholded."""
        return self._clean[level].detach().clone()

    def state(self, level: int = 0) -> Tensor:
        """The state after the step."""
        return self._state[level].detach().clone()


class Progress(Protocol):
    """Told after every step: `step` of `total` is done."""

    def __call__(self, step: int, total: int, preview: Preview) -> None: ...


def unreported(step: int, total: int, preview: Preview) -> None:
    """A `Progress` that tells nobody."""


class Solver(Protocol):
    """The one signature of all solvers."""

    def __call__(
        self, denoise: Denoise, x: State, path: Path, noise: StepNoise, on_step: Progress = unreported
    ) -> State:
        """The state at the last point of the path. `x` is left as it is."""
        ...


def ddpm(denoise: Denoise, x: State, path: Path, noise: StepNoise, on_step: Progress = unreported) -> State:
    """Draw from the posterior of the forward process given the predicted clean data."""
    return _single(denoise, x, path, noise, on_step, [_posterior(level) for level in path.levels])


def ddim(
    denoise: Denoise,
    x: State,
    path: Path,
    noise: StepNoise,
    on_step: Progress = unreported,
    eta: float = 0.0,
) -> State:
    """The implicit sampler: deterministic with eta 0, as noisy as the posterior with eta 1.

    The noise that a step keeps is what lies between the state and the (thresholded) clean data.
    """
    return _single(denoise, x, path, noise, on_step, [_implicit(level, eta) for level in path.levels])


def euler(denoise: Denoise, x: State, path: Path, noise: StepNoise, on_step: Progress = unreported) -> State:
    """A straight line along the slope of the probability flow.

    In EDM's coordinates x / alpha and sigma / alpha and in flow matching's t it is the same step, and that of
    `ddim` with eta 0. No noise is asked for.
    """
    return ddim(denoise, x, path, noise, on_step)


def heun(denoise: Denoise, x: State, path: Path, noise: StepNoise, on_step: Progress = unreported) -> State:
    """The trapezoidal rule: a trial step, then the mean of the slopes at both its ends.

    Works on z = x / c by u = sigma / c, where the slope is (z - x0) / u. c is alpha: EDM's coordinates. On a
    path that starts without signal, where those are infinite, c is alpha + sigma: flow matching's. Asks for
    clean data twice a step, and once where the step ends without noise. No noise is asked for.
    """
    trials = [_implicit(level, 0.0) for level in path.levels]
    steps = [_trapezoidal(level) for level in path.levels]
    for step in range(path.steps):
        clean = denoise(x, step)
        trial = tuple(
            combined((t[step].clean, c), (t[step].state, v)) for t, c, v in zip(trials, clean, x, strict=True)
        )
        if path.ends_clean(step):
            x = trial
        else:
            again = denoise(trial, step + 1)
            x = tuple(
                combined((w[step].clean, c), (w[step].again, a), (w[step].state, v))
                for w, c, a, v in zip(steps, clean, again, x, strict=True)
            )
        on_step(step + 1, path.steps, Preview(clean, x))
    return x


def dpm_multistep(
    denoise: Denoise,
    x: State,
    path: Path,
    noise: StepNoise,
    on_step: Progress = unreported,
    order: int = 2,
    lower_last: bool = True,
) -> State:
    """DPM-Solver++: the clean data of up to `order` (1, 2, 3) points, extrapolated in log(alpha / sigma).

    The first steps have as many points as there are. `lower_last` brings the order down to 1 towards the end
    of a path of fewer than ten steps, which is steadier. A step to clean data, where log(alpha / sigma) is
    infinite, is of order 1. Two points are weighted as the paper does. Through three goes a parabola that is
    integrated exactly against the exponential, which is what makes the order 3. No noise is asked for.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order is {order}, expected 1, 2 or 3")
    orders = [_usable_order(path, step, order, lower_last) for step in range(path.steps)]
    weights = [[_history_weights(level, i, k) for i, k in enumerate(orders)] for level in path.levels]
    history: list[State] = []
    for step in range(path.steps):
        history = [denoise(x, step), *history[: order - 1]]
        x = tuple(
            combined(
                (level.sigmas[step + 1] / level.sigmas[step], value),
                *zip(weights[index][step], (clean[index] for clean in history), strict=False),
            )
            for index, (level, value) in enumerate(zip(path.levels, x, strict=True))
        )
        on_step(step + 1, path.steps, Preview(history[0], x))
    return x


#: Every solver by the name that users call it by.
SOLVERS: Mapping[str, Solver] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm++": partial(dpm_multistep, order=2),
    "dpm++3m": partial(dpm_multistep, order=3),
}


def combined(*terms: tuple[float, Tensor]) -> Tensor:
    """The sum of weight times tensor in a new tensor; terms of weight 0 are not read."""
    (weight, first), *others = [term for term in terms if term[0] != 0.0]
    total = first * weight
    for weight, tensor in others:
        total.add_(tensor, alpha=weight)
    return total


class _Step(NamedTuple):
    """One level's step: the next state is clean x0 + state x + noise n."""

    clean: float
    state: float
    noise: float


class _Trapezoid(NamedTuple):
    """One level's step of `heun`: clean x0 + again x0' + state x, with x0' predicted for the trial."""

    clean: float
    again: float
    state: float


def _single(
    denoise: Denoise, x: State, path: Path, noise: StepNoise, on_step: Progress, plans: list[list[_Step]]
) -> State:
    for step in range(path.steps):
        now = [plan[step] for plan in plans]
        clean = denoise(x, step)
        noises = noise(step) if any(w.noise != 0.0 for w in now) else x
        x = tuple(
            combined((w.clean, c), (w.state, v), (w.noise, n))
            for w, c, v, n in zip(now, clean, x, noises, strict=True)
        )
        on_step(step + 1, path.steps, Preview(clean, x))
    return x


def _pairs(level: Noising) -> list[tuple[float, float, float, float]]:
    """(alpha, sigma) at the beginning and at the end of every step."""
    a, s = level.alphas, level.sigmas
    return list(zip(a[:-1], s[:-1], a[1:], s[1:], strict=True))


def _posterior_variance(alpha: float, sigma: float, alpha_next: float, sigma_next: float) -> float:
    """Variance of the next state given this one and clean data: beta-tilde of DDPM."""
    added = max(sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2, 0.0)
    return added * (sigma_next / sigma) ** 2


def _posterior(level: Noising) -> list[_Step]:
    steps = []
    for alpha, sigma, alpha_next, sigma_next in _pairs(level):
        kept = (alpha / alpha_next) * (sigma_next / sigma) ** 2
        variance = _posterior_variance(alpha, sigma, alpha_next, sigma_next)
        steps.append(_Step(alpha_next - kept * alpha, kept, math.sqrt(variance)))
    return steps


def _implicit(level: Noising, eta: float) -> list[_Step]:
    steps = []
    for alpha, sigma, alpha_next, sigma_next in _pairs(level):
        variance = eta**2 * _posterior_variance(alpha, sigma, alpha_next, sigma_next)
        kept = math.sqrt(max(sigma_next**2 - variance, 0.0)) / sigma
        steps.append(_Step(alpha_next - kept * alpha, kept, math.sqrt(variance)))
    return steps


def _trapezoidal(level: Noising) -> list[_Trapezoid]:
    straight = 1.0 if 0.0 in level.alphas else 0.0
    steps = []
    for alpha, sigma, alpha_next, sigma_next in _pairs(level):
        if sigma_next == 0.0:
            steps.append(_Trapezoid(alpha_next, 0.0, 0.0))
            continue
        scale_next = alpha_next + straight * sigma_next
        u, u_next = sigma / (alpha + straight * sigma), sigma_next / scale_next
        half, half_next = 0.5 * (u_next - u) / u, 0.5 * (u_next - u) / u_next
        # The trial is itself a sum of x0 and x, which leaves sigma_next / sigma of x in all.
        clean = -scale_next * (half + half_next * (u_next - u) / u)
        steps.append(_Trapezoid(clean, -scale_next * half_next, sigma_next / sigma))
    return steps


def _usable_order(path: Path, step: int, order: int, lower_last: bool) -> int:
    if path.ends_clean(step):
        return 1
    if lower_last and path.steps < 10:
        order = min(order, path.steps - step)
    return min(order, step + 1)


def _history_weights(level: Noising, step: int, order: int) -> tuple[float, ...]:
    """Weights of the clean data of this point and of the points before it, in that order."""
    alpha = level.alphas[step + 1]
    if level.sigmas[step + 1] == 0.0:
        return (alpha,)
    ratios = [level.log_ratio(point) for point in range(max(step - 2, 0), step + 2)]
    h = ratios[-1] - ratios[-2]
    whole = -alpha * math.expm1(-h)
    if order == 1:
        return (whole,)
    near = (ratios[-2] - ratios[-3]) / h
    if order == 2:
        return whole * (1.0 + 0.5 / near), -whole * 0.5 / near
    far = (ratios[-3] - ratios[-4]) / h
    linear = alpha * (1.0 + math.expm1(-h) / h)
    # The parabola's curvature counts in full, which makes the order 3; half of it would leave order 2.
    square = 2.0 * linear / h - alpha
    mixing, bending = near / (near + far), 1.0 / (near + far)
    first = linear * (1.0 + mixing) - square * bending
    second = square * bending - linear * mixing
    return whole + first / near, second / far - first / near, -second / far
