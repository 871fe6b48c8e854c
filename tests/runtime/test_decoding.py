"""The sampling engine: its rule, the loops, parallel decoding, and what it reports."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_flow import random_flow
from torch import Tensor

from zoo.runtime.decoding import engine, jacobi, plan, sequential
from zoo.runtime.decoding.network import Affine
from zoo.runtime.decoding.sequential import DeviceSteps, bucket_length
from zoo.runtime.reports import Decoding, Work, collecting
from zoo_tarflow.sampler import TarFlowOptions, invert

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MB = 10**6


class Chain:
    """x_{i+1} = z_{i+1} + strength x_i: what a pass gets wrong shrinks or grows by `strength`."""

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.read = 0

    def step(self, token: Tensor, at: object) -> Affine:
        self.read += 1
        return None, self.strength * token

    def span(self, tokens: Tensor, start: int) -> Affine:
        self.read += len(tokens)
        return torch.ones_like(tokens), self.strength * tokens


def latents(tokens: int = 64) -> Tensor:
    return torch.randn(tokens, 2, 3, generator=torch.Generator().manual_seed(1))


def silent(token: int) -> None:
    return None


def exact(chain: Chain) -> Tensor:
    x = latents()
    sequential.decode(chain, x, 0, silent)
    return x


def parallel(chain: Chain, **settings: object) -> tuple[Tensor, jacobi.Outcome]:
    x = latents()
    outcome = jacobi.decode(chain, x, jacobi.Settings(**{"tolerance": 1e-5, **settings}), silent)
    return x, outcome


@pytest.mark.parametrize("window", [0, 1, 8, 30, 100])
def test_jacobi_finds_the_fixed_point(window: int) -> None:
    x, outcome = parallel(Chain(0.3), window=window)
    assert (x - exact(Chain(0.3))).abs().max() < 3e-5
    assert outcome.residual is not None and 0 <= outcome.residual <= 1e-5
    # Where an error takes ten passes to shrink, a window of eight tokens settles less than one a pass.
    assert (outcome.sequential_from is None) == (window not in (1, 8))


def test_jacobi_is_as_deep_as_the_dependence_is_long() -> None:
    # An error of 1 shrinks by 0.3 a pass: 10 passes bring it to 6e-6, one more checks.
    weak, strong = parallel(Chain(0.3))[1], parallel(Chain(0.6))[1]
    assert 9 <= weak.passes <= 14 < strong.passes < 40
    assert parallel(Chain(0.3), tolerance=1e-2)[1].passes < weak.passes
    assert weak.reads < weak.passes * 63


def test_the_tolerance_bounds_the_residual() -> None:
    for tolerance in (1e-2, 1e-4, 1e-6):
        outcome = parallel(Chain(0.5), tolerance=tolerance)[1]
        assert outcome.residual <= tolerance


def test_jacobi_gives_way_where_tokens_settle_too_slowly() -> None:
    chain = Chain(1.0)
    x, outcome = parallel(chain)
    assert outcome.sequential_from is not None and jacobi.PATIENCE <= outcome.sequential_from < 32
    assert torch.allclose(x, exact(Chain(1.0)), atol=1e-4)
    # No more than the loop itself, the passes that were tried, and the check.
    assert outcome.passes <= 63 + 2 * jacobi.PATIENCE + 1
    assert chain.read == outcome.reads


def test_a_limit_of_passes_is_kept() -> None:
    x, outcome = parallel(Chain(0.3), limit=4)
    assert outcome.sequential_from is not None and torch.allclose(x, exact(Chain(0.3)), atol=1e-5)
    assert outcome.passes == 4 + (63 - outcome.sequential_from) + 1


def test_values_that_are_not_numbers_end() -> None:
    x = latents()
    x[5] = math.nan
    outcome = jacobi.decode(Chain(0.3), x, jacobi.Settings(1e-5), silent)
    assert x[5:].isnan().all() and not x[:5].isnan().any()
    assert outcome.passes <= 64 * (1 + jacobi.CHECKS)


def test_a_sequence_of_one_token_is_done() -> None:
    x = latents(1)
    outcome = jacobi.decode(Chain(0.3), x, jacobi.Settings(1e-5), silent)
    assert torch.equal(x, latents(1)) and outcome.residual == 0.0


def run(flow, **options: object) -> tuple[Tensor, Decoding, Work]:
    z = torch.randn(3, 16, 12, generator=torch.Generator().manual_seed(9))
    with collecting() as findings:
        x = invert(flow, z, torch.tensor([0, 1, 3]), TarFlowOptions(**options), lambda *_: None)
    decoding, work = findings
    return x, decoding, work


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_steps_on_the_device_equal_the_loop(guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a CUDA graph captures, run without capturing."""
    flow = random_flow(img_size=16)
    z = torch.randn(2, 64, 12, generator=torch.Generator().manual_seed(9))
    options = TarFlowOptions(guidance=guidance, attention_temperature=0.7)
    labels = torch.tensor([0, 3])
    loop = invert(flow, z, labels, options, lambda *_: None)
    replayed = plan.Plan("rows", 2, torch.float32, torch.float32, graphs=True, keep=False)
    monkeypatch.setattr(engine, "choose", lambda *_, **__: replayed)
    monkeypatch.setattr(engine, "GraphedSteps", DeviceSteps)
    assert torch.allclose(invert(flow, z, labels, options, lambda *_: None), loop, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_graphs_equal_the_loop_on_cuda() -> None:
    flow = random_flow(img_size=16).cuda()
    z = torch.randn(2, 64, 12, generator=torch.Generator().manual_seed(9)).cuda()
    labels = torch.tensor([0, 3]).cuda()
    with collecting() as findings:
        graphed = invert(flow, z, labels, TarFlowOptions(guidance=1.0), lambda *_: None)
    assert findings[0].graphs
    loop = invert(flow.cpu(), z.cpu(), labels.cpu(), TarFlowOptions(guidance=1.0), lambda *_: None)
    assert torch.allclose(graphed.cpu(), loop, atol=1e-4)


def test_buckets_cover_every_reach_with_few_lengths() -> None:
    for tokens in (4, 16, 63, 64, 256, 1000, 1024):
        lengths = [bucket_length(reach, tokens) for reach in range(1, tokens + 1)]
        assert all(length >= reach for reach, length in enumerate(lengths, start=1))
        assert max(lengths) == tokens and len(set(lengths)) <= sequential.BUCKETS
    assert [bucket_length(reach, 1024) for reach in (1, 128, 129, 1024)] == [128, 128, 256, 1024]


def test_a_run_reports_how_it_went() -> None:
    _, decoding, work = run(random_flow(), guidance=1.0, layout="rows")
    assert (decoding.decode, decoding.layout, decoding.dtype, decoding.rows) == (
        "sequential",
        "rows",
        "float32",
        6,
    )
    assert decoding.passes == decoding.tokens == 45 and decoding.residual is None
    assert [block.block for block in decoding.blocks] == [0, 1, 2]
    # 2 layers of products of 12 w^2 weights, w = 16, read 45 times; keys and values beside.
    layers = 2 * 12 * 16**2
    entries = 45 * 6 * 16 * 2 * 17 // 2
    assert work.working_set == 4 * layers and work.bytes == 45 * 4 * layers + 8 * entries
    assert work.flops == 2 * 45 * 6 * layers + 4 * entries


def test_jacobi_reports_iterations_and_agrees() -> None:
    exact, loop, _ = run(random_flow(), guidance=1.0)
    x, decoding, _ = run(random_flow(), guidance=1.0, decode="jacobi")
    assert torch.allclose(x, exact, atol=1e-4)
    assert decoding.passes < loop.passes and 0 <= decoding.residual <= 1e-5


def test_limits_are_for_blocks_in_order() -> None:
    _, decoding, _ = run(random_flow(), decode="jacobi", limit=(1, 100))
    assert [block.sequential_from is None for block in decoding.blocks] == [False, True, True]


def test_nothing_is_collected_outside() -> None:
    with collecting() as outer:
        with collecting() as inner:
            run(random_flow())
        assert outer == [] and inner == []
    run(random_flow())
    assert outer == []


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU with a cache of 32 MB and bfloat16."""
    monkeypatch.setattr(plan, "last_level_cache", lambda: 32 * MB)
    monkeypatch.setattr(plan, "native_bfloat16", lambda: True)
    return monkeypatch


@pytest.mark.parametrize(
    ("rows", "width", "layout"),
    [(1, 128, "transposed"), (2, 256, "transposed"), (16, 256, "packed"), (1, 768, "packed")],
)
def test_small_products_are_transposed_and_others_packed(cpu, rows, width, layout) -> None:
    cpu.setattr(plan, "packs", lambda: True)
    chosen = plan.choose(CPU, rows, torch.float32, 10 * MB, 40 * MB)
    assert chosen.layout_of(torch.nn.Linear(width, width)) == layout
    assert (chosen.cache_dtype, chosen.graphs) == (torch.float32, False)


@pytest.mark.skipif(not plan.can_pack(), reason="this build of torch has no oneDNN")
def test_small_products_stay_in_float32(cpu) -> None:
    cpu.setattr(plan, "packs", lambda: True)
    chosen = plan.choose(CPU, 1, torch.bfloat16, 10 * MB, 40 * MB)
    small, large = (torch.nn.Linear(width, width).bfloat16() for width in (32, 768))
    assert chosen.make(small, None).dtype == torch.float32
    assert chosen.make(large, None).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("rows", "dtype", "block", "layout"),
    [
        (1, torch.float32, 100 * MB, "transposed"),
        (2, torch.float32, 10 * MB, "rows"),
        (2, torch.float32, 100 * MB, "columns"),
        (6, torch.float32, 100 * MB, "columns"),
        (7, torch.float32, 100 * MB, "rows"),
        (1, torch.bfloat16, 100 * MB, "rows"),
        (2, torch.bfloat16, 100 * MB, "rows"),
    ],
)
def test_the_rule_on_a_cpu_without_onednn(cpu, rows, dtype, block, layout) -> None:
    cpu.setattr(plan, "packs", lambda: False)
    assert plan.choose(CPU, rows, dtype, block, 8 * block).layout == layout
    asked = plan.choose(CPU, rows, dtype, block, 8 * block, layout="packed")
    assert asked.layout == "rows"


@pytest.mark.skipif(not plan.can_pack(), reason="this build of torch has no oneDNN")
def test_a_run_reports_every_layout_that_it_took(cpu) -> None:
    cpu.setattr(plan, "packs", lambda: True)
    cpu.setattr(plan, "PACKED_WORK", 6 * 16 * 64)
    flow = random_flow()
    assert run(flow, guidance=1.0, layout="columns")[1].layout == "columns"
    # With 6 rows of width 16 only the feed-forward products, 16 x 64, are large enough.
    assert run(flow, guidance=1.0)[1].layout == "packed+transposed"


def test_half_formats_are_computed_with_only_where_the_cpu_has_them(monkeypatch) -> None:
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(plan, "native_bfloat16", lambda native=native: native)
        assert plan.choose(CPU, 2, torch.bfloat16, MB, MB).dtype == expected
        assert plan.choose(CPU, 2, torch.float16, MB, MB).dtype == torch.float32


def test_the_rule_on_a_gpu() -> None:
    chosen = plan.choose(CUDA, 2, torch.bfloat16, 100 * MB, 800 * MB)
    assert (chosen.layout, chosen.dtype, chosen.graphs) == ("rows", torch.bfloat16, True)
    assert chosen.cache_dtype == torch.bfloat16
    assert not plan.choose(CUDA, 2, torch.bfloat16, MB, MB, parallel=True).graphs
    assert plan.choose(CUDA, 2, torch.bfloat16, MB, MB, layout="packed").layout == "rows"


def test_only_small_models_keep_copies() -> None:
    assert plan.choose(CPU, 2, torch.float32, 10 * MB, 40 * MB).keep
    assert not plan.choose(CPU, 2, torch.float32, 100 * MB, 800 * MB).keep


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "expected a positive number"),
        ({"window": -1}, "expected a number of tokens"),
        ({"limit": (3, 0)}, "at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TarFlowOptions(**options)
