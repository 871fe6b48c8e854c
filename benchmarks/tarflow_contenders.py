"""Who runs in `tarflow_sampling.py`: random weights of named sizes, and samplers from noise to pictures."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import straightforward
import torch
from torch import Tensor, nn

from zoo_tarflow.convert import export
from zoo_tarflow.model import TarFlow, TarFlowConfig
from zoo_tarflow.sampler import TarFlowOptions, invert

SIZES = {
    "small": TarFlowConfig(3, 32, 4, channels=256, num_blocks=4, layers_per_block=4, num_classes=10),
    "medium": TarFlowConfig(3, 64, 4, channels=512, num_blocks=8, layers_per_block=4, num_classes=10),
    "large": TarFlowConfig(3, 64, 8, channels=768, num_blocks=2, layers_per_block=8, num_classes=3),
    "afhq": TarFlowConfig(3, 256, 8, channels=768, num_blocks=8, layers_per_block=8, num_classes=3),
}

#: Standard deviation of the output projection times the root of the width. At three times as much pictures of
#: deep models overflow: a patch that moves far moves all patches after it further.
OUTPUT_SCALE = 0.1

#: (latents, labels, options) -> images
Sampler = Callable[[Tensor, Tensor | None, TarFlowOptions], Tensor]


def random_flow(config: TarFlowConfig, seed: int) -> TarFlow:
    """Random weights of which every layer does something; noise becomes pictures of ordinary size."""
    torch.manual_seed(seed)
    flow = TarFlow(config)
    for block in flow.blocks:
        for tensor in block.project_out.parameters():
            nn.init.normal_(tensor, std=OUTPUT_SCALE / math.sqrt(config.channels))
        nn.init.normal_(block.position, std=0.3)
        nn.init.normal_(block.class_table, std=0.5)
    return flow.eval().requires_grad_(False)


def straightforward_sampler(flow: TarFlow) -> Sampler:
    """The baseline beside this script, on the same tensors."""
    with torch.device("meta"):
        twin = TarFlow(flow.config)
    # Its parameters ask for gradients, which nobody takes: autocast keeps what it has cast of such only.
    twin.load_state_dict(flow.state_dict(), assign=True)
    return partial(straightforward.invert, twin.eval())


def reference_module(folder: Path) -> ModuleType:
    """The authors' transformer_flow.py in a checkout of apple/ml-tarflow."""
    path = folder / "transformer_flow.py"
    if not path.is_file():
        raise SystemExit(
            f"--reference: {folder} has no transformer_flow.py, expected a checkout of ml-tarflow"
        )
    spec = importlib.util.spec_from_file_location("transformer_flow", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference_sampler(module: ModuleType, flow: TarFlow) -> Sampler:
    """The authors' `Model.reverse` on our weights."""
    c = flow.config
    settings = asdict(c)
    # Theirs knows one width of heads and one expansion.
    if (settings.pop("head_dim"), settings.pop("mlp_expansion")) != (64, 4):
        raise SystemExit("--reference: the authors' model has heads of 64 and an expansion of 4")
    theirs = module.Model(**settings)
    theirs.load_state_dict(export(flow.state_dict(), asdict(c)), assign=True)
    theirs = theirs.to(flow.prior_variance.device).eval()

    @torch.no_grad()
    def sample(latents: Tensor, labels: Tensor | None, o: TarFlowOptions) -> Tensor:
        return theirs.reverse(
            latents.clone(), labels, o.guidance, o.guide, o.attention_temperature, annealed_guidance=o.anneal
        )

    return sample


def ours(flow: TarFlow) -> Sampler:
    """zoo's sampler without anybody who watches."""
    return lambda latents, labels, options: invert(flow, latents, labels, options, lambda *_: None)


def under_autocast(sampler: Sampler, device: torch.device) -> Sampler:
    """The sampler with products in bfloat16, as the authors sample."""

    def sample(latents: Tensor, labels: Tensor | None, options: TarFlowOptions) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return sampler(latents, labels, options)

    return sample


class Model:
    """One size's random weights, as each side holds them."""

    def __init__(
        self, name: str, blocks: int, seed: int, device: torch.device, reference: ModuleType | None
    ) -> None:
        flow = random_flow(replace(SIZES[name], num_blocks=blocks), seed).to(device)
        self.flows = {"float32": flow}
        self.baseline = reference_sampler(reference, flow) if reference else straightforward_sampler(flow)

    def flow(self, dtype: str) -> TarFlow:
        """The weights in a number format."""
        if dtype not in self.flows:
            self.flows[dtype] = copy.deepcopy(self.flows["float32"]).to(getattr(torch, dtype))
        return self.flows[dtype]
