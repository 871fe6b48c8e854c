"""The quantiser: which code is nearest, what gradients it passes, and what it remembers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo_illume.config import QuantiserConfig
from zoo_illume.simvq import SimVQ


def quantiser(codes: int = 40, dim: int = 6, **changes: Any) -> SimVQ:
    torch.manual_seed(0)
    return SimVQ(QuantiserConfig(codes=codes, dim=dim, **changes))


def features(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_the_nearest_code_of_many_blocks_is_found_and_of_equal_ones_the_lowest() -> None:
    # So many features that codes are searched in several blocks; each code is there three times, far apart.
    module = quantiser(codes=2400, dim=4)
    module.codebook.copy_(module.codebook[:800].repeat(3, 1))
    points = features(33_000, 4)
    found = module.nearest(points)
    assert found.dtype == torch.int64
    assert int(found.max()) < 800
    some = points[::100].double()
    distances = torch.cdist(some, module.implicit_codebook().detach()[:800].double())
    least, chosen = distances.min(dim=1).values, distances.gather(1, found[::100, None])[:, 0]
    torch.testing.assert_close(chosen, least, atol=1e-6, rtol=1e-6)
    assert len(found.unique()) > 300


def test_codes_are_a_linear_map_of_the_frozen_ones() -> None:
    module = quantiser(frozen_dim=9)
    assert module.codebook.shape == (40, 9)
    expected = module.codebook @ module.transform.weight.T
    torch.testing.assert_close(module.implicit_codebook(), expected)
    assert [name for name, _ in module.named_parameters()] == ["transform.weight"]


def test_values_are_codes_and_indices_have_the_shape_of_positions() -> None:
    module = quantiser().requires_grad_(False)
    made = module(features(2, 6, 5, 7))
    assert made.values.shape == (2, 6, 5, 7) and made.indices.shape == (2, 5, 7)
    torch.testing.assert_close(made.values, module.indices_to_codes(made.indices))
    assert module(features(3, 6)).indices.shape == (3,)
    book = module.implicit_codebook()
    assert torch.equal(module.indices_to_codes(made.indices)[1, :, 2, 3], book[made.indices[1, 2, 3]])


def test_codes_of_a_code_are_itself() -> None:
    module = quantiser().requires_grad_(False)
    assert torch.equal(module.nearest(module.implicit_codebook()), torch.arange(40))
    made = module(module.implicit_codebook())
    assert made.commitment < 1e-12


def test_gradients_pass_to_features_as_if_there_were_no_codes() -> None:
    x = features(2, 6, 3, 3).requires_grad_()
    weights = features(2, 6, 3, 3) + 1.0
    (quantiser()(x).values * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_the_commitment_loss_and_who_follows_it() -> None:
    module = quantiser(commitment=2.0, features_share=0.5)
    x = features(2, 6, 3, 3).requires_grad_()
    made = module(x)
    codes = module.indices_to_codes(made.indices).detach()
    mean = (codes - x.detach()).square().mean()
    torch.testing.assert_close(made.commitment.detach(), 2.0 * (mean + 0.5 * mean))
    made.commitment.backward()
    torch.testing.assert_close(x.grad, 2.0 * 0.5 * 2.0 * (x.detach() - codes) / x.numel())
    assert float(module.transform.weight.grad.abs().sum()) > 0.0


def test_codes_are_computed_once_until_a_weight_changes() -> None:
    module = quantiser().requires_grad_(False)
    first = module.implicit_codebook()
    assert module.implicit_codebook() is first
    module.transform.weight.mul_(2.0)
    torch.testing.assert_close(module.implicit_codebook(), 2.0 * first)
    module.codebook.neg_()
    torch.testing.assert_close(module.implicit_codebook(), -2.0 * first)
    module.load_state_dict(quantiser().state_dict(), assign=True)
    torch.testing.assert_close(module.implicit_codebook(), first)
    module.transform.weight.data = module.transform.weight.data * 3.0
    torch.testing.assert_close(module.implicit_codebook(), 3.0 * first)


def test_codes_that_were_kept_can_be_trained_again() -> None:
    module = quantiser().requires_grad_(False)
    with torch.inference_mode():
        kept = module.implicit_codebook()
        assert module.implicit_codebook() is kept
    module.requires_grad_(True)
    x = features(2, 6).requires_grad_()
    module(x).commitment.backward()
    assert module.transform.weight.grad is not None
    module.requires_grad_(False)
    module(x).commitment.backward()
    assert x.grad is not None


@pytest.mark.parametrize("fused", [False, True])
def test_every_step_of_training_is_seen_at_once(fused: bool) -> None:
    """Fused optimisers write into weights without raising their version."""
    module = quantiser().requires_grad_(False)
    module.implicit_codebook()
    optimiser = torch.optim.AdamW(module.requires_grad_(True).parameters(), lr=0.1, fused=fused)
    for _ in range(2):
        module(features(64, 6)).commitment.backward()
        optimiser.step()
        with torch.no_grad():
            expected = module.codebook @ module.transform.weight.T
            torch.testing.assert_close(module.implicit_codebook(), expected)
            assert torch.equal(module.nearest(expected), torch.arange(40))
    module.requires_grad_(False)
    torch.testing.assert_close(module.implicit_codebook(), expected)


def test_arithmetic_is_in_float32_whatever_surrounds_it() -> None:
    module = quantiser().requires_grad_(False)
    x = features(64, 6)
    plain = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = module(x)
    assert torch.equal(plain.values, cast.values) and torch.equal(plain.indices, cast.indices)
    half = module.bfloat16()(x.bfloat16())
    assert half.values.dtype == half.commitment.dtype == module.implicit_codebook().dtype == torch.float32
    codes = module.codebook.float() @ module.transform.weight.float().T
    torch.testing.assert_close(module.implicit_codebook(), codes)


@pytest.mark.parametrize(("index", "words"), [(40, "no code 40"), (-1, "no code -1")])
def test_indices_that_no_code_has_are_refused(index: int, words: str) -> None:
    indices = torch.tensor([[3, 39], [index, 0]])
    with pytest.raises(InvalidInput, match=rf"{words}, expected 0 \.\. 39"):
        quantiser().indices_to_codes(indices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_indices_are_whole_numbers(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInput, match=r"expected whole numbers"):
        quantiser().indices_to_codes(torch.zeros(2, 2, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_indices_of_any_whole_type(dtype: torch.dtype) -> None:
    module, indices = quantiser().requires_grad_(False), torch.tensor([[3, 39]])
    assert torch.equal(module.indices_to_codes(indices.to(dtype)), module.indices_to_codes(indices))


def test_no_indices_are_no_codes() -> None:
    assert quantiser().indices_to_codes(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 6, 3)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"features have shape \[2, 5, 3\], expected \[n, 6, \.\.\.\]"):
        quantiser()(features(2, 5, 3))
