"""The sampling benchmark's baseline is right: golden cases, the sampler, and a form without any cache."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_adapters import GoldenCase, loaded_case
from tiny_flow import random_flow

from zoo.session import Session
from zoo_tarflow.model import FlowBlock, TarFlow
from zoo_tarflow.sampler import TarFlowOptions, invert

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("straightforward", ROOT / "benchmarks" / "straightforward.py")
straightforward = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(straightforward)

LABELS = torch.tensor([0, 1, 3])
GUIDES = [
    TarFlowOptions(),
    TarFlowOptions(guidance=1.5, anneal=False),
    TarFlowOptions(guidance=1.5, guide="a"),
    TarFlowOptions(guidance=1.5, guide="b", attention_temperature=0.5),
    TarFlowOptions(guidance=0.7, attention_temperature=1.6),
    TarFlowOptions(guidance=3.0, guide=""),
]


def named(options: TarFlowOptions) -> str:
    anneal = "annealed" if options.anneal else "constant"
    return f"{options.guide or 'off'}-{options.guidance}-{anneal}-{options.attention_temperature}"


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


def sampling_calls() -> list[tuple[Path, dict[str, Any]]]:
    folders = sorted(path.parent for path in (ROOT / "tests" / "golden" / "tarflow").rglob("case.json"))
    return [(f, call) for f in folders for call in GoldenCase(f).variants if call["op"] == "reverse"]


@pytest.mark.parametrize(
    ("folder", "call"),
    sampling_calls(),
    ids=lambda value: value["name"] if isinstance(value, dict) else value.name,
)
def test_golden_cases_of_sampling(folder: Path, call: dict[str, Any]) -> None:
    case = GoldenCase(folder)
    model = loaded_case(case, Session(), "tarflow", "tarflow", "apple-tarflow").model
    options = TarFlowOptions(
        guidance=call["guidance"],
        guide=call["guide_what"],
        anneal=call["annealed_guidance"],
        attention_temperature=call["attn_temp"],
    )
    images = straightforward.invert(model, case.input(call["noise"]), case.input(call["y"]), options)
    last = f"seq{model.config.num_blocks}" if call["record_sequence"] else "x"
    expected, atol, rtol = case.expected(f"{call['name']}.{last}")
    assert torch.allclose(images, expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("labels", [LABELS, torch.tensor([2, -1, -1]), None], ids=["all", "some", "none"])
@pytest.mark.parametrize("options", GUIDES, ids=named)
def test_agrees_with_the_sampler(options: TarFlowOptions, labels: torch.Tensor | None) -> None:
    flow, latents = random_flow(), normal(3, 16, 12)
    before = latents.clone()
    images = straightforward.invert(flow, latents, labels, options)
    assert torch.equal(latents, before)
    sampled = invert(flow, latents, labels, options, lambda *_: None)
    assert torch.allclose(images, sampled, atol=1e-4)


def tempered(flow: TarFlow, temperature: float) -> TarFlow:
    """A copy whose queries are divided by the temperature, so that its ordinary forward pass has it."""
    changed = copy.deepcopy(flow)
    for block in changed.blocks:
        for layer in block.layers:
            width = layer.attention.qkv.in_features
            layer.attention.qkv.weight[:width] /= temperature
            layer.attention.qkv.bias[:width] /= temperature
    return changed


def read_again(block: FlowBlock, x: torch.Tensor, labels: torch.Tensor | None) -> list[torch.Tensor]:
    """(alpha, mu) after the last token of x [n, t, features], from a pass over all of them."""
    position = block.in_order(block.position, 0)[: x.shape[1]]
    hidden = block.project_in(x) + position
    vector = block.class_vector(labels)
    if vector is not None:
        hidden = hidden + vector[:, None]
    for layer in block.layers:
        hidden = layer(hidden)
    projected = block.project_out(hidden[:, -1])
    return list(projected.chunk(2, -1)) if block.nvp else [torch.zeros_like(projected), projected]


def without_cache(
    flow: TarFlow, latents: torch.Tensor, labels: torch.Tensor | None, o: TarFlowOptions
) -> torch.Tensor:
    """Whole prefixes are read again for every token, by the modules' own forward passes."""
    x = latents * flow.prior_variance.sqrt()
    null = tempered(flow, o.attention_temperature)
    for block, null_block in zip(reversed(flow.blocks), reversed(null.blocks), strict=True):
        x = block.in_order(x).clone()
        last = x.shape[1] - 1
        for i in range(last):
            weight = o.guidance * ((i + 1) / last if o.anneal else 1.0)
            values = read_again(block, x[:, : i + 1], labels)
            nulls = read_again(null_block, x[:, : i + 1], None)
            alpha, mu = (
                value + (weight if name in o.guide else 0.0) * (value - other)
                for name, value, other in zip("ab", values, nulls, strict=True)
            )
            x[:, i + 1] = x[:, i + 1] * alpha.exp() + mu
        x = block.in_order(x)
    return flow.unpatchify(x)


@pytest.mark.parametrize(
    "changes", [{}, {"nvp": False, "num_classes": 0}], ids=["classes", "volume-preserving"]
)
@pytest.mark.parametrize("options", GUIDES, ids=named)
def test_agrees_with_a_form_without_caches(options: TarFlowOptions, changes: dict[str, Any]) -> None:
    flow, latents = random_flow(**changes), normal(3, 16, 12)
    flow.prior_variance.copy_(0.5 + normal(16, 12).abs())
    labels = LABELS if flow.config.num_classes else None
    images = straightforward.invert(flow, latents, labels, options)
    assert torch.allclose(images, without_cache(flow, latents, labels, options), atol=1e-4)


def test_under_autocast_it_stays_close_and_in_float32() -> None:
    flow, latents, options = random_flow(), normal(3, 16, 12), GUIDES[1]
    exact = straightforward.invert(flow, latents, LABELS, options)
    with torch.autocast("cpu", torch.bfloat16):
        rough = straightforward.invert(flow, latents, LABELS, options)
    assert rough.dtype == torch.float32
    error = (rough - exact).square().mean().sqrt() / exact.std()
    assert 1e-4 < error < 0.05
