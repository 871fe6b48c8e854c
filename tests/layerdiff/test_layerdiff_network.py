"""What holds of the network: the backbone is Stable Diffusion's, and layers see each other as they should."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_layerdiff import BACKBONE, CONFIG, random_prompts, small_network
from torch import Tensor

from zoo.diffusion.schedules import log_ratio
from zoo.session import Session
from zoo_layerdiff.config import LayerDiffConfig
from zoo_layerdiff.convert import convert
from zoo_layerdiff.exchange import filled
from zoo_layerdiff.model import LayerDiff
from zoo_layerdiff.prompts import PromptEnhancer, PromptFeatures

#: A small random UNet2DConditionModel of diffusers 0.42.1, with its inputs and output.
REFERENCE = Path(__file__).with_name("sd_unet.safetensors")


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Tensor]:
    return load_file(REFERENCE)


def backbone(reference: Mapping[str, Tensor], **changes: Any) -> LayerDiff:
    config = {**BACKBONE, **changes}
    theirs = {name[5:]: tensor.float() for name, tensor in reference.items() if name.startswith("unet.")}
    network = LayerDiff(LayerDiffConfig(**config)).eval().requires_grad_(False)
    network.load_state_dict(convert(theirs, config))
    return network


def test_every_layer_of_a_widened_backbone_is_what_stable_diffusion_computes(
    reference: Mapping[str, Tensor],
) -> None:
    network = backbone(reference, global_attention=True)
    generator = torch.Generator().manual_seed(2)
    masks, other_text = (
        torch.randn(6, 1, 8, 8, generator=generator),
        torch.randn(2, 3, 12, generator=generator),
    )
    x = torch.cat([reference["x"], masks], dim=1).unflatten(0, (2, 3))
    prompts = PromptFeatures(other_text, reference["text"].unflatten(0, (2, 3)))
    for picture in range(2):
        rows = slice(3 * picture, 3 * picture + 3)
        for row in range(6)[rows]:
            # A picture has one time, the reference one for each row.
            time = reference["t"][row : row + 1].expand(2)
            made = network(x, time, network.read_prompts(prompts)).flatten(0, 1)
            torch.testing.assert_close(made[row, :4], reference["y"][row], atol=2e-6, rtol=1e-5)
            assert not made[row, 4].any()


@pytest.mark.parametrize("exchange", ["column", "joint"])
def test_without_collaboration_a_picture_is_its_layers_one_by_one(
    reference: Mapping[str, Tensor], exchange: str
) -> None:
    network = backbone(reference, exchange=[exchange, exchange])
    x = torch.randn(2, 3, 5, 8, 8, generator=torch.Generator().manual_seed(3))
    prompts = random_prompts(2, 3, 12)
    together = network(x, torch.tensor([10, 400]), network.read_prompts(prompts))
    assert prompts.own_valid is not None and prompts.shared_valid is not None
    alone = PromptFeatures(
        prompts.shared.repeat_interleave(3, 0),
        prompts.own.flatten(0, 1)[:, None],
        prompts.shared_valid.repeat_interleave(3, 0),
        prompts.own_valid.flatten(0, 1)[:, None],
    )
    times = torch.tensor([10, 10, 10, 400, 400, 400])
    apart = network(x.flatten(0, 1)[:, None], times, network.read_prompts(alone))
    assert torch.equal(together.flatten(0, 1), apart[:, 0])


@pytest.mark.parametrize("exchange", ["column", "joint"])
def test_without_layer_embeddings_permuted_foregrounds_give_permuted_predictions(exchange: str) -> None:
    order = [0, 3, 1, 2]
    moved = {}
    for embedded in (False, True):
        network = small_network(layer_embeddings=embedded, exchange=["none", exchange])
        x = torch.randn(2, 4, 4, 32, 32, generator=torch.Generator().manual_seed(4))
        time, prompts = torch.tensor([900, 30]), random_prompts(2, 4, CONFIG["text_dim"])
        straight = network(x, time, network.read_prompts(prompts))
        assert prompts.own_valid is not None
        turned = PromptFeatures(
            prompts.shared, prompts.own[:, order], prompts.shared_valid, prompts.own_valid[:, order]
        )
        permuted = network(x[:, order], time, network.read_prompts(turned))
        moved[embedded] = float((permuted - straight[:, order]).abs().max() / straight.abs().max())
    assert moved[False] < 1e-5
    assert moved[True] > 1e-2


@pytest.mark.parametrize("exchange", ["column", "joint"])
def test_pictures_of_two_three_and_four_layers_in_one_batch_are_what_they_are_alone(exchange: str) -> None:
    network = small_network(exchange=["none", exchange], global_attention=True)
    counts = torch.tensor([2, 3, 4])
    x = torch.randn(3, 4, 4, 32, 32, generator=torch.Generator().manual_seed(5))
    time = torch.tensor([999, 500, 3])
    prompts = random_prompts(3, 4, CONFIG["text_dim"], filled(counts, 4))
    together = network(x, time, network.read_prompts(prompts))
    assert prompts.own_valid is not None and prompts.shared_valid is not None
    for row, count in enumerate(counts.tolist()):
        one = PromptFeatures(
            prompts.shared[row : row + 1],
            prompts.own[row : row + 1, :count],
            prompts.shared_valid[row : row + 1],
            prompts.own_valid[row : row + 1, :count],
        )
        alone = network(x[row : row + 1, :count], time[row : row + 1], network.read_prompts(one))
        torch.testing.assert_close(together[row : row + 1, :count], alone, atol=2e-5, rtol=1e-4)


def test_layers_see_each_other_unless_they_are_kept_from_it() -> None:
    network = small_network()
    x = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(6))
    other = x.clone()
    other[:, 2] += 1.0
    time, prompts = torch.tensor([700]), random_prompts(1, 3, CONFIG["text_dim"])
    change = {}
    for exchange in (True, False):
        condition = network.read_prompts(prompts, exchange)
        change[exchange] = (network(x, time, condition) - network(other, time, condition))[:, :2].abs().max()
    assert change[True] > 1e-3
    assert change[False] == 0.0


def test_the_enhancer_brings_the_global_prompt_to_every_layer() -> None:
    network = small_network()
    x = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(7))
    prompts = random_prompts(1, 3, CONFIG["text_dim"])
    other = PromptFeatures(prompts.shared + 1.0, prompts.own, prompts.shared_valid, prompts.own_valid)
    time = torch.tensor([700])
    difference = network(x, time, network.read_prompts(prompts)) - network(
        x, time, network.read_prompts(other)
    )
    assert (difference.abs().amax(dim=(0, 2, 3, 4)) > 1e-3).all()
    for enhancer in network.text.enhancer:
        enhancer.gate.zero_()
    same = network(x, time, network.read_prompts(prompts)) - network(x, time, network.read_prompts(other))
    assert not same.any()


def test_a_fresh_enhancer_takes_from_the_global_prompt_what_stands_at_the_same_words() -> None:
    torch.manual_seed(8)
    enhancer = PromptEnhancer(24, 4, gate=1.0).requires_grad_(False)
    shared = torch.randn(2, 7, 24)
    enhancer.down.weight.zero_()
    enhancer.down.bias.zero_()
    words = torch.tensor([5, 0, 3])
    taken = enhancer(shared[:, words], shared, None) - shared[:, words]
    expected = torch.nn.functional.layer_norm(shared, (24,))
    alike = torch.einsum("nac,nbc->nab", taken, expected)
    assert torch.equal(alike.argmax(-1), words.expand(2, 3))
    closed = PromptEnhancer(24, 4, gate=0.0).requires_grad_(False)
    assert torch.equal(closed(shared[:, words], shared, None), shared[:, words])


def test_attention_knows_where_it_is_if_positions_are_told() -> None:
    for told in (False, True):
        network = small_network(positions=told)
        places = [attention.places for attention in network._attention()]
        assert all((place is not None) == told for place in places)
        for place in filter(lambda place: place is not None, places):
            assert len(place.unique(dim=0)) == len(place)


def test_more_noise_divides_the_signal_to_noise_ratio_of_every_time() -> None:
    plain, noisy = (small_network(noise_shift=shift).level().schedule for shift in (1.0, 16.0))
    times = torch.tensor([1.0, 250.5, 1000.0])
    expected = log_ratio(plain, times) - 0.5 * math.log(16.0)
    torch.testing.assert_close(log_ratio(noisy, times), expected, rtol=1e-5, atol=0.0)


def test_the_backbone_of_the_card_has_the_shapes_of_stable_diffusion() -> None:
    session = Session()
    _, variant = session.resolve("layerdiff:sd15")
    with torch.device("meta"):
        network = LayerDiff(LayerDiffConfig(**variant.config))
    own = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.startswith(("text.", "layer.")) and ".inter_layer." not in name
    )
    widened = network.config.mask_channels * (2 * 320 * 9 + 1)
    # Stable Diffusion 1.5's UNet has 859,520,964 parameters.
    assert own - widened == 859_520_964
    assert sum(parameter.numel() for parameter in network.parameters()) == variant.params


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attention": [True]}, "attention has 1 entries, channels has 2"),
        ({"exchange": ["none", "rows"]}, "exchange holds 'rows', expected: none, column, joint"),
        ({"heads": 3}, "a width of 8 must be a multiple of heads"),
        ({"size": 30}, r"size \(30\) must be a multiple of 4"),
        ({"mask_channels": 2}, "must be a square number"),
        ({"most_layers": 1}, "must be at least 2"),
        ({"prediction": "x0"}, "expected epsilon or v"),
        ({"schedule": "sqrt"}, "scaled-linear-betas"),
    ],
)
def test_a_configuration_that_cannot_be_built_says_why(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LayerDiffConfig(**{**CONFIG, **changes})
