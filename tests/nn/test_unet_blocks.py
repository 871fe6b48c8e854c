"""Blocks of UNets against their definitions, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.nn.embeddings import EmbeddingMLP, sinusoids
from zoo.nn.residual import Downsample, ResidualBlock, Upsample
from zoo.nn.spatial_attention import SpatialAttention


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for tensor in module.parameters():
        nn.init.normal_(tensor, std=0.3)
    return module.requires_grad_(False)


def test_sinusoids_are_sines_then_cosines_of_falling_frequencies() -> None:
    features = sinusoids(torch.tensor([0, 7]), 6, max_period=1000.0)
    assert features.dtype == torch.float32
    assert features[0].tolist() == [0, 0, 0, 1, 1, 1]
    angles = [7.0, 7.0 / 10.0, 7.0 / 100.0]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    assert features[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_sinusoids_of_an_odd_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width is 5, expected an even number"):
        sinusoids(torch.tensor([1.0]), 5)


def test_an_embedding_is_computed_in_the_dtype_of_its_weights() -> None:
    embed = EmbeddingMLP(4, 8).to(torch.bfloat16)
    assert embed(torch.ones(2, 4)).dtype == torch.bfloat16
    assert embed(torch.ones(2, 4)).shape == (2, 8)


@pytest.mark.parametrize("channels", [8, 12])
def test_a_residual_block_is_scaled_and_shifted_by_its_embedding(channels: int) -> None:
    block = randomised(ResidualBlock(8, channels, embedding=5, groups=4))
    x, embedding = torch.randn(2, 8, 6, 4), torch.randn(2, 5)
    scale, shift = (embedding @ block.modulation.weight.T + block.modulation.bias).split(channels, dim=1)
    hidden = block.conv_in(F.silu(F.group_norm(x, 4, block.norm_in.weight, block.norm_in.bias)))
    hidden = F.group_norm(hidden, 4, block.norm_out.weight, block.norm_out.bias)
    hidden = hidden * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    expected = block.conv_out(F.silu(hidden)) + (x if channels == 8 else block.shortcut(x))
    torch.testing.assert_close(block(x, embedding), expected, atol=1e-5, rtol=1e-5)


def test_a_fresh_residual_block_passes_its_input_on() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResidualBlock(8, 8, 5, 4)(x, torch.randn(2, 5)), x)


def test_resolutions_are_halved_and_doubled() -> None:
    x = torch.randn(2, 3, 6, 8)
    assert Downsample(3)(x).shape == (2, 3, 3, 4)
    up = Upsample(3)
    assert up(x).shape == (2, 3, 12, 16)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x), up.conv(repeated))


def by_definition(
    layer: SpatialAttention, x: torch.Tensor, text: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Loops over samples and heads, two softmaxes added."""
    n, c, h, w = x.shape
    size = c // layer.heads
    positions = F.group_norm(x, 2, layer.norm.weight, layer.norm.bias).flatten(2).transpose(1, 2)
    q, k, v = layer.qkv(positions).split(c, dim=2)
    text_k, text_v = layer.text_kv(layer.text_norm(text)).split(c, dim=2)
    merged = torch.zeros_like(q)
    for i in range(n):
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            here = q[i, :, part] / math.sqrt(size)
            own = (here @ k[i, :, part].T).softmax(-1) @ v[i, :, part]
            seen = mask[i]
            other = (here @ text_k[i, seen, part].T).softmax(-1) @ text_v[i, seen, part]
            merged[i, :, part] = own + other
    x = x + layer.out(merged).transpose(1, 2).reshape(n, c, h, w)
    ff = layer.feedforward
    positions = F.group_norm(x, 2, ff.norm.weight, ff.norm.bias).flatten(2).transpose(1, 2)
    return x + ff.down(F.gelu(ff.up(positions))).transpose(1, 2).reshape(n, c, h, w)


def test_attention_adds_two_softmaxes() -> None:
    layer = randomised(SpatialAttention(12, heads=3, groups=2, text_dim=5, expansion=2))
    x, text = torch.randn(2, 12, 4, 3), torch.randn(2, 6, 5)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    expected = by_definition(layer, x, text, mask)
    result = layer(x, layer.keys_values(text), mask[:, None, None])
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-4)
    unmasked = by_definition(layer, x, text, torch.ones_like(mask))
    torch.testing.assert_close(layer(x, layer.keys_values(text)), unmasked, atol=2e-5, rtol=1e-4)


def test_attention_keeps_the_layout_of_its_input() -> None:
    layer = randomised(SpatialAttention(8, heads=2, groups=2, expansion=2))
    x = torch.randn(2, 8, 4, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(last), layer(x), atol=1e-5, rtol=1e-5)
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous()


def test_attention_without_text_has_no_part_for_it() -> None:
    layer = SpatialAttention(8, heads=2, groups=2)
    assert layer.keys_values(torch.randn(1, 3, 5)) is None
    assert not any("text" in name or "feedforward" in name for name, _ in layer.named_parameters())
    x = torch.randn(1, 8, 2, 2)
    assert torch.equal(layer(x), x)


def test_channels_that_do_not_divide_into_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channels \(10\) must be a multiple of heads \(4\)"):
        SpatialAttention(10, heads=4, groups=2)
