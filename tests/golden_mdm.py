"""How the golden cases of MDM run: the networks, the sampling, and the tokens of texts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import GoldenCase, Outputs, loaded_case
from golden_mdm_numbers import MDMNumbers
from torch import Tensor

from zoo.diffusion import solvers
from zoo.diffusion.denoising import Denoising
from zoo.diffusion.paths import path
from zoo.diffusion.sampling import NamedNoise, generate
from zoo.diffusion.spacing import times
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import RecordedNoise
from zoo.runtime.sampling import Batch, Item
from zoo.runtime.texts import EncodedTexts
from zoo.session import Session
from zoo_mdm.authors import config_from_authors
from zoo_mdm.pieces import PieceTable
from zoo_mdm.tokens import tokenise


class MDMAdapter:
    """The networks and the tokens of the MDM cases; each `component_kind` is a method."""

    def __init__(self, case: GoldenCase, session: Session, **options: Any) -> None:
        self.case, self.session, self.options = case, session, options

    def __call__(self) -> Outputs:
        return getattr(self, self.case.facts["component_kind"])()

    def load(self, image_size: int, sampler: Mapping[str, Any] | None = None) -> LoadedModel:
        facts = self.case.facts["config"]
        config = config_from_authors(facts["unet_config"], facts["lm_dim"], image_size, sampler)
        return loaded_case(self.case, self.session, "mdm", mdm_architecture(config), "apple-mdm", config)

    def forward(self) -> Outputs:
        for run in self.case.facts["call"]["runs"]:
            for name, tensor in self.forward_run(run["inputs"]):
                yield f"{run['name']}.{name}", tensor

    def forward_run(self, inputs: dict[str, Any]) -> Outputs:
        pictures = tuple(self.case.input(name) for name in inputs.get("x_list", [inputs.get("x")]))
        time, features = self.case.input(inputs["times"]), self.case.input(inputs["lm_outputs"])
        micro = {name: self.case.input(value) for name, value in inputs.get("micros", {}).items()}
        model = self.load(pictures[0].shape[-1]).model
        condition = model.read_text(features, self.case.input(inputs.get("lm_mask")), micro=micro)
        predictions = model.predict(pictures, time, condition)
        for index, prediction in enumerate(predictions):
            yield f"out{index}" if "x_list" in inputs else "out", prediction
        yield "cond_emb", condition.vector
        yield "conditioning", condition.features
        yield "time_emb", model.conditions.embed_time(time)
        yield "micro_emb", model.conditions.embed_micro(micro, time)

    def sample(self) -> Outputs:
        for run in self.case.facts["call"]["runs"]:
            for name, tensor in MDMSampling(self, run)():
                yield f"{run['name']}.{name}", tensor

    def schedule(self) -> Outputs:
        for run in self.case.facts["call"]["runs"]:
            for name, tensor in MDMNumbers(self.case, run)():
                yield f"{run['name']}.{name}", tensor

    def tokens(self) -> Outputs:
        path, facts = t5_vocabulary(), self.case.facts["config"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["vocab_sha256"], path
        table, limits = PieceTable.read(path), facts["reader_config"]
        most = limits["max_token_length"], max(0, limits["max_caption_length"])
        for run in self.case.facts["call"]["runs"]:
            batch = tokenise(run["texts"], table, *most)
            yield f"{run['name']}.tokens", batch.ids
            yield f"{run['name']}.mask", batch.valid


class MDMSampling:
    """One run of a sampling case: the picture by the registered sampler, the way there by its parts."""

    def __init__(self, adapter: MDMAdapter, run: dict[str, Any]) -> None:
        self.case, self.asked = adapter.case, run["sample_kwargs"]
        self.inputs, sampler = run["inputs"], run["sampler_config"]
        self.eta = self.asked["ddim_eta"]
        self.start = [self.case.input(name) for name in [self.inputs["x_T"], *self.inputs.get("x_T_low", [])]]
        loaded = adapter.load(self.start[0].shape[-1], sampler)
        self.loaded = replace(loaded, components={**loaded.components, "text_encoder": self.encoder()})
        resampled = self.asked["resample_steps"]
        self.options = {
            "steps": self.asked["num_inference_steps"] if resampled else sampler["num_diffusion_steps"],
            "guidance": float(self.asked["guidance_scale"]),
            "threshold": sampler["threshold_function"].lower(),
            "all_levels": self.asked.get("output_inner", False),
            **({} if self.eta is None else {"eta": float(self.eta)}),
        }

    def encoder(self) -> torch.nn.Module:
        features, valid = (self.case.input(self.inputs[name]) for name in ("lm_outputs", "lm_mask"))
        lengths = torch.full((len(features),), features.shape[1])
        recorded = torch.nn.Module()
        recorded.encode = lambda *_: EncodedTexts(features, valid, lengths)  # type: ignore[assignment]
        return recorded

    def __call__(self) -> Outputs:
        name = "ddpm" if self.eta is None else "ddim"
        batch = Batch(tuple(Item(index, index, prompt="") for index in range(len(self.start[0]))))
        options = self.loaded.options(Request(sampler=name, options=self.options))
        drawn = self.loaded.draw(batch, options, self.noise(), lambda *_: None, name)
        yield "final", torch.stack([picture.pixels for picture in drawn]) * 2.0 - 1.0
        yield from self.steps(batch, options)

    def noise(self) -> RecordedNoise:
        tensors = {f"start.level{level}": value for level, value in enumerate(self.start)}
        for index, name in enumerate(self.inputs.get("step_noise", [])):
            step, level = divmod(index, len(self.start))
            tensors[f"step{step}.level{level}"] = self.case.input(name)
        return RecordedNoise(tensors)

    def steps(self, batch: Batch, options: Any) -> Outputs:
        model, count = self.loaded.model, len(batch)
        levels = model.levels()
        condition = model.condition(batch, self.loaded.components, options.guidance != 1)
        route = path([level.schedule for level in levels], times(levels[0].schedule, options.steps))
        denoise = Denoising(model, levels, route, condition, count, options.guidance, options.threshold)
        made: dict[str, Tensor] = {"timesteps": torch.tensor(route.times[:-1])}

        def on_step(step: int, total: int, preview: solvers.Preview) -> None:
            for level in range(len(levels)):
                made[f"step{step - 1}.x0.res{level}"] = preview.clean(level)
                made[f"step{step - 1}.x_next.res{level}"] = preview.state(level)
            made["final_x0"] = preview.clean()

        noise = NamedNoise(self.noise(), levels, count, torch.device("cpu"))
        with torch.no_grad():
            for level, guess in enumerate(denoise.predicted(noise.start(route), 0)):
                made[f"guided_pred_step0.res{level}"] = guess
        solver = solvers.ddpm if self.eta is None else partial(solvers.ddim, eta=options.eta)
        generate(denoise, route, solver, noise, on_step)
        yield from made.items()


def mdm_architecture(config: Mapping[str, Any]) -> str:
    return "mdm-nested-unet" if "inner" in config else "mdm-unet"


def t5_vocabulary() -> Path:
    """The piece table that the token cases were made with, which is not part of this repository."""
    given = os.environ.get("ZOO_T5_VOCAB")
    path = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data" / "t5.vocab"
    if not path.is_file():
        pytest.skip("needs T5's piece table: give its path in ZOO_T5_VOCAB")
    return path


def mdm_manifest(manifest: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    unet = manifest["config"]
    config = config_from_authors(
        unet,
        unet["conditioning_feature_dim"],
        manifest["image_size"],
        manifest["sampler_and_pipeline_config"]["sampler_config"],
        manifest["reader_config"],
    )
    return mdm_architecture(config), config
