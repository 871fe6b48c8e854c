"""The authors' names and ours: there and back, and where in a file they may stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_illume import CONFIG, small_tokenizer

from zoo.errors import WeightsError
from zoo.runtime.loading import check_tensors, read_tensors
from zoo_illume.convert import convert, export


@pytest.mark.parametrize("missing", ["", "semantic", "pixel"])
def test_export_and_convert_are_inverses(missing: str) -> None:
    config: dict[str, Any] = {name: part for name, part in CONFIG.items() if name != missing}
    ours = small_tokenizer(**dict.fromkeys([missing] if missing else [])).state_dict()
    theirs = export(ours, config)
    assert not set(theirs) & set(ours)
    back = convert(theirs, config)
    assert set(back) == set(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_names_and_shapes_are_the_authors() -> None:
    theirs = export(small_tokenizer().state_dict(), CONFIG)
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    assert shapes["semantic_encoder.model.patch_embed.proj.weight"] == (16, 3, 2, 14, 14)
    assert shapes["semantic_encoder.model.merger.mlp.2.weight"] == (24, 64)
    assert shapes["semantic_encoder.proj_in.weight"] == (64, 24, 1, 1)
    assert shapes["semantic_decoder.proj_in.weight"] == (64, 6)
    assert shapes["semantic_decoder.proj_out.1.weight"] == (24,)
    assert shapes["pixel_quantizer.frozen_codebook"] == (70, 4)
    assert shapes["pixel_encoder.down.4.attn.0.norm.weight"] == (32,)
    assert shapes["pixel_decoder.up.4.attn.1.norm.conv_y.weight"] == (80, 10, 1, 1)
    assert shapes["pixel_decoder.up.4.attn.1.q.weight"] == (80, 80, 1, 1)
    assert shapes["pixel_decoder.mid.block_2.norm2.norm_layer.bias"] == (80,)
    assert shapes["pixel_decoder.up.3.block.0.nin_shortcut.weight"] == (40, 80, 1, 1)
    assert shapes["pixel_post_quant_conv.weight"] == (10, 10, 1, 1)


def test_a_convolution_that_is_not_1x1_is_reported() -> None:
    tokenizer = small_tokenizer()
    theirs = export(tokenizer.state_dict(), CONFIG)
    name = "semantic_encoder.proj_in.weight"
    theirs[name] = theirs[name].expand(-1, -1, 3, 3)
    with pytest.raises(WeightsError, match=r"semantic\.encoder\.proj_in\.weight: expected \[64, 24\]"):
        check_tensors(tokenizer, convert(theirs, CONFIG), "pytorch_model.bin")


def test_tensors_that_the_tokenizer_lacks_are_reported_by_the_authors_names() -> None:
    tokenizer = small_tokenizer()
    theirs = export(tokenizer.state_dict(), CONFIG)
    theirs["pixel_encoder.gate.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"unexpected tensor pixel_encoder\.gate\.weight"):
        check_tensors(tokenizer, convert(theirs, CONFIG), "pytorch_model.bin")


@pytest.mark.parametrize("entry", ["model", "state_dict", ""])
def test_a_checkpoint_holds_its_tensors_at_top_level_or_in_an_entry(entry: str, tmp_path: Path) -> None:
    tokenizer, path = small_tokenizer(), tmp_path / "pytorch_model.bin"
    theirs = export(tokenizer.state_dict(), CONFIG)
    torch.save({entry: theirs, "step": 3} if entry else theirs, path)
    ours = convert(read_tensors(path), CONFIG)
    check_tensors(tokenizer, ours, path.name)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in tokenizer.state_dict().items())


def test_averaged_weights_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    theirs = export(small_tokenizer().state_dict(), CONFIG)
    averaged = {name: tensor + 1.0 for name, tensor in theirs.items()}
    torch.save({"state_dict": theirs, "ema": averaged}, path)
    name = "pixel_quant_conv.bias"
    assert torch.equal(read_tensors(path)[name], theirs[name])
    assert torch.equal(read_tensors(path, "ema")[name], averaged[name])
