"""Apple's MDM checkpoints: their names and shapes to ours, and back, at any depth of nesting."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from zoo.runtime.keymaps import KeyMap, to_ours, to_theirs

_BLOCKS = (
    ("resnets.{j}.norm1.{rest}", "blocks.{j}.norm_in.{rest}"),
    ("resnets.{j}.conv1.{rest}", "blocks.{j}.conv_in.{rest}"),
    ("resnets.{j}.time_layer.{rest}", "blocks.{j}.modulation.{rest}"),
    ("resnets.{j}.norm2.{rest}", "blocks.{j}.norm_out.{rest}"),
    ("resnets.{j}.conv2.{rest}", "blocks.{j}.conv_out.{rest}"),
    ("resnets.{j}.conv3.{rest}", "blocks.{j}.shortcut.{rest}"),
    ("attn.{j}.norm_cond.{rest}", "attention.{j}.text_norm.{rest}"),
    ("attn.{j}.kv_cond.{rest}", "attention.{j}.text_kv.{rest}"),
    ("attn.{j}.proj_out.{rest}", "attention.{j}.out.{rest}"),
    ("attn.{j}.ffn.0.{rest}", "attention.{j}.feedforward.norm.{rest}"),
    ("attn.{j}.ffn.1.{rest}", "attention.{j}.feedforward.up.{rest}"),
    ("attn.{j}.ffn.3.{rest}", "attention.{j}.feedforward.down.{rest}"),
    ("attn.{j}.{rest}", "attention.{j}.{rest}"),
    ("resample.{rest}", "resample.conv.{rest}"),
)
_LEVEL = (
    ("temb_layer1.{rest}", "conditions.time.first.{rest}"),
    ("temb_layer2.{rest}", "conditions.time.second.{rest}"),
    ("in_adapter.{rest}", "to_inner.{rest}"),
    ("out_adapter.{rest}", "from_inner.{rest}"),
    ("cond_emb.{rest}", "text.embedding.{rest}"),
    ("lm_proj.{rest}", "text.projection.{rest}"),
    ("lm_head.{i}.attn.norm.{rest}", "text.layers.{i}.norm.{rest}"),
    ("lm_head.{i}.attn.qkv.{rest}", "text.layers.{i}.qkv.{rest}"),
    ("lm_head.{i}.attn.proj_out.{rest}", "text.layers.{i}.out.{rest}"),
    ("lm_head.{i}.mlp.main.0.{rest}", "text.layers.{i}.feedforward_norm.{rest}"),
    ("lm_head.{i}.mlp.main.1.{rest}", "text.layers.{i}.up.{rest}"),
    ("lm_head.{i}.mlp.main.3.{rest}", "text.layers.{i}.down.{rest}"),
)
#: One level's names, but for those of its micro-conditions.
KEYS = _LEVEL + tuple(
    (f"{theirs}_blocks.{{i}}.{their_part}", f"{ours}.{{i}}.{our_part}")
    for theirs, ours in (("down", "down"), ("mid", "middle"), ("up", "up"))
    for their_part, our_part in _BLOCKS
)

#: Weights of 1x1 convolutions, which are linear layers here.
_LINEAR = re.compile(r".*\.attention\.\d+\.(qkv|out|feedforward\.up|feedforward\.down)\.weight")

_THEIR_PREFIX, _OUR_PREFIX = "inner_unet.", "inner."


def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of the authors' `UNet` or `NestedUNet` to ours."""
    ours = _by_level(tensors, config, to_ours, _THEIR_PREFIX, _OUR_PREFIX)
    return {name: tensor[:, :, 0, 0] if _is_1x1(name, tensor) else tensor for name, tensor in ours.items()}


def export(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict to one that the authors' model loads strictly."""
    shaped = {
        name: tensor[:, :, None, None] if _LINEAR.fullmatch(name) else tensor
        for name, tensor in tensors.items()
    }
    return _by_level(shaped, config, to_theirs, _OUR_PREFIX, _THEIR_PREFIX)


def _is_1x1(name: str, tensor: Tensor) -> bool:
    return _LINEAR.fullmatch(name) is not None and tensor.shape[2:] == (1, 1)


def _by_level(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    rename: Callable[[Mapping[str, Tensor], KeyMap], dict[str, Tensor]],
    prefix: str,
    new_prefix: str,
) -> dict[str, Tensor]:
    """Rename each level's tensors by its own table; those of levels that `config` lacks stay as they are."""
    result: dict[str, Tensor] = {}
    remaining, depth = dict(tensors), 0
    for level in _levels(config):
        deeper = {name[len(prefix) :]: t for name, t in remaining.items() if name.startswith(prefix)}
        here = {name: t for name, t in remaining.items() if not name.startswith(prefix)}
        renamed = rename(here, (*_micro_condition_names(level), *KEYS))
        result |= {new_prefix * depth + name: tensor for name, tensor in renamed.items()}
        remaining, depth = deeper, depth + 1
    return result | {prefix * depth + name: tensor for name, tensor in remaining.items()}


def _levels(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    while True:
        yield config
        if "inner" not in config:
            return
        config = config["inner"]


def _micro_condition_names(level: Mapping[str, Any]) -> KeyMap:
    return [
        (f"cond_layers.{name}.{index}.{{rest}}", f"conditions.micro.{name}.{part}.{{rest}}")
        for name in level.get("micro_conditions", {})
        for index, part in enumerate(("first", "second"))
    ]
