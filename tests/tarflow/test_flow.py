"""The flow itself: invertible, exact, with the Jacobian it claims."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_flow import CONFIG, random_flow

from zoo_tarflow.convert import convert, export
from zoo_tarflow.model import TarFlow, TarFlowConfig
from zoo_tarflow.sampler import TarFlowOptions, denoise, invert, score


def no_report(step: int, total: int, preview: object) -> None:
    return None


def images(count: int = 3, **changes: int) -> torch.Tensor:
    shape = {**CONFIG, **changes}
    side, channels = shape["img_size"], shape["in_channels"]
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_inversion_undoes_the_forward_pass(flow: TarFlow) -> None:
    x, labels = images(), torch.tensor([0, 3, 1])
    z, _ = flow(x, labels)
    back = invert(flow, z, labels, TarFlowOptions(), no_report)
    assert torch.allclose(back, x, atol=1e-5)


@pytest.mark.parametrize("changes", [{"nvp": False}, {"num_classes": 0}, {"patch_size": 4, "in_channels": 1}])
def test_inversion_in_every_form(changes: dict[str, int]) -> None:
    flow = random_flow(**changes)
    x = images(**changes)
    z, logdet = flow(x)
    assert torch.allclose(invert(flow, z, None, TarFlowOptions(), no_report), x, atol=1e-5)
    assert bool(logdet.abs().max() > 1e-4) == flow.config.nvp


def test_log_prob_is_the_change_of_variables(flow: TarFlow) -> None:
    x, labels = images(1).double(), torch.tensor([2])
    flow.double()
    jacobian = torch.autograd.functional.jacobian(
        lambda v: flow(v.view_as(x), labels)[0].flatten(), x.flatten()
    )
    z, _ = flow(x, labels)
    expected = -0.5 * (z.square() + math.log(2 * math.pi)).sum() + torch.linalg.slogdet(jacobian)[1]
    assert torch.allclose(flow.log_prob(x, labels)[0].double(), expected, atol=1e-4)


def test_score_is_the_gradient_of_log_prob(flow: TarFlow) -> None:
    x, labels = images(2), torch.tensor([2, -1])
    gradient = score(flow, x, labels)
    direction, step = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)), 1e-3
    slope = (flow.log_prob(x + step * direction, labels) - flow.log_prob(x - step * direction, labels)) / (
        2 * step
    )
    assert torch.allclose((gradient * direction).sum(dim=(1, 2, 3)), slope, rtol=2e-2, atol=2e-1)


def test_recomputing_activations_changes_nothing(flow: TarFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo_tarflow.sampler as sampler

    x = images(3)
    kept = score(flow, x, None)
    monkeypatch.setattr(sampler, "RECOMPUTE_TOKENS", 1)
    monkeypatch.setattr(sampler, "DENOISE_TOKENS", 16)
    assert torch.allclose(score(flow, x, None), kept, atol=1e-6)


def test_denoising_follows_the_score(flow: TarFlow) -> None:
    x = images(2)
    assert torch.allclose(denoise(flow, x, None, 0.3, 0.5), x + 0.5 * 0.09 * score(flow, x, None))


def test_each_token_depends_on_earlier_ones_only(flow: TarFlow) -> None:
    block, x = flow.blocks[0], flow.patchify(images(1))
    changed = x.clone()
    changed[:, 5] += 1.0
    difference = (block(changed)[0] - block(x)[0]).abs().amax(dim=(0, 2))
    assert difference[:5].max() == 0 and difference[5] > 0.5 and difference[6:].min() > 0


def test_first_token_passes_unchanged(flow: TarFlow) -> None:
    x = flow.patchify(images(1))
    assert torch.equal(flow.blocks[0](x)[0][:, 0], x[:, 0])
    assert torch.equal(flow.blocks[1](x)[0][:, -1], x[:, -1])


def test_a_fresh_flow_is_the_identity() -> None:
    flow = TarFlow(TarFlowConfig(**CONFIG))  # type: ignore[arg-type]
    x = images()
    z, logdet = flow(x, torch.tensor([0, 1, 2]))
    assert torch.equal(flow.unpatchify(z), x) and logdet.abs().max() == 0


def test_negative_label_is_the_mean_class(flow: TarFlow) -> None:
    assert torch.allclose(flow(images(1), torch.tensor([-1]))[0], flow(images(1))[0])
    assert not torch.allclose(flow(images(1), torch.tensor([1]))[0], flow(images(1))[0], atol=1e-3)


def test_converter_round_trip(flow: TarFlow) -> None:
    ours = flow.state_dict()
    theirs = export(ours, CONFIG)
    assert theirs["blocks.0.class_embed"].shape == (4, 1, 16)
    assert theirs["blocks.2.attn_blocks.1.mlp.main.2.weight"].shape == (16, 64)
    back = convert(theirs, CONFIG)
    assert set(back) == set(ours) and all(torch.equal(back[name], ours[name]) for name in ours)


def test_converter_refuses_a_mask_that_is_not_causal(flow: TarFlow) -> None:
    theirs = export(flow.state_dict(), CONFIG)
    theirs["blocks.1.attn_mask"][0, 5] = 1.0
    with pytest.raises(ValueError, match=r"blocks\.1\.attn_mask is not a causal mask"):
        convert(theirs, CONFIG)


@pytest.mark.parametrize("changes", [{"img_size": 9}, {"channels": 20}])
def test_impossible_configurations_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="multiple"):
        TarFlow(TarFlowConfig(**{**CONFIG, **changes}))  # type: ignore[arg-type]


def test_bfloat16_weights_stay_close(flow: TarFlow) -> None:
    x = images()
    exact, _ = flow(x)
    coarse, _ = flow.to(torch.bfloat16)(x)
    assert coarse.dtype == torch.float32
    assert (coarse - exact).abs().max() < 0.05
