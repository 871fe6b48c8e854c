"""Guidance, thresholds and the way from a network to clean data."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from exact_denoiser import ExactDenoiser
from torch import Tensor

from zoo.diffusion.denoising import Denoising
from zoo.diffusion.guidance import guided
from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import Prediction
from zoo.diffusion.paths import path
from zoo.diffusion.sampling import NamedNoise, generate, pictures
from zoo.diffusion.schedules import EDMSchedule, FlowSchedule, VPSchedule, cosine_capped
from zoo.diffusion.solvers import Solver, ddim, ddpm, dpm_multistep, heun
from zoo.diffusion.spacing import times
from zoo.diffusion.thresholds import Threshold, dynamic, magnitude_quantile, threshold
from zoo.errors import InvalidInput
from zoo.runtime.noise import BatchNoise

TABLE = cosine_capped(1000)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Guidance


def test_guidance_goes_from_the_first_half_through_the_second() -> None:
    doubled = randn(6, 2, 3)
    for weight in (0.0, 0.5, 1.0, 7.5):
        expected = doubled[:3] + weight * (doubled[3:] - doubled[:3])
        torch.testing.assert_close(guided(doubled, weight), expected)
    assert torch.equal(guided(doubled, 1.0), doubled[3:])
    assert torch.equal(guided(doubled, 0.0), doubled[:3])


# Thresholds


def test_thresholds_of_a_sample_in_range_change_nothing() -> None:
    x = randn(3, 3, 4, 4).clamp(-1, 1)
    for rule in ("none", "clip", "dynamic", "dynamic_if"):
        assert torch.equal(threshold(x, rule), x)  # type: ignore[arg-type]


def test_thresholds_by_hand() -> None:
    x = torch.tensor([[[[-4.0, 0.5, 2.0]]]])
    assert torch.equal(threshold(x, "none"), x)
    assert threshold(x, "clip").flatten().tolist() == [-1.0, 0.5, 1.0]
    # |x| is 0.5, 2, 4: the quantile 0.995 lies at 2 + 0.99 * 2, and that of 0.95 is held at 1.5.
    assert threshold(x, "dynamic").flatten().tolist() == pytest.approx([-1.0, 0.5 / 3.98, 2.0 / 3.98])
    assert threshold(x, "dynamic_if").flatten().tolist() == pytest.approx([-1.0, 0.5 / 1.5, 1.0])


def test_dynamic_bounds_are_each_samples_own_and_limited() -> None:
    x = torch.stack([torch.full((3, 4, 4), value) for value in (0.5, 3.0, 500.0)])
    found = threshold(x, "dynamic")
    assert [float(row.max()) for row in found] == [0.5, 1.0, 1.0]
    assert torch.equal(dynamic(x[2:] * -1, 0.995, 100.0), torch.full((1, 3, 4, 4), -1.0))
    assert torch.equal(threshold(x[1:2], "dynamic"), found[1:2])


@pytest.mark.parametrize("share", [0.0, 0.31, 0.95, 0.995, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_the_quantile_is_torchs(share: float, count: int) -> None:
    x = randn(4, count)
    torch.testing.assert_close(magnitude_quantile(x, share), torch.quantile(x.abs(), share, dim=1))


def test_the_quantile_takes_what_torchs_refuses() -> None:
    x = torch.linspace(0, 1, 2**24 + 8).expand(1, -1)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(x, 0.5, dim=1)
    assert float(magnitude_quantile(x, 0.5)) == pytest.approx(0.5, abs=1e-6)


def test_signals_that_were_scaled_are_judged_at_their_own_size() -> None:
    x = torch.tensor([[[[-1.0, 0.2, 0.6]]]])
    assert threshold(x, "clip", 2.0).flatten().tolist() == pytest.approx([-0.5, 0.2, 0.5])
    assert torch.equal(threshold(x, "none", 3.0), x)
    torch.testing.assert_close(threshold(x, "dynamic", 4.0), threshold(4 * x, "dynamic") / 4)


# From a network to clean data


class Recorder:
    """A network that returns what it is given, and keeps a copy of it."""

    def __init__(self, prediction: Prediction = "x0") -> None:
        self.prediction = prediction
        self.x: list[State] = []
        self.times: list[Tensor] = []
        self.addresses: set[int] = set()

    def levels(self, size: Any = None) -> tuple[Level, ...]:
        return (Level((3, 4, 4), TABLE.shifted(4.0)), Level((3, 2, 2), TABLE))

    def condition(self, batch: Any, components: Any, guided: bool) -> None:
        return None

    def predict(self, x: State, time: Tensor, condition: Any) -> State:
        self.x.append(tuple(value.clone() for value in x))
        self.times.append(time.clone())
        self.addresses.update(value.data_ptr() for value in x)
        weights = torch.linspace(0, 1, len(time), device=time.device).reshape(-1, 1, 1, 1).to(x[0].dtype)
        return tuple(value * weights for value in x)


def denoising(model: Recorder, **options: Any) -> Denoising:
    levels = model.levels()
    route = path([level.schedule for level in levels], times(TABLE, 5))
    return Denoising(model, levels, route, None, 2, **options)


def state(seed: int = 0) -> State:
    return randn(2, 3, 4, 4, seed=seed), randn(2, 3, 2, 2, seed=seed + 1)


def test_guidance_runs_both_halves_in_one_call() -> None:
    model = Recorder()
    found = denoising(model, guidance=3.0).predicted(state(), 1)
    assert len(model.x) == 1
    for seen, given in zip(model.x[0], state(), strict=True):
        assert torch.equal(seen, torch.cat([given, given]))
    # Rows are weighted 0, 1/3 | 2/3, 1.
    for value, given in zip(found, state(), strict=True):
        factors = torch.tensor([0.0 + 3 * 2 / 3, 1 / 3 + 3 * 2 / 3]).reshape(2, 1, 1, 1)
        torch.testing.assert_close(value, given * factors)


def test_without_guidance_nothing_is_doubled() -> None:
    model = Recorder()
    denoising(model, guidance=1.0).predicted(state(), 0)
    assert [len(value) for value in model.x[0]] == [2, 2] and len(model.times[0]) == 2


def test_the_network_is_told_its_own_time_and_gets_the_same_buffers() -> None:
    model = Recorder()
    denoise = denoising(model, guidance=2.0)
    for point in range(5):
        denoise(state(point), point)
    told = [float(time[0]) for time in model.times]
    assert told == [time - 1 for time in times(TABLE, 5)[:-1]]
    assert all(len(time) == 4 and bool((time == time[0]).all()) for time in model.times)
    assert len(model.addresses) == 2, "one buffer for each level, made once"


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0", "flow"])
def test_the_exact_network_gives_the_same_clean_data_in_every_parameterisation(prediction: str) -> None:
    shapes, schedules = [(3, 4, 4), (3, 2, 2)], [TABLE.shifted(4.0), TABLE]
    found = {}
    for kind in ("x0", prediction):
        model = ExactDenoiser(schedules, shapes, kind)  # type: ignore[arg-type]
        route = path(schedules, times(TABLE, 5))
        found[kind] = Denoising(model, model.levels(), route, model.means[:2], 2)(state(), 2)
    for one, other in zip(found["x0"], found[prediction], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_thresholds_apply_to_clean_data_at_the_levels_scale() -> None:
    model = Recorder()
    levels = (Level((3, 4, 4), TABLE, 2.0), Level((3, 2, 2), TABLE))
    route = path([TABLE, TABLE], times(TABLE, 5))
    big = tuple(100 * value for value in state())
    found = Denoising(model, levels, route, None, 2, rule="clip").clean(big, big, 0)
    assert [float(value.abs().max()) for value in found] == [0.5, 1.0]


def test_half_precision_stays_inside_the_network() -> None:
    model = Recorder()
    found = denoising(model, dtype=torch.bfloat16, guidance=2.0)(state(), 0)
    assert {value.dtype for value in model.x[0]} == {torch.bfloat16}
    assert {value.dtype for value in found} == {torch.float32}


@pytest.mark.parametrize("rule", ["none", "clip", "dynamic", "dynamic_if"])
@pytest.mark.parametrize("solver", [ddpm, partial(ddim, eta=0.5), heun, partial(dpm_multistep, order=3)])
def test_the_loop_never_waits_for_the_device(solver: Solver, rule: Threshold) -> None:
    # Tensors on the meta device have no values: whoever asks for one fails.
    model, device = Recorder("v"), torch.device("meta")
    levels = model.levels()
    route = path([level.schedule for level in levels], times(TABLE, 5))
    denoise = Denoising(model, levels, route, None, 2, 7.5, rule, torch.bfloat16, device)
    noise = NamedNoise(BatchNoise("meta"), levels, 2, device)
    seen: list[torch.device] = []
    found = generate(denoise, route, solver, noise, lambda *step: seen.append(step[2].clean().device))
    assert pictures(found, levels, all_levels=True).shape == (2, 3, 4, 8)
    assert seen == [device] * 5


def test_epsilon_needs_some_signal_at_the_start() -> None:
    model, levels = Recorder("epsilon"), (Level((3, 4, 4), FlowSchedule()),)
    with pytest.raises(InvalidInput, match="starts without any signal"):
        Denoising(model, levels, path([FlowSchedule()], [1.0, 0.5, 0.0]), None, 2)
    Denoising(model, levels, path([VPSchedule()], [1.0, 0.5, 0.0]), None, 2)


# The start


def test_a_run_starts_from_noise_of_the_schedules_size() -> None:
    level, source, device = Level((1, 2, 2), TABLE), BatchNoise("start"), torch.device("cpu")
    plain = source.normal("start.level0", (3, 1, 2, 2))
    for schedule, scale in ((TABLE, 1.0), (VPSchedule(), 1.0), (FlowSchedule(), 1.0), (EDMSchedule(), 80.0)):
        route = path([schedule], times(schedule, 4))
        (found,) = NamedNoise(source, (level,), 3, device).start(route)
        assert torch.equal(found, scale * plain)
