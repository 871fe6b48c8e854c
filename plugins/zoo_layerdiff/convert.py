"""Stable Diffusion 1.5's UNet as the backbone to start from: its names to ours, widened for masks.

The file is `unet/diffusion_pytorch_model.safetensors`, under the names of diffusers' `UNet2DConditionModel`.
What the backbone lacks (inter-layer attention, enhancer, layer vectors, mask channels) is made here, such
that the result computes what the backbone does for every layer: whatever leads back into it is zero, and the
rest are random numbers that depend on the tensor's name alone, so that there is a gradient to learn from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.runtime.keymaps import to_ours
from zoo.runtime.noise import generator
from zoo_layerdiff.config import LayerDiffConfig
from zoo_layerdiff.model import LayerDiff
from zoo_layerdiff.prompts import PromptPathway

_STAGE = (
    ("resnets.{j}.norm1.{rest}", "blocks.{j}.norm_in.{rest}"),
    ("resnets.{j}.conv1.{rest}", "blocks.{j}.conv_in.{rest}"),
    ("resnets.{j}.time_emb_proj.{rest}", "blocks.{j}.shift.{rest}"),
    ("resnets.{j}.norm2.{rest}", "blocks.{j}.norm_out.{rest}"),
    ("resnets.{j}.conv2.{rest}", "blocks.{j}.conv_out.{rest}"),
    ("resnets.{j}.conv_shortcut.{rest}", "blocks.{j}.shortcut.{rest}"),
    ("attentions.{j}.norm.{rest}", "attention.{j}.norm.{rest}"),
    ("attentions.{j}.proj_in.{rest}", "attention.{j}.conv_in.{rest}"),
    ("attentions.{j}.proj_out.{rest}", "attention.{j}.conv_out.{rest}"),
    ("attentions.{j}.transformer_blocks.0.norm1.{rest}", "attention.{j}.block.self_norm.{rest}"),
    ("attentions.{j}.transformer_blocks.0.attn1.to_out.0.{rest}", "attention.{j}.block.self_out.{rest}"),
    ("attentions.{j}.transformer_blocks.0.attn1.to_{rest}", "attention.{j}.block.self_{rest}"),
    ("attentions.{j}.transformer_blocks.0.norm2.{rest}", "attention.{j}.block.intra_layer.norm.{rest}"),
    (
        "attentions.{j}.transformer_blocks.0.attn2.to_out.0.{rest}",
        "attention.{j}.block.intra_layer.out.{rest}",
    ),
    ("attentions.{j}.transformer_blocks.0.attn2.to_{rest}", "attention.{j}.block.intra_layer.{rest}"),
    ("attentions.{j}.transformer_blocks.0.norm3.{rest}", "attention.{j}.block.feedforward_norm.{rest}"),
    ("attentions.{j}.transformer_blocks.0.ff.net.0.proj.{rest}", "attention.{j}.block.up.{rest}"),
    ("attentions.{j}.transformer_blocks.0.ff.net.2.{rest}", "attention.{j}.block.down.{rest}"),
    ("downsamplers.0.conv.{rest}", "resample.conv.{rest}"),
    ("upsamplers.0.conv.{rest}", "resample.conv.{rest}"),
)

#: diffusers' names and ours, before queries, keys and values are joined.
KEYS = (
    ("time_embedding.linear_1.{rest}", "time.first.{rest}"),
    ("time_embedding.linear_2.{rest}", "time.second.{rest}"),
    ("conv_norm_out.{rest}", "norm_out.{rest}"),
    *((f"mid_block.{theirs}", f"middle.{ours}") for theirs, ours in _STAGE),
    *((f"down_blocks.{{i}}.{theirs}", f"down.{{i}}.{ours}") for theirs, ours in _STAGE),
    *((f"up_blocks.{{i}}.{theirs}", f"up.{{i}}.{ours}") for theirs, ours in _STAGE),
)

#: Tensors that are joined along their first dimension, in this order.
_JOINED = (
    ("self_qkv", ("self_q", "self_k", "self_v")),
    ("intra_layer.kv", ("intra_layer.k", "intra_layer.v")),
)

#: What leads from the new parts into the backbone.
_ZERO = re.compile(r"layer\.weight|.*\.(inter_layer|global_text)\.out\.(weight|bias)|.*\.places")


def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The UNet's tensors and those of the new parts; `config` is the card's."""
    ours = _joined(to_ours(tensors, KEYS))
    if "time.first.weight" in ours:
        # Their time features are cosines, then sines.
        ours["time.first.weight"] = ours["time.first.weight"].roll(ours["time.first.weight"].shape[1] // 2, 1)
    settings = LayerDiffConfig(**config)
    with torch.device("meta"):
        wanted = LayerDiff(settings).state_dict()
    like = next(iter(ours.values()), torch.empty(0)).dtype
    made = _fresh_pathway(settings)
    for name, tensor in wanted.items():
        if name not in ours and _is_new(name):
            ours[name] = (made[name] if name in made else _fresh(name, tensor.shape)).to(like)
    for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias"):
        if name in ours:
            ours[name] = _widened(ours[name], wanted[name].shape)
    return ours


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one tensor each; incomplete ones stay as they are, to be reported."""
    result = dict(tensors)
    for whole, parts in _JOINED:
        for name in tensors:
            if name.endswith(f".{parts[0]}.weight"):
                stem = name.removesuffix(f"{parts[0]}.weight")
                names = [f"{stem}{part}.weight" for part in parts]
                if all(part in tensors for part in names):
                    result[f"{stem}{whole}.weight"] = torch.cat([result.pop(part) for part in names])
    return result


def _is_new(name: str) -> bool:
    return (
        name == "layer.weight"
        or name.startswith("text.")
        or ".inter_layer." in name
        or ".global_text." in name
        or name.endswith(".places")
    )


def _fresh_pathway(config: LayerDiffConfig) -> dict[str, Tensor]:
    """The text side as a new network has it, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator("layerdiff", "text").initial_seed()))
        pathway = PromptPathway(config)
    return {f"text.{name}": tensor for name, tensor in pathway.state_dict().items()}


def _fresh(name: str, shape: torch.Size) -> Tensor:
    if _ZERO.fullmatch(name) or name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    fan_in = shape[1:].numel()
    return torch.randn(shape, generator=generator("layerdiff", name)) * fan_in**-0.5


def _widened(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The tensor in the corner of zeros; one that is already as large stays."""
    if (
        tensor.shape == shape
        or len(shape) != tensor.dim()
        or any(a > b for a, b in zip(tensor.shape, shape, strict=True))
    ):
        return tensor
    wide = tensor.new_zeros(shape)
    wide[tuple(slice(side) for side in tensor.shape)] = tensor
    return wide
