"""The diffusion decoder: draws a picture of twice the size from the codes of one (arXiv 2504.01934).

The network is that of Stable Diffusion XL with 64 more channels, where it reads the codes of both branches of
the tokenizer beside the noisy latent. It reads no text: where it expects some it is given zeros, and in the
place of six numbers about the size it reads the number of the size in a table. `diffusers` (extra
`zoo[sdxl]`) has both modules; noise, guidance and steps are `zoo_illume.sdxl_sampling`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InvalidInput, PluginError, WeightsError
from zoo_illume.sdxl_memory import network_bytes, pictures_bytes
from zoo_illume.sdxl_schedule import Scheduling, scheduling_from

#: Settings of `diffusers.UNet2DConditionModel`: those of Stable Diffusion XL, with channels for the codes.
UNET: Mapping[str, Any] = {
    "in_channels": 68,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

#: Settings of `diffusers.AutoencoderKL`: those of Stable Diffusion XL.
VAE: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}

#: (height, width) in pixels of what the released decoder draws; its network knows them by their places here.
SIZES = (
    (1024, 1024),
    (1024, 768),
    (768, 1024),
    (2048, 512),
    (512, 2048),
    (1920, 640),
    (640, 1920),
    (1536, 768),
    (768, 1536),
    (1152, 768),
    (768, 1152),
    (512, 512),
)

#: Numbers about the size that the network reads; all but the last are 0.
_SIZE_NUMBERS = 6

#: Settings that change nothing in what a module computes here.
_IRRELEVANT = frozenset({"sample_size", "dropout", "force_upcast"})


@dataclass(frozen=True, kw_only=True)
class SdxlConfig:
    """Settings of both modules as `diffusers` calls them, where they are not `UNET`'s and `VAE`'s.

    sizes: (height, width) of the pictures that it draws, each by its number.
    enlargement: how many times as high and wide they are as those that the codes are of.
    text_tokens: how many zeros the network reads in the place of a text.
    """

    unet: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = SIZES
    enlargement: int = 2
    text_tokens: int = 77

    def __post_init__(self) -> None:
        object.__setattr__(self, "unet", {**UNET, **self.unet})
        object.__setattr__(self, "vae", {**VAE, **self.vae})
        object.__setattr__(self, "sizes", tuple((int(h), int(w)) for h, w in self.sizes))
        if not self.sizes:
            raise ValueError("sizes is empty, expected the sizes that the decoder draws")
        if self.code_channels < 1 or self.pooled_width < 1:
            raise ValueError(
                "the network has no channels left for codes, or no width for a text: expected in_channels "
                "above out_channels, projection_class_embeddings_input_dim above 6 addition_time_embed_dim"
            )
        odd = [size for size in self.sizes if min(size) < 1 or any(side % self.side_step for side in size)]
        if odd:
            raise ValueError(f"sizes holds {list(odd[0])}, expected multiples of {self.side_step}")

    @property
    def latent_channels(self) -> int:
        """Channels of what the network denoises."""
        return int(self.unet["out_channels"])

    @property
    def code_channels(self) -> int:
        """Channels of the codes."""
        return int(self.unet["in_channels"]) - self.latent_channels

    @property
    def text_width(self) -> int:
        """Width of what the network reads in the place of a text's tokens."""
        return int(self.unet["cross_attention_dim"])

    @property
    def pooled_width(self) -> int:
        """Width of what the network reads in the place of a text as a whole."""
        numbers = _SIZE_NUMBERS * int(self.unet["addition_time_embed_dim"])
        return int(self.unet["projection_class_embeddings_input_dim"]) - numbers

    @property
    def factor(self) -> int:
        """Side of the pixels that a latent stands for."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def side_step(self) -> int:
        """What sides in pixels are multiples of: the network halves latents between its levels."""
        return self.factor * 2 ** (len(self.unet["block_out_channels"]) - 1)

    @property
    def largest(self) -> tuple[int, int]:
        """(height, width) of the size with most pixels."""
        return max(self.sizes, key=lambda size: size[0] * size[1])

    def size_number(self, size: tuple[int, int]) -> int:
        """What the network knows a (height, width) in pixels by; raises `InvalidInput` for another size."""
        if tuple(size) not in self.sizes:
            known = ", ".join(f"{height}x{width}" for height, width in self.sizes)
            raise InvalidInput(
                f"the diffusion decoder does not draw {size[0]}x{size[1]} (height x width)",
                f"It draws {known}.",
            )
        return self.sizes.index(tuple(size))

    def drawn_size(self, height: int, width: int) -> tuple[int, int]:
        """The size that codes of a picture of (height, width) are drawn at; raises `InvalidInput`."""
        size = (self.enlargement * height, self.enlargement * width)
        self.size_number(size)
        return size


class SdxlDecoder(nn.Module):
    """Both modules, and how noise is taken away; `zoo_illume.sdxl_sampling.decode` draws with it.

    unet, vae: modules to take in the place of those of `diffusers`, which are made else. They are called the
        way those are.

    Of the autoencoder only the decoder is kept. It computes in float32 in any case, since it overflows in
    half precision.
    """

    def __init__(
        self, config: SdxlConfig, unet: nn.Module | None = None, vae: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.scheduling = Scheduling()
        self.unet = _unet(config.unet) if unet is None else unet
        self.vae = _vae(config.vae) if vae is None else vae

    @property
    def dtype(self) -> torch.dtype:
        """Number format that the network computes in."""
        return next(self.unet.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.unet.parameters()).device

    def at_once(self, size: tuple[int, int]) -> int:
        """How many pictures are drawn together: as many as have no more pixels than one of the largest."""
        height, width = self.config.largest
        return max(1, height * width // (size[0] * size[1]))

    def condition(self, rows: int, size: tuple[int, int]) -> dict[str, Any]:
        """What the network reads beside latents and codes, for pictures of (height, width): made once."""
        config, like = self.config, {"dtype": self.dtype, "device": self.device}
        numbers = torch.zeros(rows, _SIZE_NUMBERS, **like)
        numbers[:, -1] = config.size_number(size)
        return {
            "encoder_hidden_states": torch.zeros(rows, config.text_tokens, config.text_width, **like),
            "added_cond_kwargs": {
                "text_embeds": torch.zeros(rows, config.pooled_width, **like),
                "time_ids": numbers,
            },
        }

    def predict(self, inputs: Tensor, time: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """What the network makes of latents with codes [rows, channels, h, w] at times [rows].

        Says what `scheduling.prediction` names, [rows, latent channels, h, w].
        """
        predicted: Tensor = self.unet(inputs, time, **condition, return_dict=False)[0]
        return predicted

    def pictures(self, latents: Tensor) -> Tensor:
        """Latents [n, channels, h, w] as pictures [n, 3, factor h, factor w], float32 in [-1, 1]."""
        if any(tensor.dtype != torch.float32 for tensor in self.vae.parameters()):
            self.vae.float()
        scaled = latents.float() / float(self.config.vae["scaling_factor"])
        # One at a time: nothing takes more memory than this at full size.
        drawn = [self.vae.decode(row, return_dict=False)[0] for row in scaled.split(1)]
        return torch.cat(drawn).clamp(-1.0, 1.0)

    def read_files(self, files: Mapping[str, Path]) -> None:
        """Take the scheduler's settings, and hold those of the modules against what they were built with.

        Each file is told by the class that it names. Raises `WeightsError` for one that is no configuration
        of these, that names a scheduler which is not here, or that says something else than the card.
        """
        for role, path in files.items():
            settings, source = _settings(path), f"{role} ({path})"
            name = str(settings.get("_class_name"))
            if name == "UNet2DConditionModel":
                _check_agrees(settings, self.unet, source)
            elif name == "AutoencoderKL":
                _check_agrees(settings, self.vae, source)
            elif name.endswith("Scheduler"):
                self.scheduling = scheduling_from(settings, source)
            else:
                raise WeightsError(
                    f"{source}: configures {name}, expected UNet2DConditionModel, AutoencoderKL or "
                    "a scheduler"
                )

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes that drawing takes beside the weights, however many pictures: see `at_once`.

        The more of a guided step of the network and a picture from its latents, at the largest size; with
        the autoencoder's weights in float32 where they come in another format.
        """
        height, width = self.config.largest
        weights = sum(tensor.numel() for tensor in self.vae.parameters())
        widened = weights * torch.float32.itemsize if dtype != torch.float32 else 0
        latents = height * width // self.config.factor**2
        step = network_bytes(self.config.unet, 2 * latents, dtype)
        return widened + max(step, pictures_bytes(self.config.vae, height * width))


def _unet(settings: Mapping[str, Any]) -> nn.Module:
    module: nn.Module = _diffusers("UNet2DConditionModel")(**settings)
    return module


def _vae(settings: Mapping[str, Any]) -> nn.Module:
    module: nn.Module = _diffusers("AutoencoderKL")(**settings)
    del module.encoder, module.quant_conv
    return module


def _diffusers(name: str) -> Any:
    try:
        import diffusers
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        raise PluginError(
            "the diffusion decoder needs the package 'diffusers', which is not installed",
            "pip install 'zoo[sdxl]'  (or draw with decoder=pixel)",
        ) from error
    return getattr(diffusers, name)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path}: holds a {type(settings).__name__}, expected an object with settings")
    return settings


def _check_agrees(settings: Mapping[str, Any], module: nn.Module, source: str) -> None:
    built = getattr(module, "config", {})
    for key, value in settings.items():
        if key.startswith("_") or key in _IRRELEVANT:
            continue
        ours = built.get(key)
        if _plain(value) != _plain(ours):
            raise WeightsError(
                f"{source}: {key} is {json.dumps(value)}, and the card builds it with {json.dumps(ours)}",
                "Correct the config table of the component in the card.",
            )


def _plain(value: Any) -> Any:
    """A setting such that those that mean the same are equal: lists and tuples, unset and off."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if value is False else value
