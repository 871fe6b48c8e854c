"""The authors' numbers for MDM's schedules, conversions, thresholds and losses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo.diffusion import parameterisations as p
from zoo.diffusion.levels import Level, State
from zoo.diffusion.paths import path
from zoo.diffusion.schedules import TableSchedule, cosine_capped, cosine_log_ratio, linear_betas
from zoo.diffusion.solvers import ddpm
from zoo.diffusion.spacing import times
from zoo.diffusion.thresholds import threshold
from zoo.diffusion.training import denoising_loss, pyramid, variational_weights

FOLDER = Path(__file__).parents[1] / "golden" / "mdm" / "schedule_and_targets"
FACTS = json.loads((FOLDER / "case.json").read_text(encoding="utf-8"))
IO = load_file(FOLDER / "io.safetensors")
PREDICTIONS: dict[str, p.Prediction] = {"DDPM": "epsilon", "DDIM": "epsilon", "V_PREDICTION": "v"}
RULES = ("NONE", "CLIP", "DYNAMIC", "DYNAMIC_IF")

Outputs = Iterator[tuple[str, Tensor]]


def schedule_of(config: dict[str, Any]) -> TableSchedule:
    steps = config["num_diffusion_steps"]
    if config["schedule_type"] == "DDPM":
        return linear_betas(steps, config["beta_start"], config["beta_end"])
    return {"DEEPFLOYD": cosine_capped, "COSINE": cosine_log_ratio}[config["schedule_type"]](steps)


def shifted(run: dict[str, Any]) -> list[TableSchedule]:
    """One schedule for each level of a run, highest first."""
    config, base = run["sampler_config"], schedule_of(run["sampler_config"])
    power = config.get("schedule_shifted_power", 1) if config["schedule_shifted"] else 0
    return [base.shifted(scale**power) for scale in run.get("scales", [1])]


def gammas(run: dict[str, Any]) -> Outputs:
    base = schedule_of(run["sampler_config"])
    yield "gammas", base.gammas
    yield "vdm_loss_weights", variational_weights(base)
    for scale, schedule in zip(run.get("scales", []), shifted(run), strict=False):
        yield f"gammas_scale{scale}", schedule.gammas


def timesteps(run: dict[str, Any]) -> Outputs:
    for steps in run["num_inference_steps"]:
        yield f"timesteps_{steps}", torch.tensor(times(schedule_of(run["sampler_config"]), steps, "respaced"))


def convert(run: dict[str, Any]) -> Outputs:
    schedule = schedule_of(run["sampler_config"])
    x0, eps, pred, t = (IO[f"in.{run['inputs'][name]}"] for name in ("images", "eps", "pred", "t"))
    alpha, sigma = (value.float().reshape(-1, 1, 1, 1) for value in schedule.alpha_sigma(t + 1))
    x = p.noised(x0, eps, alpha, sigma)
    yield "x_t", x
    for name in ("DDPM", "V_PREDICTION"):
        kind = PREDICTIONS[name]
        clean = p.clean_from(kind, x, pred, alpha, sigma)
        yield f"target_{name}", p.target(kind, x0, eps, alpha, sigma)
        yield f"x0_from_{name}", clean
        yield f"eps_from_{name}", p.noise_from(x, clean, alpha, sigma)
        yield f"pred_{name}_from_x0", p.predicted_from(kind, x, x0, alpha, sigma)
        yield f"x0_clipped_{name}", threshold(clean, "clip")
        yield f"posterior_mean_{name}", posterior_mean(schedule, x, threshold(clean, "clip"), t + 1)
    for rule in RULES:
        yield f"threshold_{rule}", threshold(2 * pred, rule.lower())  # type: ignore[arg-type]


def posterior_mean(schedule: TableSchedule, x: Tensor, clean: Tensor, entries: Tensor) -> Tensor:
    """One step of `ddpm` with no noise from each sample's entry of the table to the one before."""

    def mean(row: Tensor, guess: Tensor, entry: float) -> Tensor:
        walk = path([schedule], [entry, entry - 1])
        return ddpm(lambda x, point: (guess,), (row,), walk, lambda step: (torch.zeros_like(row),))[0]

    return torch.stack([mean(*rows) for rows in zip(x, clean, entries.tolist(), strict=True)])


class Recorded:
    """A network that gives recorded predictions, and keeps what it was asked."""

    prediction: p.Prediction = "v"

    def __init__(self, predictions: list[Tensor]) -> None:
        self.predictions = tuple(predictions)
        self.seen: State = ()
        self.told = torch.empty(0)

    def predict(self, x: State, time: Tensor, condition: Any) -> State:
        self.seen, self.told = x, time
        return self.predictions


def loss(run: dict[str, Any]) -> Outputs:
    names, config = run["inputs"], run["sampler_config"]
    eps = tuple(IO[f"in.{name}"] for name in [names["eps"], *names.get("eps_low", [])])
    network, t = Recorded([IO[f"in.{name}"] for name in names["preds"]]), IO[f"in.{names['t']}"]
    network.prediction = PREDICTIONS[config["prediction_type"]]
    pairs = zip(eps, shifted(run), strict=True)
    levels = [Level(tuple(e.shape[1:]), schedule) for e, schedule in pairs]  # type: ignore[arg-type]
    images = pyramid(IO[f"in.{names['images']}"], levels)
    weights = [float(part) for part in run.get("multi_res_weights", "1").split(":")]
    measured = PREDICTIONS[config["loss_target_type"]]
    yield "loss", denoising_loss(network, levels, images, eps, t + 1, None, measured, weights)  # type: ignore[arg-type]
    assert torch.equal(network.told, t.float())
    for index, seen in enumerate(network.seen):
        yield f"x_t.res{index}", seen
    if run.get("use_vdm_loss_weights"):
        yield "weights", variational_weights(levels[0].schedule)[t + 1]  # type: ignore[arg-type]


OPERATIONS = {"gammas": gammas, "timesteps": timesteps, "convert": convert, "loss": loss}
EXPECTED = [name.removeprefix("out.") for name in sorted(IO) if name.startswith("out.")]


@pytest.fixture(scope="module")
def computed() -> dict[str, Tensor]:
    return {
        f"{run['name']}.{name}": tensor
        for run in FACTS["call"]["runs"]
        for name, tensor in OPERATIONS[run["op"]](run)
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_agrees_with_the_authors_numbers(name: str, computed: dict[str, Tensor]) -> None:
    expected = IO[f"out.{name}"]
    assert computed[name].shape == expected.shape
    torch.testing.assert_close(
        computed[name].to(expected.dtype), expected, atol=FACTS["atol"], rtol=FACTS["rtol"]
    )


@pytest.mark.parametrize("name", [name for name in EXPECTED if "gammas" in name])
def test_tables_agree_to_the_last_bits(name: str, computed: dict[str, Tensor]) -> None:
    torch.testing.assert_close(computed[name], IO[f"out.{name}"], atol=0, rtol=3e-7)


def test_nothing_is_left_out(computed: dict[str, Tensor]) -> None:
    assert sorted(computed) == EXPECTED
