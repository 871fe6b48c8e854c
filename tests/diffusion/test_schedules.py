"""Schedules, parameterisations, spacing and paths: inverses, limits and published numbers."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.diffusion import parameterisations as p
from zoo.diffusion.paths import path
from zoo.diffusion.schedules import (
    EDMSchedule,
    FlowSchedule,
    Schedule,
    TableSchedule,
    VPSchedule,
    cosine_capped,
    cosine_log_ratio,
    linear_betas,
    log_ratio,
    table_of_betas,
)
from zoo.diffusion.spacing import Spacing, times
from zoo.errors import InvalidInput

SCHEDULES: dict[str, Schedule] = {
    "capped": cosine_capped(1000),
    "linear": linear_betas(1000),
    "cosine": cosine_log_ratio(64),
    "vp": VPSchedule(),
    "vp with constant rate": VPSchedule(beta_min=6.0, beta_max=6.0),
    "edm": EDMSchedule(),
    "flow": FlowSchedule(),
}
KINDS: tuple[p.Prediction, ...] = ("epsilon", "v", "x0", "flow")


def points(schedule: Schedule, count: int = 41) -> torch.Tensor:
    return torch.linspace(schedule.finest, 0.98 * schedule.start, count, dtype=torch.float64)


# Schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_grows_from_nothing(name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = schedule.alpha_sigma(torch.tensor([0.0], dtype=torch.float64))
    assert (alpha.item(), sigma.item()) == (1.0, 0.0)
    assert bool((log_ratio(schedule, points(schedule)).diff() < 0).all())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("factor", [1.0, 4.0, 0.5])
def test_time_at_is_the_inverse(name: str, factor: float) -> None:
    schedule = SCHEDULES[name].shifted(factor)
    wanted = points(schedule)
    torch.testing.assert_close(schedule.time_at(log_ratio(schedule, wanted)), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("factor", [4.0, 256.0, 0.25])
def test_a_shift_divides_the_signal_to_noise_ratio(name: str, factor: float) -> None:
    schedule = SCHEDULES[name]
    at = points(schedule).round().clamp(min=1) if isinstance(schedule, TableSchedule) else points(schedule)
    change = log_ratio(schedule, at) - log_ratio(schedule.shifted(factor), at)
    torch.testing.assert_close(change, torch.full_like(change, 0.5 * math.log(factor)), rtol=0, atol=2e-3)
    twice = schedule.shifted(factor).shifted(1 / factor)
    torch.testing.assert_close(log_ratio(twice, at), log_ratio(schedule, at), rtol=0, atol=4e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_shift_keeps_the_kind_of_process(name: str) -> None:
    schedule = SCHEDULES[name].shifted(9.0)
    alpha, sigma = schedule.alpha_sigma(points(schedule))
    if isinstance(schedule, EDMSchedule):
        kept = alpha
    else:
        kept = alpha + sigma if isinstance(schedule, FlowSchedule) else alpha**2 + sigma**2
    torch.testing.assert_close(kept, torch.ones_like(kept))


def test_a_shift_has_to_be_positive() -> None:
    for schedule in SCHEDULES.values():
        with pytest.raises(ValueError, match="the shift of a schedule is 0"):
            schedule.shifted(0)


def test_flow_shift_is_the_published_formula() -> None:
    _, sigma = FlowSchedule().shifted(9.0).alpha_sigma(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([3 * 0.25 / 1.5, 3 * 0.5 / 2.0, 1.0])


def test_tables_hold_published_numbers() -> None:
    # The products of 1 - beta over a thousand steps of 1e-4 .. 0.02.
    assert float(linear_betas(1000).gammas[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(cosine_capped(1000).gammas[500]) == pytest.approx(
        (math.cos((0.508 / 1.008) * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2, rel=1e-5
    )
    ends = cosine_log_ratio(32).gammas[[1, -1]].double()
    assert (ends / (1 - ends)).log().tolist() == pytest.approx([5.0, -5.0], abs=1e-4)


def test_the_cosine_is_capped() -> None:
    gammas = cosine_capped(1000).gammas
    assert float(gammas[-1] / gammas[-2]) == pytest.approx(0.001, rel=1e-3)


def test_tables_are_on_the_cpu_whatever_the_default_device() -> None:
    with torch.device("meta"):
        tables = [cosine_capped(10), linear_betas(10), cosine_log_ratio(10), cosine_capped(10).shifted(4.0)]
        route = path([tables[0]], times(tables[0], 5, "karras"))
    assert {table.gammas.device.type for table in tables} == {"cpu"}
    assert route.levels[0].sigmas[0] > 0.9


def test_whole_times_read_the_table_as_it_is() -> None:
    schedule = cosine_capped(50)
    for at in (torch.arange(51), torch.arange(51).double()):
        assert torch.equal(schedule.gamma(at), schedule.gammas.double())
    assert torch.equal(schedule.network_time(torch.arange(1, 51)), torch.arange(50))


def test_between_two_entries_the_log_ratio_is_linear() -> None:
    schedule = linear_betas(100)
    found = log_ratio(schedule, torch.tensor([10.0, 10.25, 11.0]).double())
    assert float(found[1]) == pytest.approx(float(0.75 * found[0] + 0.25 * found[2]))
    assert float(schedule.gamma(torch.tensor(0.5))) == pytest.approx(float(schedule.gammas[:2].mean()))


@pytest.mark.parametrize(
    "gammas",
    [[1.0, 0.5, 0.6], [0.9, 0.5], [1.0], [1.0, 0.5, -0.1]],
    ids=["rises", "noisy", "one", "negative"],
)
def test_what_is_no_table_is_refused(gammas: list[float]) -> None:
    with pytest.raises(ValueError, match="gammas: expected"):
        TableSchedule(torch.tensor(gammas))


def test_a_table_of_betas_multiplies_what_is_left() -> None:
    table = table_of_betas(torch.tensor([0.1, 0.5]))
    assert table.gammas.tolist() == pytest.approx([1.0, 0.9, 0.45])


# Parameterisations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_conversions_are_inverse_of_one_another(kind: p.Prediction, name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = (value[:, None] for value in schedule.alpha_sigma(points(schedule, 9)))
    draw = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(9, 20, generator=draw, dtype=torch.float64) for _ in range(2))
    x = p.noised(x0, eps, alpha, sigma)
    predicted = p.target(kind, x0, eps, alpha, sigma)
    torch.testing.assert_close(p.clean_from(kind, x, predicted, alpha, sigma), x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(p.predicted_from(kind, x, x0, alpha, sigma), predicted, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(p.noise_from(x, x0, alpha, sigma), eps, rtol=1e-8, atol=1e-8)


def test_v_is_edms_preconditioning_of_data_with_deviation_one() -> None:
    alpha, sigma = VPSchedule().alpha_sigma(torch.tensor([0.1, 0.5, 0.9]))
    # EDM's data are those of alpha = 1, and its network has the other sign.
    edm = p.edm_preconditioning(sigma / alpha, data_std=1.0)
    skip, out = p.clean_weights("v", alpha, sigma)
    torch.testing.assert_close(edm.skip / alpha, skip)
    torch.testing.assert_close(-edm.out, out)
    torch.testing.assert_close(edm.scale / alpha, torch.ones_like(alpha))


def test_edms_preconditioning_keeps_variances_at_one() -> None:
    sigma, std = torch.tensor([0.01, 0.5, 10.0], dtype=torch.float64), 0.5
    c = p.edm_preconditioning(sigma, std)
    torch.testing.assert_close(c.scale**2 * (std**2 + sigma**2), torch.ones_like(sigma))
    # The network's target is (x0 - skip x) / out.
    variance = ((1 - c.skip) ** 2 * std**2 + c.skip**2 * sigma**2) / c.out**2
    torch.testing.assert_close(variance, torch.ones_like(sigma))
    torch.testing.assert_close(c.noise, sigma.log() / 4)


# Spacing


@pytest.mark.parametrize(
    ("rule", "steps", "expected"),
    [
        ("respaced", 4, [801, 601, 400, 200, 0]),
        ("respaced", 3, [751, 500, 250, 0]),
        ("respaced", 1, [500, 0]),
        ("trailing", 4, [1000, 750, 500, 250, 0]),
        ("trailing", 3, [1000, 667, 333, 0]),
        ("leading", 4, [751, 501, 251, 1, 0]),
        ("leading", 3, [667, 334, 1, 0]),
        ("linspace", 4, [1000, 667, 334, 1, 0]),
        ("linspace", 1, [1000, 0]),
    ],
)
def test_spacing_of_a_table(rule: Spacing, steps: int, expected: list[int]) -> None:
    assert list(times(cosine_capped(1000), steps, rule)) == expected


def test_leading_times_can_start_higher() -> None:
    table = cosine_capped(1000)
    assert list(times(table, 4, "leading", offset=1)) == [752, 502, 252, 2, 0]
    assert list(times(table, 999, "leading", offset=1)) == [*range(1000, 1, -1), 0]
    with pytest.raises(InvalidInput, match="1000 steps that start 1 above the cleanest of 1000 noise levels"):
        times(table, 1000, "leading", offset=1)
    for spacing, offset in (("leading", -1), ("trailing", 1), ("auto", 1)):
        with pytest.raises(InvalidInput, match=f"offset is {offset}"):
            times(table, 4, spacing, offset=offset)


def test_respacing_rounds_halves_to_even() -> None:
    assert list(times(cosine_capped(8), 5, "respaced")) == [8, 6, 4, 3, 2, 0]


@pytest.mark.parametrize("rule", ["respaced", "trailing", "leading", "linspace"])
def test_all_steps_visit_all_entries(rule: Spacing) -> None:
    assert list(times(cosine_capped(50), 50, rule)) == list(range(50, -1, -1))
    for steps in range(1, 51):
        visited = times(cosine_capped(50), steps, rule)
        assert len(visited) == steps + 1 and list(visited) == sorted(set(visited), reverse=True)


def test_karras_sigmas_are_those_of_the_paper() -> None:
    found = times(EDMSchedule(), 18, "karras")
    ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    expected = [(ends[0] + i / 17 * (ends[1] - ends[0])) ** 7 for i in range(18)] + [0.0]
    assert list(found) == pytest.approx(expected)
    assert times(EDMSchedule(), 18) == found


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("rule", ["auto", "linspace", "karras", "logsnr"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_spacing_falls_from_the_noise_to_clean_data(name: str, rule: Spacing, steps: int) -> None:
    schedule = SCHEDULES[name]
    if name == "flow" and rule in ("karras", "logsnr"):
        with pytest.raises(InvalidInput, match="starts without any signal"):
            times(schedule, steps, rule)
        return
    visited = times(schedule, steps, rule)
    assert len(visited) == steps + 1 and visited[-1] == 0.0
    assert list(visited) == sorted(set(visited), reverse=True)
    assert visited[0] == schedule.start or (rule == "auto" and visited[0] < schedule.start)


def test_logsnr_is_even_in_log_ratio() -> None:
    visited = torch.tensor(times(VPSchedule(), 8, "logsnr")[:-1], dtype=torch.float64)
    gaps = log_ratio(VPSchedule(), visited).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(7))


def test_impossible_spacings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="steps is 0, expected at least 1"):
        times(cosine_capped(10), 0)
    with pytest.raises(InvalidInput, match="steps is 11, and this model has 10 noise levels"):
        times(cosine_capped(10), 11)
    with pytest.raises(InvalidInput, match="this model's schedule is continuous") as failure:
        times(FlowSchedule(), 5, "trailing")
    assert failure.value.hint == "Use one of: auto, linspace, karras, logsnr"


# Paths


def test_a_path_holds_every_levels_scales() -> None:
    schedules = [cosine_capped(100).shifted(4.0), cosine_capped(100)]
    route = path(schedules, [80, 30, 0])
    assert route.steps == 2 and route.times == (80.0, 30.0, 0.0) and route.network_times == (79.0, 29.0)
    for level, schedule in zip(route.levels, schedules, strict=True):
        gammas = schedule.gammas[[80, 30, 0]].double()
        assert level.alphas == pytest.approx(gammas.sqrt().tolist())
        assert level.sigmas == pytest.approx((1 - gammas).sqrt().tolist())
    assert [route.ends_clean(step) for step in (0, 1)] == [False, True]
    assert route.levels[0].log_ratio(2) == math.inf
    assert path([FlowSchedule()], [1.0, 0.5]).levels[0].log_ratio(0) == -math.inf


@pytest.mark.parametrize("visited", [[5.0], [1.0, 2.0], [3.0, 3.0], [3.0, 0.0, -1.0]])
def test_times_that_do_not_fall_are_refused(visited: list[float]) -> None:
    with pytest.raises(ValueError, match="times: expected"):
        path([EDMSchedule()], visited)


def test_levels_end_together() -> None:
    class Grainy(EDMSchedule):
        def alpha_sigma(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.ones_like(time), time + 1.0

    with pytest.raises(ValueError, match="all levels to end with noise, or all without"):
        path([EDMSchedule(), Grainy()], [1.0, 0.0])


def test_network_times_are_scaled() -> None:
    assert path([FlowSchedule(time_scale=1000.0)], [1.0, 0.25, 0.0]).network_times == (1000.0, 250.0)
    assert path([VPSchedule(time_scale=999.0)], [1.0, 0.0]).network_times == (999.0,)
