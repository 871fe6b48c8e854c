"""Networks: what a prediction depends on, and what it does not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_mdm import INNER, OUTER, randomised, small_nested, small_unet
from torch import Tensor

from zoo.nn.embeddings import sinusoids
from zoo_mdm.config import NestedUNetConfig, UNetConfig
from zoo_mdm.model import Network, build

TIME = torch.tensor([3.0, 700.0])


def pictures(network: Network, rows: int = 2) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return tuple(torch.randn(rows, *level.shape) for level in network.levels())


def texts(rows: int = 2, tokens: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    valid = torch.ones(rows, tokens)
    valid[0, 3:] = 0
    return torch.randn(rows, tokens, 6) * valid[:, :, None], valid


def close(left: tuple[Tensor, ...], right: tuple[Tensor, ...], atol: float = 2e-5) -> bool:
    return all(torch.allclose(a, b, atol=atol, rtol=1e-4) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("make", [small_unet, small_nested])
def test_rows_do_not_depend_on_each_other(make: type) -> None:
    network = make()
    x, (features, valid) = pictures(network), texts()
    together = network(x, TIME, features, valid)
    for row in range(2):
        alone = network(
            tuple(part[row : row + 1] for part in x),
            TIME[row : row + 1],
            features[row : row + 1],
            valid[row : row + 1],
        )
        assert close(alone, tuple(part[row : row + 1] for part in together))


@pytest.mark.parametrize("make", [small_unet, small_nested])
def test_everything_told_counts(make: type) -> None:
    network = make()
    x, (features, valid) = pictures(network), texts()
    usual = network(x, TIME, features, valid)
    others = [
        network(x, TIME + 1, features, valid),
        network(x, TIME, features.roll(1, dims=0), valid),
        network(x, TIME, features, valid.roll(1, dims=0)),
        network(x, TIME, features, valid, {"scale": torch.tensor([2.0, 3.0])}),
    ]
    assert not any(close(usual, other) for other in others)


@pytest.mark.parametrize("make", [small_unet, small_nested])
def test_the_layout_in_memory_changes_nothing(make: type) -> None:
    network = make()
    x, (features, valid) = pictures(network), texts()
    usual = network(x, TIME, features, valid)
    network.to(memory_format=torch.channels_last)
    last = tuple(part.contiguous(memory_format=torch.channels_last) for part in x)
    assert close(network(last, TIME, features, valid), usual)


def test_predict_neither_changes_nor_keeps_what_it_is_given() -> None:
    network = small_nested()
    x, condition = pictures(network), network.read_text(*texts())
    before = [part.clone() for part in x]
    first = network.predict(x, TIME, condition)
    assert all(torch.equal(part, copy) for part, copy in zip(x, before, strict=True))
    kept = [part.clone() for part in first]
    for part in x:
        part.zero_()
    assert all(torch.equal(part, copy) for part, copy in zip(first, kept, strict=True))


@pytest.mark.parametrize("masked", [False, True])
def test_padding_is_attended_only_where_the_model_says_so(masked: bool) -> None:
    network = small_unet(mask_padding=masked)
    x, (features, valid) = pictures(network), texts()
    longer = torch.nn.functional.pad(features, (0, 0, 0, 2)), torch.nn.functional.pad(valid, (0, 2))
    assert close(network(x, TIME, features, valid), network(x, TIME, *longer)) is masked


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_positions_that_a_row_does_not_have_are_as_if_they_were_not_there(masked: bool, layers: int) -> None:
    network = small_nested(inner={**INNER, "mask_padding": masked, "text_layers": layers})
    x, (features, valid) = pictures(network), texts()
    present = torch.arange(8) < 5
    longer = torch.nn.functional.pad(features, (0, 0, 0, 3)), torch.nn.functional.pad(valid, (0, 3))
    condition = network.read_text(*longer, present=present.expand(2, 8))
    assert close(network.predict(x, TIME, condition), network(x, TIME, features, valid))


def test_a_text_without_padding_needs_no_mask() -> None:
    network = small_unet(mask_padding=True)
    x, features = pictures(network), texts()[0]
    assert close(network(x, TIME, features), network(x, TIME, features, torch.ones(2, 5)))


def test_a_model_that_reads_text_asks_for_it() -> None:
    network = small_unet()
    with pytest.raises(ValueError, match="features are missing"):
        network(pictures(network), TIME)


def test_a_model_without_text_needs_none() -> None:
    network = small_nested(inner={**INNER, "text_dim": 0})
    assert not any("text" in name for name, _ in network.named_parameters())
    predictions = network(pictures(network), TIME)
    assert [tuple(part.shape) for part in predictions] == [(2, 3, 16, 16), (2, 3, 8, 8)]


def test_an_outer_level_divides_its_picture_by_its_deviation() -> None:
    normalising, plain = small_nested(normalise_input=True), small_nested(normalise_input=False)
    high, low = pictures(normalising)
    text = texts()
    scaled = (3.0 * high, low)
    assert close(normalising((high, low), TIME, *text), normalising(scaled, TIME, *text))
    assert not close(plain((high, low), TIME, *text), plain(scaled, TIME, *text))
    divided = high / high.std(dim=(1, 2, 3), keepdim=True)
    assert close(normalising((high, low), TIME, *text), plain((divided, low), TIME, *text))


def test_an_outer_level_may_hold_fewer_pictures() -> None:
    network = small_nested()
    (high, low), (features, valid) = pictures(network, 4), texts(4)
    time = torch.tensor([1.0, 20.0, 300.0, 999.0])
    together = network((high, low), time, features, valid)
    fewer = network((high[:2], low), time, features, valid)
    assert close(fewer, (together[0][:2], torch.cat([together[1][:2], fewer[1][2:]])))
    # Rows without an outer picture get nothing from it, so they are those of the inner network alone.
    inner = network.inner
    condition = dataclasses.replace(network.read_text(features, valid), layers=None)
    nothing = torch.zeros(4, inner.config.channels[0], 8, 8)
    layers = network.read_text(features, valid).layers
    alone, _ = inner.run((low,), time, condition, layers.inner, nothing)
    assert close((fewer[1][2:],), (alone[0][2:],))


def test_a_scale_is_clamped_and_other_conditions_count_in_thousandths() -> None:
    network = small_unet(micro_conditions={"scale": 8, "quality": 0.25})
    conditions = network.conditions

    def told(**values: float) -> Tensor:
        return conditions.embed_micro({n: torch.full((2,), v) for n, v in values.items()}, TIME)

    assert torch.equal(told(), told(scale=8.0, quality=0.25))
    assert torch.equal(told(scale=8.0), told(scale=50.0))
    assert not torch.allclose(told(scale=8.0), told(scale=4.0))
    assert not torch.allclose(told(quality=0.25), told(quality=0.5))
    counted = conditions.micro["quality"](sinusoids(torch.full((2,), 250.0), conditions.features))
    of_scale = conditions.micro["scale"](sinusoids(torch.full((2,), 8.0), conditions.features))
    assert torch.allclose(told(), of_scale + counted, atol=1e-6)


def test_a_fresh_network_predicts_zero() -> None:
    network = build(NestedUNetConfig(**OUTER))
    predictions = network(pictures(network), TIME, *texts())
    assert all(torch.equal(part, torch.zeros_like(part)) for part in predictions)


def test_gradients_reach_every_parameter() -> None:
    network = randomised(build(NestedUNetConfig(**OUTER))).requires_grad_(True)
    sum(part.square().sum() for part in network(pictures(network), TIME, *texts())).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_half_precision_stays_close() -> None:
    network = build(UNetConfig(**INNER))
    randomised(network)
    x, (features, valid) = pictures(network), texts()
    exact = network(x, TIME, features, valid)[0]
    network.to(torch.bfloat16)
    half = network((x[0].bfloat16(),), TIME, features.bfloat16(), valid)[0]
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() < 0.05 * exact.norm()
