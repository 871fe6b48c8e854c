"""The numbers of an MDM case without a network: tables, conversions, thresholds and losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from golden_cases import GoldenCase, Outputs
from torch import Tensor

from zoo.diffusion import parameterisations as p
from zoo.diffusion.levels import Level, State
from zoo.diffusion.paths import path
from zoo.diffusion.schedules import TableSchedule, cosine_capped, cosine_log_ratio, linear_betas
from zoo.diffusion.solvers import ddpm
from zoo.diffusion.spacing import times
from zoo.diffusion.thresholds import threshold
from zoo.diffusion.training import denoising_loss, pyramid, variational_weights

PREDICTIONS: dict[str, p.Prediction] = {"DDPM": "epsilon", "DDIM": "epsilon", "V_PREDICTION": "v"}


@dataclass
class GivenPredictions:
    """A network that predicts what it was made with, and remembers what it read."""

    prediction: p.Prediction
    predictions: State
    seen: State = ()
    times: list[Tensor] = field(default_factory=list)

    def predict(self, x: State, time: Tensor, condition: Any) -> State:
        self.seen = x
        self.times.append(time)
        return self.predictions


class MDMNumbers:
    """One run; its `op` is a method."""

    def __init__(self, case: GoldenCase, run: dict[str, Any]) -> None:
        self.case, self.run, self.config = case, run, run["sampler_config"]
        steps = self.config["num_diffusion_steps"]
        self.base = {
            "DEEPFLOYD": lambda: cosine_capped(steps),
            "COSINE": lambda: cosine_log_ratio(steps),
            "DDPM": lambda: linear_betas(steps, self.config["beta_start"], self.config["beta_end"]),
        }[self.config["schedule_type"]]()

    def __call__(self) -> Outputs:
        return getattr(self, self.run["op"])()

    @property
    def schedules(self) -> list[TableSchedule]:
        """One for each resolution, highest first."""
        power = self.config.get("schedule_shifted_power", 1) if self.config["schedule_shifted"] else 0
        return [self.base.shifted(scale**power) for scale in self.run.get("scales", [1])]

    def inputs(self, *names: str) -> list[Tensor]:
        return [self.case.input(self.run["inputs"][name]) for name in names]

    def gammas(self) -> Outputs:
        yield "gammas", self.base.gammas
        yield "vdm_loss_weights", variational_weights(self.base)
        if "scales" in self.run:
            for scale, schedule in zip(self.run["scales"], self.schedules, strict=True):
                yield f"gammas_scale{scale}", schedule.gammas

    def timesteps(self) -> Outputs:
        for steps in self.run["num_inference_steps"]:
            yield f"timesteps_{steps}", torch.tensor(times(self.base, steps, "respaced"))

    def convert(self) -> Outputs:
        images, noise, predicted, index = self.inputs("images", "eps", "pred", "t")
        entries = index + 1
        alpha, sigma = (scale.float()[:, None, None, None] for scale in self.base.alpha_sigma(entries))
        x = p.noised(images, noise, alpha, sigma)
        yield "x_t", x
        for name in ("DDPM", "V_PREDICTION"):
            kind = PREDICTIONS[name]
            clean = p.clean_from(kind, x, predicted, alpha, sigma)
            clipped = threshold(clean, "clip")
            yield f"target_{name}", p.target(kind, images, noise, alpha, sigma)
            yield f"x0_from_{name}", clean
            yield f"eps_from_{name}", p.noise_from(x, clean, alpha, sigma)
            yield f"pred_{name}_from_x0", p.predicted_from(kind, x, images, alpha, sigma)
            yield f"x0_clipped_{name}", clipped
            yield f"posterior_mean_{name}", self.posterior_mean(x, clipped, entries.tolist())
        for rule in ("none", "clip", "dynamic", "dynamic_if"):
            yield f"threshold_{rule.upper()}", threshold(2.0 * predicted, rule)

    def posterior_mean(self, x: Tensor, clean: Tensor, entries: list[int]) -> Tensor:
        """One ancestral step of each sample to the entry before, with noise that is zero."""
        rows = []
        for row, guess, entry in zip(x, clean, entries, strict=True):
            step = path([self.base], [entry, entry - 1])
            silent = (torch.zeros_like(row),)
            (mean,) = ddpm(lambda x, point, g=guess: (g,), (row,), step, lambda index, s=silent: s)
            rows.append(mean)
        return torch.stack(rows)

    def loss(self) -> Outputs:
        names = self.run["inputs"]
        images, index = self.inputs("images", "t")
        noise = tuple(self.case.input(name) for name in [names["eps"], *names.get("eps_low", [])])
        network = GivenPredictions(
            PREDICTIONS[self.config["prediction_type"]],
            tuple(self.case.input(name) for name in names["preds"]),
        )
        levels = [
            Level(tuple(drawn.shape[1:]), schedule)
            for drawn, schedule in zip(noise, self.schedules, strict=True)
        ]
        weights = [float(part) for part in self.run.get("multi_res_weights", "1").split(":")]
        target = PREDICTIONS[self.config["loss_target_type"]]
        clean = pyramid(images, levels)
        yield "loss", denoising_loss(network, levels, clean, noise, index + 1, None, target, weights)
        assert torch.equal(torch.stack(network.times), index[None].float())
        for level, seen in enumerate(network.seen):
            yield f"x_t.res{level}", seen
        if self.run.get("use_vdm_loss_weights"):
            yield "weights", variational_weights(self.base)[index + 1]
