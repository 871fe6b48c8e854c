"""Stable Diffusion's UNet as a start, and layers to state and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_layerdiff import BACKBONE, small_network
from small_mdm import inline_toml
from torch import Tensor

from zoo.errors import InvalidInput, WeightsError
from zoo.session import Session
from zoo.store.conversion import convert_file
from zoo_layerdiff.convert import convert

REFERENCE = Path(__file__).with_name("sd_unet.safetensors")

CARD = f"""
schema = 1
method = "small"
title = "Small networks"
summary = "for tests"
tasks = ["text-to-layers"]
default = "backbone"

[variant.backbone]
summary = "nothing is published"
architecture = "layerdiff"
converter = "sd15-unet"
sampler = {{ name = "layerdiff" }}
config = {inline_toml(BACKBONE)}
"""


@pytest.fixture
def unet() -> Mapping[str, Tensor]:
    tensors = load_file(REFERENCE)
    return {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("unet.")}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "small.toml").write_text(CARD, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path / "cards"))
    return Session()


def test_new_parts_start_at_zero_where_they_lead_into_the_backbone(unet: Mapping[str, Tensor]) -> None:
    made, again = convert(unet, BACKBONE), convert(unet, BACKBONE)
    assert all(torch.equal(tensor, again[name]) for name, tensor in made.items())
    zero = {name for name, tensor in made.items() if not tensor.any()}
    blocks = [f"{stage}.attention.0.block.inter_layer.out" for stage in ("down.0", "middle", "up.1")]
    assert {"layer.weight", "text.enhancer.0.gate", *(f"{block}.weight" for block in blocks)} <= zero
    # What they compute is there to learn from: with all of it zero there would be no gradient.
    of_layers = made["middle.attention.0.block.inter_layer.qk.weight"]
    assert float(of_layers.std()) == pytest.approx(of_layers.shape[1] ** -0.5, rel=0.2)
    keys, values = made["text.enhancer.0.kv.weight"].chunk(2)
    assert torch.equal(keys, made["text.enhancer.0.q.weight"])
    inverse = made["text.enhancer.0.out.weight"].float() @ values.float()
    torch.testing.assert_close(inverse, torch.eye(len(values)), atol=2e-3, rtol=0.0)
    assert torch.equal(made["conv_in.weight"][:, :4], unet["conv_in.weight"])
    assert not made["conv_in.weight"][:, 4:].any() and made["conv_in.weight"].shape[1] == 5


def test_a_checkpoint_on_disk_becomes_weights_to_start_from(
    session: Session, unet: Mapping[str, Tensor], tmp_path: Path
) -> None:
    save_file(dict(unet), tmp_path / "unet.safetensors")
    done = convert_file(session, "small", tmp_path / "unet.safetensors", tmp_path / "start.safetensors")
    assert done.converter == "sd15-unet"
    assert set(load_file(tmp_path / "start.safetensors")) == set(convert(unet, BACKBONE))


@pytest.mark.parametrize(
    "lacking", ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight", "conv_out.bias"]
)
def test_an_incomplete_checkpoint_is_refused(
    session: Session, unet: Mapping[str, Tensor], tmp_path: Path, lacking: str
) -> None:
    save_file({name: t for name, t in unet.items() if name != lacking}, tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError):
        convert_file(session, "small", tmp_path / "unet.safetensors", tmp_path / "start.safetensors")
    assert not (tmp_path / "start.safetensors").exists()


class HalvingVAE:
    """Stands for a VAE: latents are the four pixels of every square of the first channel."""

    def encode(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(pictures[:, :1], 2)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.pixel_shuffle(latents, 2).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("mask_channels", [1, 4])
def test_latents_and_masks_of_any_resolution_come_back(mask_channels: int) -> None:
    network = small_network(
        size=8, picture_channels=4, latent_factor=2, latent_scale=0.5, mask_channels=mask_channels
    )
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(2, 3, 1, 16, 16, generator=generator).expand(-1, -1, 3, -1, -1) * 2.0 - 1.0
    masks = torch.rand(2, 3, 16, 16, generator=generator)
    parts = {"vae": HalvingVAE()}
    state = network.encode(grey, masks, parts)
    assert state.shape == (2, 3, 4 + mask_channels, 8, 8)
    torch.testing.assert_close(state[:, :, :4].flatten(2).amax(-1), 0.5 * grey.flatten(2).amax(-1))
    pictures, again = network.decode(state, parts)
    torch.testing.assert_close(pictures, grey)
    assert again.shape == masks.shape
    if mask_channels == 4:
        torch.testing.assert_close(again, masks)
    pooled = network.masks(state)[:, :, 0]
    torch.testing.assert_close(pooled, torch.nn.functional.avg_pool2d(masks, 2))


def test_a_part_that_no_card_names_is_told() -> None:
    network = small_network(size=8, picture_channels=4, latent_factor=2)
    with pytest.raises(InvalidInput, match="needs a vae, and its card names none"):
        network.decode(torch.zeros(1, 2, 5, 8, 8), {})
