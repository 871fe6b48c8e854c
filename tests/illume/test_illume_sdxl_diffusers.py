"""The decoder against diffusers: its schedulers' steps with its modules, the full size, and memory."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from sdxl_folders import CODES, CONFIG
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.registry import Architecture
from zoo.runtime.loading import build_meta
from zoo.runtime.noise import Noise
from zoo_illume.sdxl import SdxlConfig, SdxlDecoder
from zoo_illume.sdxl_memory import network_bytes, pictures_bytes
from zoo_illume.sdxl_sampling import decode, latents
from zoo_illume.sdxl_schedule import scheduling_from

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'zoo[sdxl]'")

SIZE, SEEDS = (16, 32), [5, 6, 7]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def made() -> SdxlDecoder:
    torch.manual_seed(0)
    return SdxlDecoder(SdxlConfig(**CONFIG)).eval().requires_grad_(False)


def library_latents(
    decoder: SdxlDecoder, scheduler: Any, codes: Tensor, steps: int, guidance: float
) -> Tensor:
    """The pipeline's loop as the authors wrote it, around the library's scheduler."""
    config, rows = decoder.config, len(codes) * (2 if guidance > 1 else 1)
    grid = (SIZE[0] // config.factor, SIZE[1] // config.factor)
    scheduler.set_timesteps(steps)
    state = Noise(SEEDS).normal("decoder.start.level0", (len(codes), 4, *grid)) * scheduler.init_noise_sigma
    seen = torch.nn.functional.interpolate(codes, size=grid)
    if guidance > 1:
        seen = torch.cat([torch.zeros_like(seen), seen])
    numbers = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, config.sizes.index(SIZE)]]).repeat(rows, 1)
    for time in scheduler.timesteps:
        doubled = scheduler.scale_model_input(torch.cat([state] * 2) if guidance > 1 else state, time)
        predicted = decoder.unet(
            torch.cat([doubled, seen], 1),
            time,
            encoder_hidden_states=torch.zeros(rows, 77, config.text_width),
            added_cond_kwargs={"text_embeds": torch.zeros(rows, config.pooled_width), "time_ids": numbers},
            return_dict=False,
        )[0]
        if guidance > 1:
            without, with_codes = predicted.chunk(2)
            predicted = without + guidance * (with_codes - without)
        state = scheduler.step(predicted, time, state, return_dict=False)[0]
    return state


EULER, DDIM, DDPM = "EulerDiscreteScheduler", "DDIMScheduler", "DDPMScheduler"
LEADING, UNCLIPPED = {"timestep_spacing": "leading"}, {"clip_sample": False}


@pytest.mark.parametrize(
    ("name", "settings", "steps", "guidance"),
    [
        (EULER, {**LEADING, "steps_offset": 1}, 5, 2.0),
        (EULER, {**LEADING, "steps_offset": 1}, 8, 1.0),
        (EULER, {**LEADING, "prediction_type": "v_prediction"}, 4, 1.5),
        (EULER, {"timestep_spacing": "trailing"}, 3, 2.0),
        (DDIM, {**UNCLIPPED, "steps_offset": 1, "set_alpha_to_one": False}, 5, 2.0),
        (DDIM, {**UNCLIPPED, "prediction_type": "sample"}, 3, 0.5),
        (DDPM, {**UNCLIPPED, "steps_offset": 1}, 5, 2.0),
        (DDPM, {**UNCLIPPED, "timestep_spacing": "trailing"}, 3, 1.0),
        (DDPM, {**UNCLIPPED, "timestep_spacing": "linspace"}, 4, 1.0),
    ],
)
def test_steps_are_those_of_the_librarys_scheduler(
    monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], steps: int, guidance: float
) -> None:
    decoder, codes, drawn = made(), torch.randn(3, CODES, 2, 4), [0]

    def our_noise(shape: Any, **_: Any) -> Tensor:
        drawn[0] += 1
        return Noise(SEEDS).normal(f"decoder.step{drawn[0] - 1}.level0", tuple(shape))

    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", our_noise)
    scheduler = getattr(diffusers, name)(**BETAS, **settings)
    expected = library_latents(decoder, scheduler, codes, steps, guidance)
    # As the library saves it, with all that it takes where nothing is said.
    decoder.scheduling = scheduling_from({"_class_name": name, **scheduler.config}, "here")
    actual = latents(decoder, codes, SIZE, Noise(SEEDS), steps, guidance)
    assert expected.std() > 0.1
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4)
    pictures = decode(decoder, codes, SIZE, Noise(SEEDS), steps, guidance)
    whole = diffusers.AutoencoderKL(**decoder.config.vae).eval()
    whole.load_state_dict(decoder.vae.state_dict(), strict=False)
    with torch.no_grad():
        decoded = whole.decode(expected / whole.config.scaling_factor, return_dict=False)[0].clamp(-1, 1)
    assert torch.allclose(pictures, decoded, atol=1e-4)


def test_the_defaults_are_stable_diffusion_xl_with_channels_for_codes() -> None:
    module = build_meta(Architecture("illume-sdxl", "illume", SdxlDecoder, SdxlConfig), {})
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in module.named_children()}
    # Stable Diffusion XL's network has 2,567,463,684 parameters, and 320 3x3 kernels read each channel.
    assert counts["unet"] == 2_567_463_684 + 64 * 320 * 9
    # Its autoencoder has 83,653,863, of which 34,163,664 encode.
    assert counts["vae"] == 83_653_863 - 34_163_664
    assert all(tensor.is_meta for tensor in module.state_dict().values())


def test_memory_is_what_a_pass_takes_at_its_peak() -> None:
    unet = {**CONFIG["unet"], "block_out_channels": [16, 32, 64], "attention_head_dim": [2, 4, 8]}
    unet |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]}
    unet |= {"up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}
    unet |= {"layers_per_block": 2, "transformer_layers_per_block": [1, 1, 2]}
    vae = {**CONFIG["vae"], "layers_per_block": 2}
    decoder = SdxlDecoder(SdxlConfig(unet=unet, vae=vae, sizes=((64, 64),))).eval().requires_grad_(False)
    grid = 64 // decoder.config.factor
    condition = decoder.condition(2, (64, 64))
    with torch.no_grad(), Peak() as step:
        decoder.predict(torch.randn(2, 4 + CODES, grid, grid), torch.ones(2), condition)
    told = network_bytes(decoder.config.unet, 2 * grid * grid, torch.float32)
    assert step.bytes < told < 1.3 * step.bytes
    with torch.no_grad(), Peak() as drawing:
        decoder.pictures(torch.randn(1, 4, grid, grid))
    told = pictures_bytes(decoder.config.vae, 64 * 64)
    assert drawing.bytes < told < 1.5 * drawing.bytes


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside; `bytes` is the most at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.held = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(value)._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and _storage(value)._cdata not in given | self.known:
                self._count(_storage(value))
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.held += size
        self.bytes = max(self.bytes, self.held)

        def freed() -> None:
            self.held -= size
            self.known.discard(key)

        weakref.finalize(storage, freed)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
