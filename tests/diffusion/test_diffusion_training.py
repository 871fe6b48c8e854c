"""Training times, noisy data, losses and weights."""

from __future__ import annotations

import pytest
import torch
from exact_denoiser import MEANS, ExactDenoiser

from zoo.diffusion.levels import Level
from zoo.diffusion.schedules import (
    EDMSchedule,
    FlowSchedule,
    Schedule,
    VPSchedule,
    cosine_capped,
    linear_betas,
)
from zoo.diffusion.training import (
    denoising_loss,
    edm_weights,
    noisy,
    pyramid,
    training_times,
    variational_weights,
)

TABLE = cosine_capped(100)
LEVELS = (Level((3, 8, 8), TABLE.shifted(4.0)), Level((3, 4, 4), TABLE), Level((3, 2, 2), TABLE))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Times


def test_times_of_a_table_are_its_entries_alike() -> None:
    uniform = (torch.arange(1000) + 0.5) / 1000
    found = training_times(TABLE, uniform)
    assert not found.is_floating_point()
    assert torch.bincount(found).tolist() == [0, *[10] * 100]
    ends = torch.tensor([0.0, 1.0 - 2**-24])
    assert training_times(linear_betas(1000), ends).tolist() == [1, 1000]


@pytest.mark.parametrize("schedule", [VPSchedule(), FlowSchedule()], ids=["vp", "flow"])
def test_times_of_a_process_are_even(schedule: Schedule) -> None:
    found = training_times(schedule, torch.tensor([0.0, 0.5, 1.0]))
    assert found.tolist() == pytest.approx([0.001, 0.5005, 1.0])


def test_times_of_edm_are_log_normal() -> None:
    logs = training_times(EDMSchedule(), (torch.arange(10_000) + 0.5) / 10_000).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=1e-3)
    assert float(logs.std()) == pytest.approx(1.2, abs=2e-3)
    assert bool(training_times(EDMSchedule(), torch.tensor([0.0, 1.0])).isfinite().all())


# Data


def test_the_pyramid_averages() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8).expand(2, 3, 8, 8)
    copies = pyramid(images, LEVELS)
    assert [list(copy.shape) for copy in copies] == [[2, 3, 8, 8], [2, 3, 4, 4], [2, 3, 2, 2]]
    assert copies[0] is images
    assert float(copies[1][0, 0, 0, 0]) == (0 + 1 + 8 + 9) / 4
    assert all(float(copy.mean()) == pytest.approx(31.5) for copy in copies)
    with pytest.raises(ValueError, match=r"a level of \[4, 4\] does not divide the next higher \[6, 6\]"):
        pyramid(torch.zeros(1, 3, 6, 6), LEVELS[:2])


def test_noisy_data_have_every_samples_own_scales() -> None:
    clean = tuple(randn(2, *level.shape, seed=i) for i, level in enumerate(LEVELS))
    eps = tuple(randn(2, *level.shape, seed=9 + i) for i, level in enumerate(LEVELS))
    found = noisy(LEVELS, clean, eps, torch.tensor([5, 90]))
    for level, x, x0, e in zip(LEVELS, found, clean, eps, strict=True):
        for row, time in enumerate((5, 90)):
            gamma = float(level.schedule.gammas[time])  # type: ignore[attr-defined]
            torch.testing.assert_close(x[row], gamma**0.5 * x0[row] + (1 - gamma) ** 0.5 * e[row])


# Losses


@pytest.mark.parametrize("measured", [None, "epsilon", "v", "x0", "flow"])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0", "flow"])
def test_a_network_that_knows_the_picture_has_no_loss(prediction: str, measured: str | None) -> None:
    # Data without any spread are their mean.
    model = ExactDenoiser([TABLE], [(3, 4, 4)], prediction, deviation=0.0)  # type: ignore[arg-type]
    clean = (torch.full((4, 3, 4, 4), MEANS[2]).double(),)
    time, eps = torch.tensor([1, 20, 60, 95]), (randn(4, 3, 4, 4).double(),)
    labels = model.means[[2, 2, 2, 2]]
    loss = denoising_loss(model, model.levels(), clean, eps, time, labels, measured)  # type: ignore[arg-type]
    assert loss.shape == (4,) and float(loss.max()) < 1e-9
    wrong = denoising_loss(model, model.levels(), clean, eps, time, model.means[[0] * 4], measured)  # type: ignore[arg-type]
    assert float(wrong.min()) > 1e-6


def test_the_error_of_epsilon_is_that_of_v_times_alpha_squared() -> None:
    model = ExactDenoiser([TABLE], [(3, 4, 4)], "v")
    clean, eps, time = (
        (randn(3, 3, 4, 4).double(),),
        (randn(3, 3, 4, 4, seed=1).double(),),
        torch.tensor([3, 50, 80]),
    )
    of = {
        kind: denoising_loss(model, model.levels(), clean, eps, time, model.means[:3], kind)  # type: ignore[arg-type]
        for kind in ("v", "epsilon", "x0")
    }
    gamma = TABLE.gamma(time)
    torch.testing.assert_close(of["epsilon"], of["v"] * gamma)
    torch.testing.assert_close(of["x0"], of["v"] * (1 - gamma))


def test_levels_are_weighted_and_summed() -> None:
    schedules, shapes = [level.schedule for level in LEVELS], [level.shape for level in LEVELS]
    model = ExactDenoiser(schedules, shapes)
    clean = tuple(randn(2, *shape, seed=i) for i, shape in enumerate(shapes))
    eps = tuple(randn(2, *shape, seed=5 + i) for i, shape in enumerate(shapes))

    def loss(weights: list[float] | None) -> torch.Tensor:
        return denoising_loss(
            model, model.levels(), clean, eps, torch.tensor([7, 70]), model.means[:2], weights=weights
        )

    single = [loss([float(i == k) for i in range(3)]) for k in range(3)]
    torch.testing.assert_close(loss([16.0, 4.0, 1.0]), 16 * single[0] + 4 * single[1] + single[2])
    torch.testing.assert_close(loss(None), single[0] + single[1] + single[2])
    assert min(float(part.min()) for part in single) > 0


def test_scaled_signals_are_scaled_in_data_and_target() -> None:
    model = ExactDenoiser([TABLE], [(3, 4, 4)], "x0", deviation=0.0, signal_scales=[4.0])
    clean, eps = (torch.full((2, 3, 4, 4), MEANS[0]),), (randn(2, 3, 4, 4),)
    time = torch.tensor([10, 60])
    loss = denoising_loss(model, model.levels(), clean, eps, time, model.means[[0, 0]])
    assert float(loss.max()) < 1e-12
    (x,) = noisy(model.levels(), clean, eps, time)
    alpha, sigma = (value.float().reshape(-1, 1, 1, 1) for value in TABLE.alpha_sigma(time))
    torch.testing.assert_close(x, alpha * clean[0] / 4 + sigma * eps[0])


def test_variational_weights_are_relative_steps_of_the_signal_to_noise_ratio() -> None:
    weights, gammas = variational_weights(TABLE), TABLE.gammas.double()
    ratio = gammas[1:] / (1 - gammas[1:])
    torch.testing.assert_close(weights[2:].double(), ratio[:-1] / ratio[1:] - 1, rtol=1e-6, atol=0)
    assert len(weights) == 101 and float(weights[0]) == float(weights[1]) == float(weights[2])


def test_edms_weight_undoes_its_preconditioning() -> None:
    from zoo.diffusion.parameterisations import edm_preconditioning

    sigma = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(
        edm_weights(sigma) * edm_preconditioning(sigma).out ** 2, torch.ones(3).double()
    )
