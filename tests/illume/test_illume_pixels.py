"""The pixel branch's parts against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_illume import PIXEL, pictures, randomised, small_tokenizer
from torch import Tensor, nn

from zoo_illume.config import CoderConfig
from zoo_illume.convolutions import Attention, Downsample, SpatialNorm, Upsample
from zoo_illume.pixel import PixelDecoder, PixelEncoder, merged_codes


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def silenced(module: nn.Module, *names: str) -> nn.Module:
    """The module with these convolutions giving nothing."""
    for name in names:
        convolution = module.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    return module.requires_grad_(False)


def test_without_its_convolution_down_sampling_takes_means() -> None:
    x = noise(2, 8, 6, 4)
    assert torch.equal(silenced(Downsample(8), "conv")(x), F.avg_pool2d(x, 2))


def test_without_its_convolution_up_sampling_repeats() -> None:
    x = noise(2, 8, 3, 2)
    expected = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(silenced(Upsample(8), "conv")(x), expected)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_the_spatial_norm_is_its_definition(side: int) -> None:
    norm = randomised(SpatialNorm(8, 4, 5)).requires_grad_(False)
    assert isinstance(norm, SpatialNorm)
    x, codes = noise(2, 8, 3 * side, 2 * side), noise(2, 5, 3, 2)
    spread = F.interpolate(codes, x.shape[-2:], mode="nearest")
    plain = F.group_norm(x, 4, norm.norm.weight, norm.norm.bias, eps=1e-6)
    torch.testing.assert_close(norm(x, codes), plain * norm.scale(spread) + norm.shift(spread))


def test_the_spatial_norm_is_its_definition_in_other_memory_layouts() -> None:
    norm = randomised(SpatialNorm(8, 4, 5)).requires_grad_(False)
    x, codes = noise(2, 8, 6, 4), noise(2, 5, 3, 2)
    last = norm(x.to(memory_format=torch.channels_last), codes)
    torch.testing.assert_close(last, norm(x, codes))


def test_attention_is_its_definition() -> None:
    layer = randomised(Attention(8, 4, 0)).requires_grad_(False)
    assert isinstance(layer, Attention)
    x = noise(2, 8, 3, 5)
    tokens = layer.norm(x).flatten(2).mT
    weights = (layer.q(tokens) @ layer.k(tokens).mT * 8**-0.5).softmax(-1)
    expected = x + layer.out(weights @ layer.v(tokens)).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x, None), expected)


def test_without_its_last_convolution_the_encoder_gives_means_of_channels() -> None:
    config = CoderConfig(
        channels=8, latent=4, multipliers=(1, 2), residual_blocks=1, norm_groups=4, attention_levels=()
    )
    encoder = silenced(randomised(PixelEncoder(config)), "conv_out")
    images = pictures(1, 8, 12)
    made = encoder(images)
    assert made.shape == (1, 4, 4, 6)
    seen: list[Tensor] = []
    encoder.get_submodule("conv_out").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(images)
    torch.testing.assert_close(made[:, 1], seen[0][:, 4:8].mean(dim=1))


def test_the_decoder_starts_from_repeated_latents() -> None:
    config = CoderConfig(
        channels=8, latent=4, multipliers=(1, 2), residual_blocks=0, norm_groups=4, attention_levels=()
    )
    decoder = silenced(randomised(PixelDecoder(config)), "conv_in")
    seen: list[Tensor] = []
    decoder.get_submodule("middle").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    latents = noise(1, 4, 3, 3)
    assert decoder(latents, noise(1, 4, 3, 3)).shape == (1, 3, 6, 6)
    assert torch.equal(seen[0], latents[:, [channel for channel in range(4) for _ in range(4)]])


def test_attention_stands_behind_every_block_of_the_levels_named() -> None:
    config = CoderConfig(
        channels=4, latent=4, multipliers=(1, 1, 1), residual_blocks=2, norm_groups=4, attention_levels=(0, 2)
    )
    encoder, decoder = PixelEncoder(config), PixelDecoder(config)
    assert [len(level.attention) for level in encoder.down] == [2, 0, 2]
    assert [len(level.attention) for level in decoder.up] == [3, 0, 3]
    assert [level.resample is None for level in encoder.down] == [False, False, True]
    assert [level.resample is None for level in decoder.up] == [True, False, False]


def test_semantic_codes_are_merged_first_and_resized_without_antialias() -> None:
    semantic, pixel = noise(2, 3, 4, 4), noise(2, 5, 6, 2)
    merged = merged_codes(semantic.half(), pixel.half())
    assert merged.shape == (2, 8, 6, 2) and merged.dtype == torch.float32
    assert torch.equal(merged[:, 3:], pixel.half().float())
    resized = F.interpolate(semantic.half().float(), (6, 2), mode="bicubic", antialias=False)
    assert torch.equal(merged[:, :3], resized)
    smoothed = F.interpolate(semantic, (6, 2), mode="bicubic", antialias=True)
    assert float((merged[:, :3] - smoothed).abs().max()) > 0.05


def test_without_residual_blocks_an_encoder_keeps_its_width() -> None:
    config = CoderConfig(
        channels=8, latent=4, multipliers=(1, 3), residual_blocks=0, norm_groups=4, attention_levels=()
    )
    encoder = PixelEncoder(config)
    assert encoder.conv_out.in_channels == config.encoded_width == 8
    assert encoder(pictures(1, 8, 12)).shape == (1, 4, 4, 6)


@pytest.mark.parametrize("size", [(16, 16), (48, 32), (16, 80)])
def test_pictures_of_other_sizes(size: tuple[int, int]) -> None:
    tokenizer = small_tokenizer(semantic=None)
    made = tokenizer.encode_pixel(pictures(2, *size))
    grid = (size[0] // 16, size[1] // 16)
    dim = PIXEL["quantiser"]["dim"]
    assert made.encoded.shape == made.features.shape == made.quantised.values.shape == (2, dim, *grid)
    assert made.quantised.indices.shape == (2, *grid)
    codes = tokenizer.pixel_codes(made.quantised.indices)
    assert tokenizer.decode_codes(noise(2, 6, 1, 1), codes).shape == (2, 3, *size)
