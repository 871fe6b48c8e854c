"""Folders as diffusers writes them, cards that name their files, and a stand-in for the library itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.session import Session
from zoo_illume.sdxl import SdxlConfig, SdxlDecoder
from zoo_illume.sdxl_convert import convert

CODES = 3

#: Small settings that both the library and its stand-in take.
UNET: dict[str, Any] = {
    "in_channels": 4 + CODES,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 2],
    "attention_head_dim": [1, 2],
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 10,
}
VAE: dict[str, Any] = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.5,
}
CONFIG: dict[str, Any] = {"unet": UNET, "vae": VAE, "sizes": [[16, 16], [16, 32], [32, 16]]}
SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "trailing",
}


class UNet2DConditionModel(nn.Module):
    """A stand-in: linear in channels, with names as the library's has them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.config = settings
        self.conv_in = nn.Conv2d(settings["in_channels"], 6, 1)
        self.conv_out = nn.Conv2d(6, settings["out_channels"], 1)

    def forward(self, sample: Tensor, timestep: Tensor, **given: Any) -> tuple[Tensor]:
        numbers = given["added_cond_kwargs"]["time_ids"][:, 5].to(sample)
        return (self.conv_out(self.conv_in(sample)) + 0.1 * numbers.view(-1, 1, 1, 1),)


class AutoencoderKL(nn.Module):
    """A stand-in: an attention's projections and a convolution behind another."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.config = settings
        attention = nn.Module()
        attention.to_q, attention.to_out = nn.Linear(3, 3), nn.ModuleList([nn.Linear(3, 3)])
        self.encoder, self.quant_conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.post_quant_conv, self.decoder = nn.Conv2d(4, 4, 1), nn.Module()
        self.decoder.conv_in = nn.Conv2d(4, 3, 1)
        self.decoder.mid_block = nn.Module()
        self.decoder.mid_block.attentions = nn.ModuleList([attention])

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        attention = self.decoder.mid_block.attentions[0]
        made = self.decoder.conv_in(self.post_quant_conv(latents)).movedim(1, -1)
        made = attention.to_out[0](attention.to_q(made)).movedim(-1, 1)
        return (nn.functional.interpolate(made, scale_factor=2.0),)


#: Takes the place of the library.
STAND_IN = SimpleNamespace(UNet2DConditionModel=UNet2DConditionModel, AutoencoderKL=AutoencoderKL)


@dataclass(frozen=True)
class _Nothing:
    """No settings."""


class _Model(nn.Module):
    """What a card has beside its components."""

    def __init__(self, config: _Nothing) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@dataclass(frozen=True)
class Folder:
    """Random modules of a library as files below a folder, and how they are drawn with directly."""

    root: Path
    unet: nn.Module
    vae: nn.Module

    @classmethod
    def write(cls, root: Path, library: Any, scheduler: Mapping[str, Any] = SCHEDULER) -> Folder:
        torch.manual_seed(0)
        config = SdxlConfig(**CONFIG)
        made = {
            "unet": library.UNet2DConditionModel(**config.unet),
            "vae": library.AutoencoderKL(**config.vae),
        }
        for name, module in made.items():
            module.eval().requires_grad_(False)
            (root / name).mkdir(parents=True)
            save_file(module.state_dict(), root / name / "diffusion_pytorch_model.safetensors")
            settings = {"_class_name": type(module).__name__, **module.config}
            (root / name / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        (root / "scheduler").mkdir()
        text = json.dumps(scheduler)
        (root / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
        return cls(root, made["unet"], made["vae"])

    @property
    def vae_file(self) -> Path:
        return self.root / "vae" / "diffusion_pytorch_model.safetensors"

    def changed(self, path: str, **changes: Any) -> None:
        """Write other settings into one of its JSON files."""
        settings = json.loads((self.root / path).read_text(encoding="utf-8"))
        (self.root / path).write_text(json.dumps({**settings, **changes}), encoding="utf-8")

    def direct(self) -> SdxlDecoder:
        """A decoder around the very modules that were written."""
        return SdxlDecoder(SdxlConfig(**CONFIG), self.unet, self.vae)

    def session(self, **component: Any) -> Session:
        """A session with a card that names the folder's files; arguments change its component."""
        save_file({"weight": torch.zeros(1)}, self.root / "model.safetensors")
        tensors = {"decoder_unet": "unet", "decoder_vae": "vae"}
        raw = {
            "decoder_unet_config": "unet/config.json",
            "decoder_vae_config": "vae/config.json",
            "decoder_scheduler": "scheduler/scheduler_config.json",
        }
        files = [
            {"role": "model", "source": ["model.safetensors"]},
            *(
                {
                    "role": role,
                    "source": [f"{name}/diffusion_pytorch_model.safetensors"],
                    "converter": "folder-decoder",
                }
                for role, name in tensors.items()
            ),
            *({"role": role, "source": [path], "format": "raw"} for role, path in raw.items()),
        ]
        decoder = {"architecture": "folder-decoder", "config": CONFIG, "files": [*tensors, *raw], **component}
        variant = {
            "summary": "S",
            "architecture": "nothing",
            "sampler": {"name": "nothing"},
            "components": {"decoder": decoder},
            "files": files,
        }
        document = {"schema": 1, "method": "folder", "title": "T", "summary": "S", "tasks": ["text-to-image"]}
        card = parse_card(
            {**document, "default": "one", "variant": {"one": variant}}, self.root / "folder.toml"
        )
        session = Session(Catalogue({"folder": card}))
        register = session.registry.callbacks("test")
        register["register_architectures"]("nothing", _Model, config=_Nothing)
        register["register_architectures"]("folder-decoder", SdxlDecoder, config=SdxlConfig)
        register["register_samplers"]("nothing", lambda *_: [], options=_Nothing)
        register["register_converters"]("folder-decoder", convert)
        return session
