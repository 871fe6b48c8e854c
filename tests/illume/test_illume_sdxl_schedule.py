"""Which scheduler of diffusers the decoder follows: points, noise, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.errors import WeightsError
from zoo_illume.sdxl_schedule import Scheduling, scheduling_from

#: What Stable Diffusion XL's folder holds.
XL: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
DDIM = {**XL, "_class_name": "DDIMScheduler"}
DDPM = {**XL, "_class_name": "DDPMScheduler"}


def test_without_settings_it_is_that_of_stable_diffusion_xl() -> None:
    read, usual = scheduling_from(XL, "here"), Scheduling()
    assert read.path(50) == usual.path(50)
    assert (
        (read.solver_name, read.prediction) == (usual.solver_name, usual.prediction) == ("euler", "epsilon")
    )
    assert torch.equal(read.table.gammas, usual.table.gammas)


def test_the_points_are_those_of_the_library() -> None:
    assert Scheduling().path(4).network_times == (751, 501, 251, 1)
    trailing = scheduling_from({**XL, "timestep_spacing": "trailing"}, "here").path(4)
    assert trailing.network_times == (999, 749, 499, 249)
    even = scheduling_from({**DDPM, "timestep_spacing": "linspace"}, "here").path(4)
    assert even.network_times == (999, 666, 333, 0)


def test_noise_is_scaled_as_the_library_does() -> None:
    leading = Scheduling()
    assert leading.start_scale(leading.path(4)) == 1.0
    trailing = scheduling_from({**XL, "timestep_spacing": "trailing"}, "here")
    # sigma / sqrt(sigma^2 + 1) of the library's largest sigma, 14.6146.
    assert trailing.start_scale(trailing.path(4)) == pytest.approx(
        14.6146 / (14.6146**2 + 1) ** 0.5, abs=1e-6
    )
    deterministic = scheduling_from(DDIM, "here")
    assert deterministic.start_scale(deterministic.path(4)) == 1.0


def test_ddim_can_end_at_the_cleanest_level() -> None:
    assert scheduling_from(DDIM, "here").path(4).times == (752, 502, 252, 2, 1)
    clean = scheduling_from({**DDIM, "set_alpha_to_one": True}, "here")
    assert clean.path(4).times == (752, 502, 252, 2, 0)


@pytest.mark.parametrize(("given", "ours"), [("epsilon", "epsilon"), ("v_prediction", "v"), ("sample", "x0")])
def test_what_the_network_predicts(given: str, ours: str) -> None:
    assert scheduling_from({**XL, "prediction_type": given}, "here").prediction == ours


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler", None])
def test_another_scheduler_is_refused_by_name(name: str | None) -> None:
    with pytest.raises(WeightsError, match=f"here: scheduler {name!r} is not supported") as refused:
        scheduling_from({**XL, "_class_name": name}, "here")
    assert "EulerDiscreteScheduler, DDIMScheduler, DDPMScheduler" in refused.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**XL, "use_karras_sigmas": True}, "use_karras_sigmas is true, supported: false"),
        ({**XL, "interpolation_type": "log_linear"}, 'interpolation_type is "log_linear"'),
        ({**XL, "final_sigmas_type": "sigma_min"}, 'final_sigmas_type is "sigma_min", supported: "zero"'),
        ({**XL, "timestep_type": "continuous"}, 'timestep_type is "continuous"'),
        ({**XL, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is true"),
        ({**XL, "trained_betas": [0.1]}, r"trained_betas is \[0.1\], supported: null"),
        ({**XL, "beta_schedule": "squaredcos_cap_v2"}, 'beta_schedule is "squaredcos_cap_v2"'),
        ({**XL, "prediction_type": "flow"}, 'prediction_type is "flow"'),
        ({**XL, "steps_offset": "one"}, "here: invalid literal"),
        ({**XL, "num_train_timesteps": None}, "here: int"),
        # What the library takes where nothing is said counts as if it were.
        ({"_class_name": "EulerDiscreteScheduler"}, 'timestep_spacing is "linspace"'),
        ({"_class_name": "DDIMScheduler"}, "clip_sample is true"),
        ({**DDIM, "thresholding": True}, "thresholding is true"),
        ({**DDIM, "timestep_spacing": "trailing"}, 'timestep_spacing is "trailing", supported: "leading"'),
        ({**DDIM, "steps_offset": 0}, "set_alpha_to_one is false with a steps_offset of 0"),
        ({**DDPM, "variance_type": "learned_range"}, 'variance_type is "learned_range"'),
    ],
)
def test_a_setting_that_is_not_here_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        scheduling_from(settings, "here")
