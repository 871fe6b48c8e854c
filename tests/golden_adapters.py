"""How each method's golden cases run: through the registered converter, architecture and sampler.

An adapter takes a `GoldenCase` and yields (output name, tensor) for every output that it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from golden_cases import GoldenCase, Outputs, loaded_case
from golden_illume import IllumeAdapter, IllumeCase, illume_manifest
from golden_mdm import MDMAdapter, mdm_manifest
from torch import Tensor

from zoo.io.request import Request
from zoo.nn.products import LAYOUTS
from zoo.runtime.noise import RecordedNoise
from zoo.runtime.sampling import Batch, Item
from zoo.session import Session


class TarFlowAdapter:
    """Operations of the TarFlow cases, as case.json names them; `options` go to the sampler beside theirs."""

    layouts = LAYOUTS

    def __init__(self, case: GoldenCase, session: Session, **options: Any) -> None:
        self.case, self.options = case, options
        self.loaded = loaded_case(case, session, "tarflow", "tarflow", "apple-tarflow")

    def __call__(self) -> Outputs:
        for call in self.case.variants:
            for name, tensor in getattr(self, call["op"])(call):
                yield f"{call['name']}.{name}", tensor

    def patchify(self, call: dict[str, Any]) -> Outputs:
        patches = self.loaded.model.patchify(self.case.input(call["x"]))
        yield "patches", patches
        yield "roundtrip", self.loaded.model.unpatchify(patches)

    def forward(self, call: dict[str, Any]) -> Outputs:
        from zoo_tarflow.recipe import nll

        trace: list[tuple[Tensor, Tensor]] = []
        z, logdet = self.loaded.model(self.case.input(call["x"]), self.case.input(call["y"]), trace)
        yield "z", z
        for index, (output, _) in enumerate(trace):
            yield f"block{index}", output
        yield "block_logdets", torch.stack([change for _, change in trace], dim=1)
        yield "logdet", logdet
        yield "loss", nll(z, logdet).mean()
        yield "nll_per_sample", nll(z, logdet)

    def bpd(self, call: dict[str, Any]) -> Outputs:
        from zoo_tarflow.model import dequantise, nll_per_dim

        images, uniform = self.case.input(call["x_u8"]), self.case.input(call["u"])
        x = dequantise(images, uniform)
        z, logdet = self.loaded.model(x)
        yield "x_dequant", x
        yield "z", z
        yield "logdet", logdet
        yield "nlp_per_dim", nll_per_dim(z, self.loaded.model.config.img_size)
        yield "bpd", self.loaded.bits_per_dim(images, uniform)

    def update_prior(self, call: dict[str, Any]) -> Outputs:
        z, model = self.case.input(call["z"]), self.loaded.model
        before = model.prior_variance.clone()
        for name, latents in (("direct", z), ("train_style", z.square().mean(0, keepdim=True).sqrt())):
            model.prior_variance.copy_(before)
            model.update_prior(latents)
            yield f"var_{name}", model.prior_variance.clone()
        model.prior_variance.copy_(before)

    def reverse(self, call: dict[str, Any]) -> Outputs:
        options = {
            "guidance": call["guidance"],
            "guide": call["guide_what"],
            "attention_temperature": call["attn_temp"],
            "anneal": call["annealed_guidance"],
            "denoise": 0.0,
        }
        states, _ = self._sample(call, options)
        yield "x", states[-1]
        yield "seq0", self.loaded.model.unpatchify(self.case.input(call["noise"]))
        for index, state in enumerate(states, start=1):
            yield f"seq{index}", state

    def pipeline(self, call: dict[str, Any]) -> Outputs:
        options = {
            "guidance": call["cfg"],
            "attention_temperature": call["attn_temp"],
            "anneal": True,
            "denoise": call["self_denoising_lr"],
            "noise_std": call["noise_std"],
        }
        states, pictures = self._sample(call, options)
        yield "raw", states[-1]
        yield "final01", pictures
        labels = self.case.input(call["y"])
        yield "grad", self._loss_gradient(states[-1], labels, len(states[-1]) // 4)

    def denoise_notebook(self, call: dict[str, Any]) -> Outputs:
        from zoo_tarflow.recipe import nll
        from zoo_tarflow.sampler import denoise

        x, labels = self.case.input(call["x"]), self.case.input(call["y"])
        yield "loss", nll(*self.loaded.model(x, labels)).mean()
        yield "grad", self._loss_gradient(x, labels, len(x))
        yield "x", denoise(self.loaded.model, x, labels, call["noise_std"])

    def _loss_gradient(self, x: Tensor, labels: Tensor | None, chunk: int) -> Tensor:
        from zoo_tarflow.sampler import score

        # The authors' loss is a mean over the chunk and over dimensions.
        return -score(self.loaded.model, x, labels) / (chunk * x[0].numel())

    def _sample(self, call: dict[str, Any], options: dict[str, Any]) -> tuple[list[Tensor], Tensor]:
        latents, labels = self.case.input(call["noise"]), self.case.input(call["y"])
        ids = [None] * len(latents) if labels is None else labels.tolist()
        batch = Batch(tuple(Item(index, index, class_id=label) for index, label in enumerate(ids)))
        states: list[Tensor] = []

        def on_step(step: int, total: int, preview: Tensor | None) -> None:
            if preview is not None:
                states.append(preview)

        noise = RecordedNoise({"latents": latents})
        built = self.loaded.options(Request(options={**options, **self.options}))
        artifacts = self.loaded.draw(batch, built, noise, on_step)
        return states, torch.stack([artifact.pixels for artifact in artifacts])


ADAPTERS: dict[str, Callable[..., Callable[[], Outputs]]] = {
    "illume_plus": IllumeAdapter,
    "mdm": MDMAdapter,
    "tarflow": TarFlowAdapter,
}

#: Cases whose files are laid out otherwise than `GoldenCase` reads them, by method.
CASES: dict[str, type[GoldenCase]] = {"illume_plus": IllumeCase}

#: Methods that have another name here than in the golden data.
NAMES = {"illume_plus": "illume"}

#: Converter of an architecture's manifests; the card's variants are matched by configuration.
MANIFEST_CONVERTERS = {
    "dualvitok": "illume-dualvitok",
    "illume-plus": "illume-plus",
    "mdm-nested-unet": "apple-mdm",
    "mdm-unet": "apple-mdm",
    "tarflow": "apple-tarflow",
}

#: (architecture, configuration of ours) of a manifest, by method.
MANIFEST_MODELS: dict[str, Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]] = {
    "illume": illume_manifest,
    "mdm": mdm_manifest,
    "tarflow": lambda manifest: ("tarflow", manifest["config"]),
}


def golden_case(folder: Path) -> GoldenCase:
    """The case in a folder, as its method's cases are read."""
    case = GoldenCase(folder)
    return CASES.get(case.facts["method"], GoldenCase)(folder)
