"""The authors' names and ours: there and back, at any depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_mdm import INNER, OUTER, randomised
from torch import nn

from zoo.errors import WeightsError
from zoo.runtime.loading import check_tensors
from zoo_mdm.config import inner_config
from zoo_mdm.convert import convert, export
from zoo_mdm.model import build

THREE = {**OUTER, "image_size": 32, "inner": {**OUTER, "micro_conditions": {"quality": 0}}}
HEADS = {**INNER, "text_layers": 2}


def network(config: dict[str, Any]) -> nn.Module:
    return randomised(build(inner_config(config)))


@pytest.mark.parametrize("config", [INNER, OUTER, THREE, HEADS], ids=["one", "two", "three", "text-layers"])
def test_export_and_convert_are_inverses(config: dict[str, Any]) -> None:
    ours = network(config).state_dict()
    theirs = export(ours, config)
    back = convert(theirs, config)
    assert set(back) == set(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    assert not set(theirs) & set(ours) - {name for name in ours if "conv_" in name or "norm_out" in name}


def test_names_and_shapes_are_the_authors() -> None:
    theirs = export(network({**THREE, "inner": {**THREE["inner"], "inner": HEADS}}).state_dict(), THREE)
    prefix = "inner_unet.inner_unet."
    assert theirs[f"{prefix}down_blocks.1.attn.0.qkv.weight"].shape == (96, 32, 1, 1)
    assert theirs[f"{prefix}up_blocks.0.attn.2.ffn.3.weight"].shape == (32, 128, 1, 1)
    assert theirs[f"{prefix}mid_blocks.0.attn.0.kv_cond.weight"].shape == (64, 16)
    assert theirs[f"{prefix}mid_blocks.1.resnets.0.time_layer.weight"].shape == (64, 32)
    assert theirs[f"{prefix}lm_head.1.mlp.main.3.weight"].shape == (16, 64)
    assert theirs["inner_unet.cond_layers.quality.1.weight"].shape == (32, 32)
    assert theirs["inner_unet.in_adapter.weight"].shape == (8, 32, 3, 3)
    assert theirs["up_blocks.0.resample.bias"].shape == (32,)


def test_tensors_of_levels_that_the_configuration_lacks_are_reported() -> None:
    module = network(INNER)
    converted = convert(export(network(OUTER).state_dict(), OUTER), INNER)
    with pytest.raises(WeightsError, match=r"unexpected tensor .*inner_unet\."):
        check_tensors(module, converted, "model.pth")


def test_a_convolution_that_is_not_1x1_is_reported() -> None:
    theirs = export(network(INNER).state_dict(), INNER)
    name = "mid_blocks.0.attn.0.qkv.weight"
    theirs[name] = theirs[name].expand(-1, -1, 3, 3)
    with pytest.raises(WeightsError, match=r"middle\.0\.attention\.0\.qkv\.weight: expected \[96, 32\]"):
        check_tensors(network(INNER), convert(theirs, INNER), "model.pth")
