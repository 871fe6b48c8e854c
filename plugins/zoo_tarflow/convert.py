"""Apple's TarFlow checkpoints: their names and shapes to ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.runtime.keymaps import to_ours, to_theirs

KEYS = (
    ("var", "prior_variance"),
    ("blocks.{i}.pos_embed", "blocks.{i}.position"),
    ("blocks.{i}.class_embed", "blocks.{i}.class_table"),
    ("blocks.{i}.proj_in.{rest}", "blocks.{i}.project_in.{rest}"),
    ("blocks.{i}.proj_out.{rest}", "blocks.{i}.project_out.{rest}"),
    ("blocks.{i}.attn_blocks.{j}.attention.proj.{rest}", "blocks.{i}.layers.{j}.attention.out.{rest}"),
    ("blocks.{i}.attn_blocks.{j}.attention.{rest}", "blocks.{i}.layers.{j}.attention.{rest}"),
    ("blocks.{i}.attn_blocks.{j}.mlp.main.0.{rest}", "blocks.{i}.layers.{j}.feedforward.up.{rest}"),
    ("blocks.{i}.attn_blocks.{j}.mlp.main.2.{rest}", "blocks.{i}.layers.{j}.feedforward.down.{rest}"),
    ("blocks.{i}.attn_blocks.{j}.mlp.norm.{rest}", "blocks.{i}.layers.{j}.feedforward.norm.{rest}"),
)


def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of the authors' `Model` to ours.

    Their per-block `attn_mask` buffer is dropped after a check that it is the causal mask, which our
    attention has by construction; their class tables [classes, 1, width] lose the middle dimension.
    """
    kept = {}
    for name, tensor in tensors.items():
        if name.endswith(".attn_mask"):
            _check_causal(name, tensor)
        else:
            kept[name] = tensor.squeeze(1) if name.endswith(".class_embed") else tensor
    return to_ours(kept, KEYS)


def export(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict to one that the authors' `Model` loads strictly."""
    theirs = to_theirs(tensors, KEYS)
    tokens = (config["img_size"] // config["patch_size"]) ** 2
    for block in range(config["num_blocks"]):
        name = f"blocks.{block}.class_embed"
        if name in theirs:
            theirs[name] = theirs[name].unsqueeze(1)
        theirs[f"blocks.{block}.attn_mask"] = torch.ones(tokens, tokens).tril()
    return theirs


def _check_causal(name: str, mask: Tensor) -> None:
    if mask.is_meta:
        return
    if (
        mask.dim() != 2
        or mask.shape[0] != mask.shape[1]
        or not torch.equal(mask, torch.ones_like(mask).tril())
    ):
        raise ValueError(f"{name} is not a causal mask, which is all that TarFlow uses")
