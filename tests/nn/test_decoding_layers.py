"""Layers that decode token by token agree with the same layers over the whole sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.nn.decoding import DecodingLayers, Here, OnDevice
from zoo.nn.products import product
from zoo.nn.transformer import TransformerLayer

TOKENS, ROWS, WIDTH = 12, 3, 32


def make(linear: nn.Linear, replaced: object) -> object:
    return product(linear, "rows", torch.float32, keep=False)


@pytest.fixture
def stack() -> list[TransformerLayer]:
    torch.manual_seed(3)
    return [TransformerLayer(WIDTH, 8, 2).requires_grad_(False) for _ in range(2)]


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(ROWS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))


def whole(stack: list[TransformerLayer], hidden: Tensor) -> Tensor:
    for layer in stack:
        hidden = layer(hidden)
    return hidden


def decoding(stack: list[TransformerLayer], **options: object) -> DecodingLayers:
    layers = DecodingLayers(stack, ROWS, TOKENS, make, **options)
    layers.load(stack)
    return layers


@torch.inference_mode()
def test_steps(stack, hidden) -> None:
    layers = decoding(stack)
    steps = [layers.step(hidden[:, i].clone(), Here(i)) for i in range(TOKENS)]
    assert torch.allclose(torch.stack(steps, 1), whole(stack, hidden), atol=1e-5)


@torch.inference_mode()
def test_steps_at_a_position_on_the_device(stack, hidden) -> None:
    layers, index = decoding(stack), torch.zeros(1, dtype=torch.int64)
    results = []
    for i in range(TOKENS):
        # What lies behind the position must not matter: the masked rest of the cache is whatever it was.
        length = TOKENS if i % 2 else i + 1
        results.append(layers.step(hidden[:, i].clone(), OnDevice(index, length)))
        index.add_(1)
    assert torch.allclose(torch.stack(results, 1), whole(stack, hidden), atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [[12], [5, 7], [1, 1, 10], [4, 4, 4]], ids=str)
def test_spans(stack, hidden, cuts) -> None:
    layers, start, parts = decoding(stack), 0, []
    for count in cuts:
        parts.append(layers.span(hidden[:, start : start + count].clone(), start))
        start += count
    assert torch.allclose(torch.cat(parts, 1), whole(stack, hidden), atol=1e-5)


@torch.inference_mode()
def test_steps_after_a_span(stack, hidden) -> None:
    layers = decoding(stack)
    layers.span(hidden[:, :9].clone(), 0)
    tenth = layers.step(hidden[:, 9].clone(), Here(9))
    assert torch.allclose(tenth, whole(stack, hidden)[:, 9], atol=1e-5)


@torch.inference_mode()
def test_a_temperature_for_each_row(stack, hidden) -> None:
    scale = torch.tensor([1.0, 0.5, 2.0])
    layers, alone = decoding(stack, query_scale=scale), decoding(stack, query_scale=0.5)
    several = [layers.step(hidden[:, i].clone(), Here(i)) for i in range(TOKENS)]
    same = [alone.step(hidden[:, i].clone(), Here(i)) for i in range(TOKENS)]
    assert torch.allclose(several[-1][0], whole(stack, hidden)[0, -1], atol=1e-5)
    assert torch.allclose(several[-1][1], same[-1][1], atol=1e-5)
    assert not torch.allclose(several[-1][2], same[-1][2], atol=1e-3)
    spans = decoding(stack, query_scale=scale).span(hidden.clone(), 0)
    assert torch.allclose(spans, torch.stack(several, 1), atol=1e-5)


@torch.inference_mode()
def test_other_weights_take_their_place(stack, hidden) -> None:
    layers = decoding(stack)
    layers.span(hidden.clone(), 0)
    torch.manual_seed(5)
    others = [TransformerLayer(WIDTH, 8, 2).requires_grad_(False) for _ in range(2)]
    layers.load(others)
    assert torch.allclose(layers.span(hidden.clone(), 0), whole(others, hidden), atol=1e-5)
