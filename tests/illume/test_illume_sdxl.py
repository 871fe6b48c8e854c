"""The diffusion decoder without diffusers: sizes, conditioning, guidance, groups, formats and errors."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from small_sdxl import CODES, SCALING, EnlargingVae, small_decoder, some_codes

from zoo.diffusion.schedules import scaled_linear_betas
from zoo.errors import InvalidInput, PluginError
from zoo.registry import Architecture
from zoo.runtime.noise import Noise, RecordedNoise
from zoo_illume import model_config
from zoo_illume.sdxl import SdxlConfig, SdxlDecoder
from zoo_illume.sdxl_sampling import decode, latents
from zoo_illume.sdxl_schedule import Scheduling

ARCHITECTURE = Architecture("illume-sdxl", "illume", SdxlDecoder, SdxlConfig)


def test_sizes_have_the_numbers_that_the_network_knows_them_by() -> None:
    # Upstream's table is of (width, height).
    upstream = [(1024, 1024), (768, 1024), (1024, 768), (512, 2048), (2048, 512), (640, 1920)]
    upstream += [(1920, 640), (768, 1536), (1536, 768), (768, 1152), (1152, 768), (512, 512)]
    numbers = [SdxlConfig().size_number((height, width)) for width, height in upstream]
    assert numbers == list(range(12))


def test_everything_that_the_model_draws_has_twice_its_size_in_the_table() -> None:
    for height, width in model_config.SIZES:
        assert SdxlConfig().drawn_size(height, width) == (2 * height, 2 * width)


def test_another_size_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"does not draw 640x640 \(height x width\)") as refused:
        SdxlConfig().drawn_size(320, 320)
    assert "1024x768, 768x1024" in refused.value.hint
    with pytest.raises(InvalidInput, match="does not draw 32x32"):
        decode(small_decoder(), some_codes(1), (32, 32), Noise([0]))


def test_the_unconditional_half_comes_first_and_sees_no_codes() -> None:
    decoder, codes = small_decoder(), some_codes(2, rows=2)
    decode(decoder, codes, (64, 128), Noise([1, 2]), steps=3)
    assert len(decoder.unet.calls) == 3
    for fed in decoder.unet.calls:
        without, with_codes = fed["sample"][:, 4:].chunk(2)
        assert without.abs().max() == 0
        # Nearest: every code is repeated on 4x4 latents.
        assert torch.equal(with_codes, codes.repeat_interleave(4, 2).repeat_interleave(4, 3))
        assert torch.equal(*fed["sample"][:, :4].chunk(2))
        assert fed["text"].shape == (4, 77, 2048) and fed["text_embeds"].shape == (4, 1280)
        assert fed["text"].abs().max() == 0 and fed["text_embeds"].abs().max() == 0
        assert fed["time_ids"].tolist() == [[0, 0, 0, 0, 0, 1]] * 4
    assert [fed["timestep"].tolist() for fed in decoder.unet.calls] == [[667] * 4, [334] * 4, [1] * 4]


def test_the_noise_is_what_the_network_first_reads() -> None:
    decoder = small_decoder()
    start = torch.randn(1, 4, 8, 8)
    latents(decoder, some_codes(1), (64, 64), RecordedNoise({"decoder.start.level0": start}), steps=2)
    assert torch.equal(decoder.unet.calls[0]["sample"][:1, :4], start)


@pytest.mark.parametrize("guidance", [1.0, 0.5, 0.0])
def test_guidance_of_at_most_1_runs_the_codes_alone(guidance: float) -> None:
    decoder = small_decoder()
    drawn = latents(decoder, some_codes(2), (64, 64), Noise([1, 2]), steps=3, guidance=guidance)
    assert [len(fed["sample"]) for fed in decoder.unet.calls] == [2, 2, 2]
    guided = latents(small_decoder(), some_codes(2), (64, 64), Noise([1, 2]), steps=3, guidance=1.00001)
    assert torch.allclose(drawn, guided, atol=1e-3)
    far = latents(small_decoder(), some_codes(2), (64, 64), Noise([1, 2]), steps=3, guidance=2.0)
    assert (far - drawn).abs().max() > 0.1


def test_a_picture_does_not_depend_on_the_others_of_its_batch() -> None:
    codes, seeds = some_codes(6), [3, 1, 4, 1, 5, 9]
    together = decode(small_decoder(), codes, (64, 64), Noise(seeds), steps=4)
    for row, seed in enumerate(seeds):
        alone = decode(small_decoder(), codes[row : row + 1], (64, 64), Noise([seed]), steps=4)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)
    assert (together[1] - together[3]).abs().max() > 0.01  # The same noise, other codes.


def test_no_more_are_drawn_together_than_have_the_pixels_of_the_largest() -> None:
    decoder, told = small_decoder(), []
    assert [decoder.at_once(size) for size in decoder.config.sizes] == [4, 2, 1]

    def on_step(step: int, total: int, preview: Any) -> None:
        told.append((step, total, preview))

    decode(decoder, some_codes(6), (64, 64), Noise(range(6)), steps=2, on_step=on_step)
    assert [len(fed["sample"]) for fed in decoder.unet.calls] == [8, 8, 4, 4]
    assert told == [(1, 4, None), (2, 4, None), (3, 4, None), (4, 4, None)]
    # The autoencoder takes most memory, and takes them one by one.
    assert [len(given) for given in decoder.vae.given] == [1] * 6


def test_noise_on_the_way_is_each_samples_own() -> None:
    codes = some_codes(5)

    def drawn(first: int, last: int) -> torch.Tensor:
        decoder = small_decoder()
        decoder.scheduling = Scheduling(scaled_linear_betas(1000), "ddpm")
        noise = Noise(range(first, last))
        return latents(decoder, codes[first:last], (64, 64), noise, steps=5)

    together = drawn(0, 5)
    for row in range(5):
        assert torch.allclose(together[row : row + 1], drawn(row, row + 1), atol=1e-5)
    recorded = RecordedNoise({"decoder.start.level0": torch.zeros(1, 4, 8, 8)})
    decoder = small_decoder()
    decoder.scheduling = Scheduling(scaled_linear_betas(1000), "ddpm")
    with pytest.raises(KeyError, match=r"decoder\.step0\.level0"):
        latents(decoder, codes[:1], (64, 64), recorded, steps=2)


def test_the_autoencoder_computes_in_float32_whatever_the_network_does() -> None:
    decoder = small_decoder().to(torch.bfloat16)
    drawn = decode(decoder, some_codes(1), (64, 64), Noise([0]), steps=2)
    assert {fed["sample"].dtype for fed in decoder.unet.calls} == {torch.bfloat16}
    assert drawn.dtype == decoder.vae.given[0].dtype == decoder.vae.gain.dtype == torch.float32
    assert decoder.unet.weight.dtype == decoder.dtype == torch.bfloat16
    exact = decode(small_decoder(), some_codes(1), (64, 64), Noise([0]), steps=2)
    assert (drawn - exact).abs().mean() < 0.02


def test_pictures_are_of_latents_over_the_scaling_and_in_range() -> None:
    decoder = small_decoder()
    drawn = decoder.pictures(torch.tensor([0.1, -0.2, 4.0, 0.0]).view(1, 4, 1, 1).expand(1, 4, 2, 3))
    assert drawn.shape == (1, 3, 16, 24)
    assert torch.allclose(drawn[0, :, 0, 0], torch.tensor([0.1 / SCALING, -0.2 / SCALING, 1.0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"steps": 1000}, "1000 steps that start 1 above the cleanest"),
        ({"steps": 1001}, "steps is 1001"),
        ({"guidance": -0.5}, "guidance is -0.5, expected a number of at least 0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"codes": torch.zeros(1, CODES + 1, 4, 4)}, rf"expected \[n, {CODES}, rows, columns\]"),
        ({"codes": torch.zeros(CODES, 4, 4)}, "codes have shape"),
        ({"codes": torch.zeros(0, CODES, 4, 4)}, "codes have shape"),
        ({"codes": torch.zeros(1, CODES, 2, 4)}, r"codes of 2x4 .* another shape than pictures of 64x64"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_network_runs(
    changes: dict[str, Any], message: str
) -> None:
    decoder = small_decoder()
    arguments = {"codes": some_codes(1), "size": (64, 64), "noise": Noise([0]), **changes}
    with pytest.raises(InvalidInput, match=message):
        decode(decoder, **arguments)
    assert not decoder.unet.calls


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unet": {"in_channels": 4}}, "no channels left for codes"),
        ({"unet": {"addition_time_embed_dim": 512}}, "no width for a text"),
        ({"sizes": [[512, 100]]}, r"sizes holds \[512, 100\], expected multiples of 32"),
        ({"sizes": []}, "sizes is empty"),
        ({"vea": {}}, "has no setting 'vea'"),
    ],
)
def test_a_wrong_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ARCHITECTURE.create(config)


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(PluginError, match="needs the package 'diffusers'") as missing:
        ARCHITECTURE.create({})
    assert "zoo[sdxl]" in missing.value.hint


def test_a_broken_installation_of_diffusers_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "diffusers.py").write_text("import a_package_that_nobody_has\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        ARCHITECTURE.create({})


def test_memory_counts_the_largest_picture_and_not_the_batch() -> None:
    decoder = small_decoder()
    needed = decoder.sampling_memory(1, torch.float32, torch.device("cpu"))
    assert decoder.sampling_memory(64, torch.float32, torch.device("cpu")) == needed
    # Three times 256 channels at the size of the picture, in float32.
    assert 3 * 256 * 128 * 128 * 4 <= needed < 2 * 3 * 256 * 128 * 128 * 4
    weights = sum(tensor.numel() for tensor in EnlargingVae().parameters())
    assert decoder.sampling_memory(1, torch.bfloat16, torch.device("cpu")) == needed + 4 * weights
