"""A small diffusion decoder around modules that need no diffusers, for tests."""

from __future__ import annotations

from typing import Any

import torch
from golden_illume_sdxl import ScriptedUnet
from torch import Tensor, nn

from zoo_illume.sdxl import SdxlConfig, SdxlDecoder

#: (height, width) of what it draws; four of the first, or two of the second, have the pixels of the last.
SIZES = ((64, 64), (64, 128), (128, 128))
CODES = 3
SCALING = 0.5


class EnlargingVae(nn.Module):
    """An autoencoder whose decoder enlarges three channels; it keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.given: list[Tensor] = []

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        self.given.append(latents)
        return (nn.functional.interpolate(self.gain * latents[:, :3], scale_factor=8.0),)


def small_decoder(**config: Any) -> SdxlDecoder:
    """A decoder with random linear weights; `unet.calls` and `vae.given` hold what its modules were fed."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.1 * torch.randn(4, 4 + CODES, generator=generator)
    unet = ScriptedUnet(weight, 0.1 * torch.randn(4, generator=generator))
    settings = {"unet": {"in_channels": 4 + CODES}, "vae": {"scaling_factor": SCALING}, "sizes": SIZES}
    decoder = SdxlDecoder(SdxlConfig(**{**settings, **config}), unet, EnlargingVae())
    return decoder.eval().requires_grad_(False)


def some_codes(count: int, rows: int = 4, columns: int = 4) -> Tensor:
    return torch.randn(count, CODES, rows, columns, generator=torch.Generator().manual_seed(1))
