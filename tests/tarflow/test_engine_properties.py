"""The sampling engine equals the straightforward form on models drawn at random; what its loop may cost."""

from __future__ import annotations

import importlib.util
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_flow import random_flow
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo_tarflow.model import TarFlow
from zoo_tarflow.sampler import TarFlowOptions, invert

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "straightforward.py"
SPEC = importlib.util.spec_from_file_location("straightforward", SOURCE)
straightforward = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(straightforward)

LAYOUTS = ("auto", "rows", "transposed", "columns", "packed")
CLASSES = 5


# Equality


@dataclass(frozen=True)
class Drawn:
    """A model, a batch and options, drawn at random."""

    seed: int
    config: dict[str, object]
    batch: int
    labels: str  #: "none", "all", or "some": the others are -1, no class
    prior: bool  #: whether the prior's variance is not 1
    options: TarFlowOptions

    def __str__(self) -> str:
        c, o = self.config, self.options
        tokens = (c["img_size"] // c["patch_size"]) ** 2
        kind = f"{'nvp' if c['nvp'] else 'vp'}-{self.labels}-labels"
        size = f"{self.batch}x{tokens}-width{c['channels']}-{c['num_blocks']}x{c['layers_per_block']}"
        guide = f"{o.guide or 'off'}{o.guidance}-t{o.attention_temperature}{'-anneal' * o.anneal}"
        return f"{self.seed}-{o.layout}-{size}-{kind}-{guide}"

    def flow(self) -> TarFlow:
        flow = random_flow(**self.config)
        # Less than in other tests: long sequences and many blocks would move pictures far from noise.
        for block in flow.blocks:
            block.project_out.weight.mul_(2.0 / block.project_out.in_features**0.5)
        if self.prior:
            flow.prior_variance.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(self.seed))
        return flow

    def inputs(self, flow: TarFlow) -> tuple[torch.Tensor, torch.Tensor | None]:
        generator = torch.Generator().manual_seed(self.seed)
        latents = torch.randn(self.batch, *flow.latent_shape, generator=generator)
        if self.labels == "none":
            return latents, None
        labels = torch.randint(CLASSES, (self.batch,), generator=generator)
        if self.labels == "some":
            labels[::2] = -1
        return latents, labels


def drawn(seed: int) -> Drawn:
    choose = random.Random(seed)
    patch, head_dim = choose.choice((1, 2, 4)), choose.choice((4, 8, 16))
    classes = choose.choice((0, CLASSES))
    config = {
        "in_channels": choose.choice((1, 3)),
        "patch_size": patch,
        "img_size": patch * choose.randint(2, 8),
        "head_dim": head_dim,
        "channels": head_dim * choose.randint(1, 4),
        "num_blocks": choose.randint(1, 4),
        "layers_per_block": choose.randint(1, 3),
        "mlp_expansion": choose.choice((2, 4)),
        "nvp": choose.random() < 0.75,
        "num_classes": classes,
    }
    options = TarFlowOptions(
        guidance=choose.choice((0.0, 0.6, 1.0, 2.3)),
        guide=choose.choice(("ab", "ab", "a", "b", "")),
        anneal=choose.random() < 0.5,
        attention_temperature=choose.choice((0.6, 1.0, 1.7)),
        layout=LAYOUTS[seed % len(LAYOUTS)],
    )
    labels = choose.choice(("all", "some", "none")) if classes else "none"
    return Drawn(seed, config, choose.randint(1, 9), labels, choose.random() < 0.5, options)


@pytest.mark.parametrize("case", [drawn(seed) for seed in range(30)], ids=str)
def test_drawn_models_agree_with_the_straightforward_form(case: Drawn) -> None:
    flow = case.flow()
    latents, labels = case.inputs(flow)
    expected = straightforward.invert(flow, latents, labels, case.options)
    assert expected.abs().max() < 30, "the random weights are too wild for an absolute tolerance"
    images = invert(flow, latents, labels, case.options, lambda *_: None)
    assert images.dtype == torch.float32
    assert torch.allclose(images, expected, atol=1e-4, rtol=0)


def test_the_draw_covers_what_it_should() -> None:
    cases = [drawn(seed) for seed in range(30)]
    assert {case.options.layout for case in cases} == set(LAYOUTS)
    assert {case.options.guide for case in cases if case.options.guidance} == {"ab", "a", "b", ""}
    assert {case.labels for case in cases} == {"none", "all", "some"}
    assert {case.batch for case in cases} == set(range(1, 10))
    for name, values in (("nvp", {True, False}), ("num_classes", {0, CLASSES})):
        assert {case.config[name] for case in cases} == values
    assert {case.options.anneal for case in cases} == {case.prior for case in cases} == {True, False}


# Cost

SHORT, LONG = 16, 64  #: tokens of two runs whose difference is the cost of the loop
BLOCKS = 2

#: So many pictures that what counts as large is larger than any weights: those may be laid out anew.
PICTURES = 32

#: Products of matrices and attention, whatever their variant and namespace.
PRODUCTS = {
    "addmm",
    "mm",
    "bmm",
    "baddbmm",
    "addbmm",
    "mv",
    "addmv",
    "linear",
    "mkldnn_linear",
    "_linear_pointwise",
    "_mkl_linear",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
}
#: Each makes the host wait for the device, or hides such a wait.
WAITS = {"item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"}


class Ledger(TorchDispatchMode):
    """Counts the operations of a run by name, and the new tensors of at least `large` numbers they return."""

    def __init__(self, large: int) -> None:
        super().__init__()
        self.large = large
        self.calls: Counter[str] = Counter()
        self.large_tensors: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:
            # Without gradients composite operations come as they are; what they are made of counts.
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        given = {storage(tensor) for tensor in tensors((args, kwargs))}
        fresh = [tensor for tensor in tensors(result) if storage(tensor) not in given]
        self.large_tensors[name] += sum(tensor.numel() >= self.large for tensor in fresh)
        return result

    def total(self, names: set[str]) -> int:
        return sum(self.calls[name] for name in names)


def tensors(tree: object) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def storage(tensor: torch.Tensor) -> int:
    """Which memory a tensor lies in; tensors in a packed layout share theirs with none."""
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage()._cdata


def ledger(tokens: int, options: TarFlowOptions, batch: int, sampler: str = "engine") -> Ledger:
    """What a run of a small flow costs; tensors are large from half a layer's keys on."""
    flow = random_flow(img_size=2 * math.isqrt(tokens), num_blocks=BLOCKS)
    latents = torch.randn(batch, *flow.latent_shape, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(batch) % flow.config.num_classes
    rows = batch * (2 if options.guidance else 1)
    with Ledger(rows * tokens * flow.config.channels // 2) as counted:
        if sampler == "engine":
            invert(flow, latents, labels, options, lambda *_: None)
        else:
            straightforward.invert(flow, latents, labels, options)
    return counted


def products_per_token(options: TarFlowOptions, batch: int, sampler: str = "engine") -> float:
    """Products for one token of one block: what the long run has beyond the short one."""
    short, long = (ledger(tokens, options, batch, sampler).total(PRODUCTS) for tokens in (SHORT, LONG))
    return (long - short) / (BLOCKS * (LONG - SHORT))


every_layout = pytest.mark.parametrize("layout", LAYOUTS)
both_guidances = pytest.mark.parametrize("guidance", [0.0, 1.5], ids=["unguided", "guided"])


@every_layout
@both_guidances
def test_tokens_cost_no_copy_of_a_cache_and_no_wait(layout: str, guidance: float) -> None:
    options = TarFlowOptions(guidance=guidance, layout=layout)
    short, long = (ledger(tokens, options, PICTURES) for tokens in (SHORT, LONG))
    assert long.total(PRODUCTS) > short.total(PRODUCTS) > 0
    assert short.total(WAITS) == long.total(WAITS) == 0
    assert short.calls["cat"] == long.calls["cat"]
    assert short.large_tensors == long.large_tensors


@every_layout
@pytest.mark.parametrize("batch", [1, 4])
def test_a_guided_token_takes_one_pass_of_the_network(layout: str, batch: int) -> None:
    guided = products_per_token(TarFlowOptions(guidance=1.5, layout=layout), batch)
    unguided = products_per_token(TarFlowOptions(layout=layout), batch)
    assert 0 < guided <= unguided + 1


def test_the_ledger_sees_what_the_straightforward_form_does() -> None:
    guided, unguided = TarFlowOptions(guidance=1.5), TarFlowOptions()
    short, long = (ledger(tokens, unguided, PICTURES, "straightforward") for tokens in (SHORT, LONG))
    assert long.calls["cat"] > short.calls["cat"] > 0
    assert long.large_tensors["cat"] > short.large_tensors["cat"] > 0
    # Four products and attention in each of two layers, one product into the width and one out of it.
    assert products_per_token(unguided, 2, "straightforward") == 12
    assert products_per_token(guided, 2, "straightforward") == 24
