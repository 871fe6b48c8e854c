"""Products in every layout of the weights: the same numbers, and copies that follow the weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.nn import products
from zoo.nn.products import LAYOUTS, RowProduct, can_pack, product

needs_packing = pytest.mark.skipif(not can_pack(), reason="this build of torch has no oneDNN")
EVERY_LAYOUT = [pytest.param(name, marks=needs_packing if name == "packed" else ()) for name in LAYOUTS]


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 80).requires_grad_(False)


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@torch.inference_mode()
def test_every_layout_computes_the_same(linear: nn.Linear, layout: str, rows: int) -> None:
    x, residual = torch.randn(rows, 48), torch.randn(rows, 80)
    exact = F.linear(x.double(), linear.weight.double(), linear.bias.double())
    made = product(linear, layout, torch.float32, keep=False)
    assert torch.allclose(made(x).double(), exact, atol=1e-5)
    assert torch.allclose(made.gelu(x).double(), F.gelu(exact), atol=1e-5)
    assert torch.allclose(made.add(x, residual.clone()).double(), exact + residual, atol=1e-5)


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
@torch.inference_mode()
def test_half_weights_keep_the_residual_exact(linear: nn.Linear, layout: str) -> None:
    x, residual = torch.randn(2, 48), torch.full((2, 80), 1000.0 + 2**-10)
    made = product(linear, layout, torch.bfloat16, keep=False)
    assert made(x).dtype == torch.bfloat16
    added = made.add(x, residual.clone())
    assert added.dtype == torch.float32
    # A residual in bfloat16 would be off by up to 4 at this size.
    assert torch.allclose(added - residual, F.linear(x, linear.weight, linear.bias), atol=0.05)


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
def test_a_kept_copy_follows_its_weights(linear: nn.Linear, layout: str) -> None:
    x = torch.randn(2, 48)
    first = product(linear, layout, torch.float32, keep=True)
    assert product(linear, layout, torch.float32, keep=True) is first
    with torch.no_grad():
        linear.weight.mul_(2.0)
        changed = product(linear, layout, torch.float32, keep=True)
        assert torch.allclose(changed(x), linear(x), atol=1e-5)
        linear.weight = nn.Parameter(torch.ones(80, 48))
        replaced = product(linear, layout, torch.float32, keep=True)
        assert torch.allclose(replaced(x), linear(x), atol=1e-4)


def test_asking_whether_weights_can_be_packed_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    can_pack()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_kept_copies_go_with_their_linear() -> None:
    before = len(products._kept)
    linear = nn.Linear(4, 4).requires_grad_(False)
    product(linear, "transposed", torch.float32, keep=True)
    assert len(products._kept) == before + 1
    del linear
    assert len(products._kept) == before


def test_a_fixed_product_keeps_its_memory(linear: nn.Linear) -> None:
    fixed = RowProduct(linear, torch.float32, fixed=True)
    address, other = fixed.weight.data_ptr(), nn.Linear(48, 80).requires_grad_(False)
    assert address != linear.weight.data_ptr()
    fixed.load(other)
    x = torch.randn(3, 48)
    assert fixed.weight.data_ptr() == address and torch.equal(fixed(x), other(x))


def test_rows_are_no_copy(linear: nn.Linear) -> None:
    assert RowProduct(linear, torch.float32).weight.data_ptr() == linear.weight.data_ptr()
