"""What samplers see of the network: its level, how it reads a batch's prompts, layers to state and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.diffusion.levels import Level
from zoo.diffusion.schedules import named_table
from zoo.errors import InvalidInput
from zoo.runtime.texts import TextEncoder
from zoo_layerdiff.config import LayerDiffConfig
from zoo_layerdiff.exchange import filled
from zoo_layerdiff.prompts import Condition, PromptFeatures

if TYPE_CHECKING:
    from zoo.runtime.sampling import Batch


class LayerDenoiser:
    """The part of a network that offers `layered-denoiser` and `memory-estimate`; `LayerDiff` computes."""

    config: LayerDiffConfig

    @property
    def prediction(self) -> str:
        """What `predict` returns: "epsilon" or "v"."""
        return self.config.prediction

    @property
    def picture_channels(self) -> int:
        """How many channels of a layer are its picture; the others are its mask."""
        return self.config.picture_channels

    @property
    def picture_size(self) -> int:
        """Side of the finished layers in pixels."""
        return self.config.picture_size

    def level(self, size: tuple[int, int] | None = None) -> Level:
        """Shape and noise of one layer. Raises `InvalidInput` for a size that the model does not make."""
        config, side = self.config, self.config.picture_size
        if size not in (None, (side, side)):
            raise InvalidInput(f"the model makes pictures of {side}x{side}", "Leave out --size.")
        schedule = named_table(config.schedule, config.training_steps).shifted(config.noise_shift)
        return Level((config.state_channels, config.size, config.size), schedule)

    def condition(
        self, batch: Batch, components: Mapping[str, Any], guided: bool, exchange: bool = True
    ) -> Condition:
        """The prompts of a batch, encoded once.

        guided: the rows are doubled, those without prompts first; a negative prompt takes the place of the
        global one there. exchange: False keeps the layers from seeing each other. Raises `InvalidInput` for
        too few or too many layers.
        """
        counts = [self._checked_count(parts) for parts in batch.part_prompts]
        layers = max(counts)
        shared = [prompt or "" for prompt in batch.prompts]
        own = [[*parts, *[""] * (layers - len(parts))] for parts in batch.part_prompts]
        if guided:
            shared = [*(negative or "" for negative in batch.negatives), *shared]
            own = [*([""] * layers for _ in own), *own]
            counts = counts * 2
        prompts = self._read(_component(components, "text_encoder"), shared, own, torch.tensor(counts))
        return self.read_prompts(prompts, exchange)

    def masks(self, clean: Tensor) -> Tensor:
        """The masks of clean layers [..., c, h, w], at their own resolution: [..., 1, h, w] in [0, 1]."""
        values = clean[..., self.config.picture_channels :, :, :].mean(dim=-3, keepdim=True)
        return values.add(1.0).mul_(0.5).clamp_(0.0, 1.0)

    def decode(self, clean: Tensor, components: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Clean layers [n, layers, c, h, w] as pictures [n, layers, 3, H, W] in [-1, 1], over the neutral
        colour 0, and masks [n, layers, H, W] in [0, 1].
        """
        config, side = self.config, self.config.picture_size
        pictures, masks = clean.flatten(0, 1).split([config.picture_channels, config.mask_channels], dim=1)
        if config.latent_factor > 1:
            pictures = _component(components, "vae").decode(pictures / config.latent_scale)
        masks = F.pixel_shuffle(masks, isqrt(config.mask_channels))
        if masks.shape[-1] != side:
            masks = F.interpolate(masks, (side, side), mode="bilinear")
        pictures = pictures.clamp(-1.0, 1.0).unflatten(0, clean.shape[:2])
        return pictures, masks[:, 0].add(1.0).mul(0.5).clamp(0.0, 1.0).unflatten(0, clean.shape[:2])

    def encode(self, pictures: Tensor, masks: Tensor, components: Mapping[str, Any]) -> Tensor:
        """The inverse of `decode`, as far as it has one."""
        config = self.config
        flat, side = pictures.flatten(0, 1), config.size * isqrt(config.mask_channels)
        if config.latent_factor > 1:
            flat = _component(components, "vae").encode(flat) * config.latent_scale
        folded = masks.flatten(0, 1)[:, None] * 2.0 - 1.0
        if folded.shape[-1] != side:
            folded = F.interpolate(folded, (side, side), mode="area")
        folded = F.pixel_unshuffle(folded, isqrt(config.mask_channels))
        return torch.cat([flat, folded], dim=1).unflatten(0, pictures.shape[:2])

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of a guided step beside the weights, for pictures of as many layers as there can be."""
        config = self.config
        kept = widest = 0
        for index, width in enumerate(config.channels):
            positions = (config.size // config.patch // 2**index) ** 2
            kept += (config.residual_blocks + 1) * width * positions
            joined = width + max(width, config.channels[min(index + 1, len(config.channels) - 1)])
            # The joined input with its norm and three hidden maps; or the feed-forward, gate and value.
            attention = (4 + 3 * config.expansion) * width if config.attention[index] else 0
            widest = max(widest, positions * max(2 * joined + 4 * width, attention))
        rows = 2 * batch_size * config.most_layers
        return rows * (kept + widest) * dtype.itemsize

    def _checked_count(self, parts: tuple[str, ...]) -> int:
        most = self.config.most_layers
        if not parts:
            raise InvalidInput(
                f"no layer has a prompt, expected 2 to {most}: the background's and one for each object",
                'Such as --layer-prompt "a white background" --layer-prompt "a red circle". A model of the '
                "shapes world also finds them in --prompt.",
            )
        if not 2 <= len(parts) <= most:
            raise InvalidInput(
                f"{len(parts)} layer prompt{'s were' if len(parts) > 1 else ' was'} given, "
                f"expected 2 to {most}, back to front: the background first",
                'An empty text leaves a layer to the prompt: --layer-prompt "".',
            )
        return len(parts)

    def _read(
        self, encoder: TextEncoder, shared: list[str], own: list[list[str]], counts: Tensor
    ) -> PromptFeatures:
        layers, tokens = len(own[0]), self.config.text_tokens
        weight = next(self.parameters())  # type: ignore[attr-defined]
        of_all = encoder.encode(shared, tokens)
        of_each = encoder.encode([text for texts in own for text in texts], tokens)
        split = (len(own), layers)
        return PromptFeatures(
            of_all.features.to(weight.device, weight.dtype),
            of_each.features.to(weight.device, weight.dtype).unflatten(0, split),
            _unless_full(of_all.valid.to(weight.device)),
            _unless_full(of_each.valid.to(weight.device).unflatten(0, split)),
            filled(counts.to(weight.device), layers),
        )

    if TYPE_CHECKING:

        def read_prompts(self, prompts: PromptFeatures, exchange: bool = True) -> Condition: ...


def _component(components: Mapping[str, Any], role: str) -> Any:
    if role not in components:
        raise InvalidInput(
            f"the model needs a {role}, and its card names none",
            f"A card of your own can: [variant.NAME.components.{role}].",
        )
    return components[role]


def _unless_full(valid: Tensor) -> Tensor | None:
    return None if bool(valid.all()) else valid
