"""What samplers see: levels, the reading of a batch's prompts, and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_mdm import INNER, OUTER, small_nested, small_text_encoder, small_unet

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.capabilities import Denoiser, MemoryEstimate
from zoo.runtime.loading import build_meta
from zoo.runtime.prepare import sampler_options
from zoo.runtime.sampling import Batch, Item
from zoo.session import Session
from zoo_mdm.model import Network


def batch(*prompts: str | None, negative: str | None = None) -> Batch:
    items = (Item(index, index, prompt, negative=negative) for index, prompt in enumerate(prompts))
    return Batch(tuple(items))


def predicted(
    network: Network, prompts: tuple[str | None, ...], guided: bool = True, negative: str | None = None
) -> Any:
    asked = batch(*prompts, negative=negative)
    condition = network.condition(asked, {"text_encoder": small_text_encoder()}, guided)
    rows = len(prompts) * (2 if guided else 1)
    x = tuple(
        torch.arange(level.shape[1]).remainder(3).expand(rows, *level.shape).float()
        for level in network.levels()
    )
    return network.predict(x, torch.full((rows,), 5.0), condition)


def same(left: Any, right: Any) -> bool:
    return all(torch.allclose(a, b, atol=2e-5, rtol=1e-4) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("make", [small_unet, small_nested])
def test_networks_are_denoisers(make: Any) -> None:
    assert isinstance(make(), Denoiser)
    assert isinstance(make(), MemoryEstimate)


def test_levels_share_time_and_differ_in_noise() -> None:
    outer = {**OUTER, "image_size": 32, "noise_shift": 2, "inner": OUTER}
    levels = small_nested(**outer).levels()
    assert [level.shape for level in levels] == [(3, 32, 32), (3, 16, 16), (3, 8, 8)]
    time = torch.tensor([400])
    ratios = [(alpha / sigma) ** 2 for alpha, sigma in (level.schedule.alpha_sigma(time) for level in levels)]
    assert [float(ratios[-1] / ratio) for ratio in ratios] == pytest.approx([16.0, 4.0, 1.0], rel=1e-4)
    assert {level.signal_scale for level in levels} == {1.0}


def test_without_a_shift_pictures_are_divided_instead() -> None:
    levels = small_nested(noise_shift=None).levels()
    assert [level.signal_scale for level in levels] == [2.0, 1.0]
    assert torch.equal(levels[0].schedule.gammas, levels[1].schedule.gammas)


def test_a_plain_network_may_divide_its_pictures() -> None:
    assert [level.signal_scale for level in small_unet(signal_scale=3.0).levels()] == [3.0]
    assert [level.signal_scale for level in small_unet().levels()] == [1.0]


def test_levels_are_known_without_weights() -> None:
    session = Session()
    card = session.catalogue.cards["mdm"]
    variant = card.variants["flickr1024"]
    network = build_meta(session.architecture(card, variant), variant.config)
    levels = network.levels()
    assert [level.shape[1] for level in levels] == [1024, 256, 64]
    assert all(level.schedule.gammas.device.type == "cpu" for level in levels)
    assert network.prediction == "v"


def test_another_size_is_refused() -> None:
    assert len(small_unet().levels((8, 8))) == 1
    with pytest.raises(InvalidInput, match="makes pictures of 8x8"):
        small_unet().levels((16, 16))


def test_a_guided_batch_is_the_negative_half_and_the_prompts() -> None:
    network = small_unet()
    both = predicted(network, ("a red circle", "a blue square"), negative="a red square")
    swapped = predicted(network, ("a red square", "a red square"), negative="a red circle")
    assert same((both[0][:2],), (swapped[0][2:],))
    plain = predicted(network, ("a red circle", "a blue square"), guided=False)
    assert same((both[0][2:],), plain)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("make", [small_unet, small_nested])
def test_a_sample_does_not_depend_on_the_batch(make: Any, guided: bool) -> None:
    """Also where others are longer, although padding is attended."""
    network = make()
    prompts = ("a", "a red circle a blue square", "a red", None)
    together = predicted(network, prompts, guided)
    for index, prompt in enumerate(prompts):
        alone = predicted(network, (prompt,), guided)
        rows = [index, len(prompts) + index] if guided else [index]
        assert same(alone, tuple(part[rows] for part in together))


def test_each_sample_has_its_own_negative_prompt() -> None:
    network = small_unet()
    items = [Item(0, 0, "a red", negative="a blue circle"), Item(1, 1, "a red circle", negative="blue")]
    together = network.condition(Batch(tuple(items)), {"text_encoder": small_text_encoder()}, True)
    for index, item in enumerate(items):
        alone = network.condition(Batch((item,)), {"text_encoder": small_text_encoder()}, True)
        torch.testing.assert_close(alone.vector, together.vector[[index, 2 + index]])


def test_a_prompt_is_padded_to_its_negative() -> None:
    """The padding is attended, so a longer negative changes what the prompt's own rows become."""
    network = small_unet()
    short, long = (predicted(network, ("a red",), negative=text) for text in ("a", "a red blue circle a"))
    assert not same((short[0][1:],), (long[0][1:],))
    masking = small_unet(mask_padding=True)
    short, long = (predicted(masking, ("a red",), negative=text) for text in ("a", "a red blue circle a"))
    assert same((short[0][1:],), (long[0][1:],))


def test_texts_are_encoded_once() -> None:
    encoder = small_text_encoder()
    encoded = encoder.encode(["", "a red", "", "a red"])
    (ids,) = encoder.encoder.calls
    assert ids.shape == (2, 3)
    assert torch.equal(encoded.features[1], encoded.features[3])
    assert encoded.lengths.tolist() == [2, 3, 2, 3]
    assert not encoded.features[0, 2].any() and encoded.valid[0].tolist() == [1, 1, 0]


def test_limits_of_the_text_are_the_models() -> None:
    network = small_unet(text_tokens=3, text_characters=5)
    encoder = small_text_encoder()
    network.condition(batch("a red circle", "a a a a a"), {"text_encoder": encoder}, guided=False)
    assert encoder.encoder.calls[0].tolist() == [[3, 4, 1], [3, 3, 3]]


def test_a_model_without_its_text_encoder_says_so() -> None:
    with pytest.raises(InvalidInput, match="has no text encoder"):
        small_unet().condition(batch("a"), {}, guided=True)


def test_a_model_without_text_takes_no_prompt() -> None:
    network = small_unet(text_dim=0)
    assert network.condition(batch(None), {}, guided=True).features is None
    with pytest.raises(InvalidInput, match="reads no text"):
        network.condition(batch("a"), {}, guided=True)
    with pytest.raises(InvalidInput, match="reads no text"):
        network.condition(batch(None, negative="a"), {}, guided=True)


def test_memory_is_at_least_what_is_kept_for_the_way_up() -> None:
    network = small_nested(inner={**INNER, "text_tokens": 4})
    kept: list[int] = []
    for level in (network, network.inner):
        for stage in [*level.down]:
            modules = [*stage.blocks, *([stage.resample] if stage.resample else [])]
            for module in modules:
                module.register_forward_hook(lambda _m, _i, out: kept.append(out.numel()))
    predicted(network, ("a red circle",))
    needed = network.sampling_memory(1, torch.float32, torch.device("cpu"))
    assert sum(kept) * 4 < needed < 12 * sum(kept) * 4
    assert network.sampling_memory(3, torch.float32, torch.device("cpu")) == 3 * needed
    assert network.sampling_memory(1, torch.bfloat16, torch.device("cpu")) == needed // 2


def test_the_card_names_a_sampler_that_fits() -> None:
    session = Session()
    card = session.catalogue.cards["mdm"]
    for variant in card.variants.values():
        architecture = session.architecture(card, variant)
        sampler = session.sampler(variant.sampler["name"], card.method)
        assert set(sampler.needs) <= set(architecture.offers)
        guidance = 7.5 if variant.name.startswith("flickr") else variant.sampler["guidance"]
        assert sampler_options(sampler, variant, Request()).guidance == guidance
