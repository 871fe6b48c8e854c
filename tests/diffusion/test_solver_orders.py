"""Solvers on normal data, where the probability flow has a closed form and the best denoiser is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from exact_denoiser import exact_clean
from torch import Tensor

from zoo.diffusion.paths import Path, path
from zoo.diffusion.schedules import (
    EDMSchedule,
    FlowSchedule,
    Schedule,
    VPSchedule,
    cosine_capped,
    log_ratio,
)
from zoo.diffusion.solvers import Preview, Solver, ddim, ddpm, dpm_multistep, euler, heun
from zoo.diffusion.spacing import times
from zoo.runtime.noise import BatchNoise

MEAN, DEVIATION = 0.3, 0.6
SCHEDULES: dict[str, Schedule] = {"vp": VPSchedule(), "edm": EDMSchedule(), "flow": FlowSchedule()}
SOLVERS: dict[str, tuple[Solver, float]] = {
    "euler": (euler, 1.0),
    "ddim": (ddim, 1.0),
    "heun": (heun, 2.0),
    "dpm1": (partial(dpm_multistep, order=1, lower_last=False), 1.0),
    "dpm2": (partial(dpm_multistep, order=2, lower_last=False), 2.0),
    "dpm3": (partial(dpm_multistep, order=3, lower_last=False), 3.0),
}


def denoiser(walk: Path) -> Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]]:
    def denoise(x: tuple[Tensor, ...], point: int) -> tuple[Tensor, ...]:
        return tuple(
            exact_clean(value, level.alphas[point], level.sigmas[point], MEAN, DEVIATION)
            for value, level in zip(x, walk.levels, strict=True)
        )

    return denoise


def no_noise(step: int) -> tuple[Tensor, ...]:
    raise AssertionError("a deterministic solver asked for noise")


def spread(walk: Path, point: int) -> float:
    """Standard deviation of noisy data."""
    level = walk.levels[0]
    return math.hypot(level.alphas[point] * DEVIATION, level.sigmas[point])


def flow_error(walk: Path, solver: Solver) -> float:
    """How far a solver ends from where the probability flow does, which keeps quantiles."""
    level = walk.levels[0]
    quantiles = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
    x = level.alphas[0] * MEAN + spread(walk, 0) * quantiles
    expected = level.alphas[-1] * MEAN + spread(walk, walk.steps) * quantiles
    (found,) = solver(denoiser(walk), (x,), walk, no_noise)
    return float((found - expected).abs().max())


def even(schedule: Schedule, steps: int) -> Path:
    """Even in log(alpha / sigma), down to little noise. The first two steps are short.

    A method of several points begins with lower orders, whose errors would hide its own.
    """
    ends = torch.tensor([schedule.start, 0.02], dtype=torch.float64)
    first, last = log_ratio(schedule, ends).tolist()
    first = max(first, -5.0)
    short = (last - first) / steps**2
    ratios = [first, first + short]
    ratios += [first + 2 * short + (last - first - 2 * short) * k / steps for k in range(steps + 1)]
    return path([schedule], schedule.time_at(torch.tensor(ratios, dtype=torch.float64)).tolist())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SOLVERS)
def test_error_falls_with_the_order(name: str, schedule: str) -> None:
    solver, order = SOLVERS[name]
    counts = torch.tensor([80, 120, 160, 240, 320])
    errors = torch.tensor([flow_error(even(SCHEDULES[schedule], int(n)), solver) for n in counts])
    x, y = counts.double().log(), errors.double().log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    # A linear denoiser may be kinder than the order promises, never harder.
    assert order - 0.15 < -slope < order + (0.15 if order < 3 else 1.15), (errors, slope)


@pytest.mark.parametrize("name", SOLVERS)
def test_higher_orders_beat_lower_ones(name: str) -> None:
    solver, order = SOLVERS[name]
    bounds = {1.0: 0.04, 2.0: 0.004, 3.0: 0.0004}
    assert flow_error(even(VPSchedule(), 80), solver) < bounds[order]


def test_flow_matching_paths_may_start_without_any_signal() -> None:
    walk = path([FlowSchedule()], [*times(FlowSchedule(), 40)[:-1], 0.01])
    assert walk.levels[0].alphas[0] == 0.0
    for name, bound in {"euler": 0.05, "heun": 0.01, "dpm2": 0.03, "dpm3": 0.03}.items():
        assert flow_error(walk, SOLVERS[name][0]) < bound


def test_euler_is_the_straight_step_of_flow_matching() -> None:
    schedule, x = FlowSchedule(), torch.linspace(-1, 1, 5, dtype=torch.float64)
    walk = path([schedule], [0.8, 0.5])
    (clean,) = denoiser(walk)((x,), 0)
    velocity = (x - clean) / 0.8
    (found,) = euler(denoiser(walk), (x,), walk, no_noise)
    torch.testing.assert_close(found, x + (0.5 - 0.8) * velocity)


def test_euler_is_edms_step_in_sigma() -> None:
    x = torch.linspace(-3, 3, 5, dtype=torch.float64)
    walk = path([EDMSchedule()], [5.0, 2.0])
    (clean,) = denoiser(walk)((x,), 0)
    (found,) = euler(denoiser(walk), (x,), walk, no_noise)
    torch.testing.assert_close(found, x + (2.0 - 5.0) * (x - clean) / 5.0)


def test_heun_is_edms_algorithm() -> None:
    x = torch.linspace(-3, 3, 5, dtype=torch.float64)
    walk = path([EDMSchedule()], [5.0, 2.0, 0.0])
    denoise = denoiser(walk)
    slope = (x - denoise((x,), 0)[0]) / 5.0
    trial = x + (2.0 - 5.0) * slope
    middle = x + (2.0 - 5.0) * 0.5 * (slope + (trial - denoise((trial,), 1)[0]) / 2.0)
    expected = middle + (0.0 - 2.0) * (middle - denoise((middle,), 1)[0]) / 2.0
    (found,) = heun(denoise, (x,), walk, no_noise)
    torch.testing.assert_close(found, expected)


def test_the_last_step_gives_the_predicted_clean_data_itself() -> None:
    walk = path([cosine_capped(1000)], times(cosine_capped(1000), 12))
    for solver in (ddpm, partial(ddim, eta=0.7), euler, heun, SOLVERS["dpm2"][0], SOLVERS["dpm3"][0]):
        last: list[Tensor] = []

        def denoise(x: tuple[Tensor, ...], point: int) -> tuple[Tensor, ...]:
            last[:] = denoiser(walk)(x, point)  # noqa: B023
            return (last[0],)  # noqa: B023

        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
        (found,) = solver(denoise, (x,), walk, lambda step: (torch.ones(3, 4),))
        assert torch.equal(found, last[0])


STOCHASTIC: dict[str, Solver] = {
    "ddpm": ddpm,
    "ddim eta 1": partial(ddim, eta=1.0),
    "ddim eta 0.5": partial(ddim, eta=0.5),
}


def drawn(name: str, schedule: Schedule, steps: int) -> Tensor:
    walk, count = path([schedule], times(schedule, steps)), 40_000
    noise = BatchNoise("moments", steps)
    start = noise.normal("start", (count,)).double() * max(1.0, walk.levels[0].sigmas[0])
    return STOCHASTIC[name](
        denoiser(walk), (start,), walk, lambda step: (noise.normal(f"{step}", (count,)).double(),)
    )[0]


@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("schedule", ["vp", "edm", "flow", "table"])
def test_samples_come_to_have_the_mean_and_the_variance_of_the_data(name: str, schedule: str) -> None:
    chosen = {**SCHEDULES, "table": cosine_capped(1000)}[schedule]
    coarse, fine = drawn(name, chosen, 50), drawn(name, chosen, 200)
    assert abs(float(coarse.mean()) - MEAN) < 0.02
    assert abs(float(fine.mean()) - MEAN) < 0.015
    # What is missing is of first order in the length of a step; four deviations of the count are 0.009.
    missing = DEVIATION - float(coarse.std())
    assert 0.01 < missing < 0.08
    assert float(fine.std()) == pytest.approx(DEVIATION - missing / 4, abs=0.009)


def test_ddpm_and_ddim_with_eta_one_are_the_same_sampler() -> None:
    walk = path([cosine_capped(100)], times(cosine_capped(100), 100))
    noise = BatchNoise("twins")
    x = (noise.normal("start", (64,)).double(),)
    drawn = [
        solver(denoiser(walk), x, walk, lambda step: (noise.normal(f"{step}", (64,)).double(),))[0]
        for solver in (ddpm, partial(ddim, eta=1.0))
    ]
    torch.testing.assert_close(*drawn)


def test_noise_is_asked_for_where_it_counts() -> None:
    walk = path([cosine_capped(100)], times(cosine_capped(100), 7))
    for solver, expected in ((ddpm, [0, 1, 2, 3, 4, 5]), (partial(ddim, eta=0.0), [])):
        asked: list[int] = []

        def noise(step: int) -> tuple[Tensor, ...]:
            asked.append(step)  # noqa: B023
            return (torch.zeros(2),)

        solver(denoiser(walk), (torch.ones(2),), walk, noise)
        assert asked == expected


def test_levels_go_their_own_ways_together() -> None:
    schedules = [cosine_capped(1000).shifted(16.0), cosine_capped(1000)]
    walk = path(schedules, times(schedules[0], 10))
    x = tuple(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (6, 3))
    for solver in (euler, heun, SOLVERS["dpm2"][0], SOLVERS["dpm3"][0]):
        together = solver(denoiser(walk), x, walk, no_noise)
        for index, schedule in enumerate(schedules):
            alone = path([schedule], walk.times)
            torch.testing.assert_close(
                solver(denoiser(alone), (x[index],), alone, no_noise)[0], together[index], rtol=0, atol=0
            )


@pytest.mark.parametrize("name", [*SOLVERS, *STOCHASTIC])
def test_previews_show_every_level_and_are_the_watchers_own(name: str) -> None:
    solver = {**{key: value[0] for key, value in SOLVERS.items()}, **STOCHASTIC}[name]
    schedules = [cosine_capped(1000).shifted(4.0), cosine_capped(1000)]
    walk = path(schedules, times(schedules[0], 6))
    x = tuple(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (6, 3))
    before = [value.clone() for value in x]
    states: list[list[Tensor]] = []

    def noise(step: int) -> tuple[Tensor, ...]:
        return tuple(torch.full_like(value, 0.1) for value in x)

    def spoil(step: int, total: int, preview: Preview) -> None:
        assert (step, total) == (len(states) + 1, 6)
        states.append([preview.state(level) for level in (0, 1)])
        for level in (0, 1):
            preview.clean(level).fill_(9.0)
            preview.state(level).fill_(9.0)

    watched = solver(denoiser(walk), x, walk, noise, spoil)
    plain = solver(denoiser(walk), x, walk, noise)
    for level in (0, 1):
        assert torch.equal(watched[level], plain[level])
        assert torch.equal(states[-1][level], watched[level])
        assert torch.equal(x[level], before[level])


def test_few_steps_end_with_lower_orders() -> None:
    walk, x = even(VPSchedule(), 4), (torch.ones(2, dtype=torch.float64),)
    plain = dpm_multistep(denoiser(walk), x, walk, no_noise, order=2, lower_last=False)[0]
    lowered = dpm_multistep(denoiser(walk), x, walk, no_noise, order=2)[0]
    assert not torch.equal(plain, lowered)
    many = even(VPSchedule(), 20)
    assert torch.equal(
        dpm_multistep(denoiser(many), x, many, no_noise, order=2, lower_last=False)[0],
        dpm_multistep(denoiser(many), x, many, no_noise, order=2)[0],
    )


def test_an_order_that_does_not_exist_is_refused() -> None:
    walk = even(VPSchedule(), 4)
    with pytest.raises(ValueError, match="order is 4, expected 1, 2 or 3"):
        dpm_multistep(denoiser(walk), (torch.ones(1),), walk, no_noise, order=4)
