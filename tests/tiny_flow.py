"""A small random flow for tests, and the card that names it."""

from __future__ import annotations

import torch

from zoo_tarflow.model import TarFlow, TarFlowConfig

CONFIG = {
    "in_channels": 3,
    "img_size": 8,
    "patch_size": 2,
    "channels": 16,
    "num_blocks": 3,
    "layers_per_block": 2,
    "num_classes": 4,
    "head_dim": 8,
}

CARD = """
schema = 1
method = "tiny"
title = "Tiny flow"
summary = "for tests"
tasks = ["class-to-image"]
default = "flow"
[variant.flow]
summary = "random weights"
architecture = "tarflow"
sampler = { name = "tarflow", guidance = 1.0, noise_std = 0.1 }
classes = ["red circle", "red square", "blue circle", "blue square"]
files = [{ role = "model", source = ["tiny.safetensors"], converter = "apple-tarflow" }]
[variant.flow.config]
""" + "\n".join(f"{name} = {value}" for name, value in CONFIG.items())


def random_flow(**changes: object) -> TarFlow:
    """A flow whose every layer does something: nothing is left at its zero initialisation."""
    torch.manual_seed(0)
    flow = TarFlow(TarFlowConfig(**{**CONFIG, **changes}))  # type: ignore[arg-type]
    for block in flow.blocks:
        torch.nn.init.normal_(block.project_out.weight, std=0.05)
        torch.nn.init.normal_(block.project_out.bias, std=0.05)
        torch.nn.init.normal_(block.position, std=0.3)
        if block.class_table is not None:
            torch.nn.init.normal_(block.class_table, std=0.5)
    return flow.eval().requires_grad_(False)
