"""Codes to pictures: by the tokenizer's own decoder, or by diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource, SomeRows
from zoo.runtime.sampling import OnStep, wants_preview
from zoo_illume.dualvitok import PIXELS_AT_ONCE, DualViTok
from zoo_illume.given import check_component
from zoo_illume.options import DrawOptions
from zoo_illume.sizes import Size
from zoo_illume.sketches import Maps, Sketch, maps_of
from zoo_illume.together import count_of, groups


class Decoding:
    """The decoder of one batch; raises `InvalidInput` where the variant lacks it."""

    def __init__(self, loaded: LoadedModel, options: DrawOptions, sketches: Sequence[Sketch]) -> None:
        self._loaded, self._options, self._sketches = loaded, options, sketches
        self._diffusion = options.decoder == "diffusion"
        if self._diffusion and "decoder" not in loaded.components:
            raise InvalidInput(
                f"{loaded.reference} has no decoder by diffusion", "Leave out the option decoder=diffusion."
            )
        check_component(loaded, "image_tokenizer")
        self.tokens = max(sketch.tokens.in_picture(sketch.grids) for sketch in sketches)

    @property
    def total(self) -> int:
        """Steps of the run: tokens of the longest picture, then those of the decoder for every picture."""
        return self.tokens + (self._options.decoder_steps * len(self._sketches) if self._diffusion else 0)

    def preview(self, maps: Maps) -> Tensor:
        """Codes of pictures of one size as the tokenizer draws them, [n, 3, h, w] in [-1, 1]."""
        # Tokens are made in inference mode, whose tensors a tokenizer must not keep: it may be trained later.
        with torch.inference_mode(False):
            return decoded(self._tokenizer, maps).clamp(-1.0, 1.0)

    def pictures(self, noise: NoiseSource, on_step: OnStep) -> list[Tensor]:
        """The finished pictures, float32 [3, h, w] in [0, 1] on the CPU; tells `on_step` of the rest."""
        made = self._diffused(noise, on_step) if self._diffusion else self._decoded()
        alike = all(picture.shape == made[0].shape for picture in made)
        seen = alike and wants_preview(on_step, self.total, self.total)
        on_step(self.total, self.total, torch.cat(made).clamp(-1.0, 1.0) if seen else None)
        return [unsigned(picture[0]) for picture in made]

    @cached_property
    def _tokenizer(self) -> DualViTok:
        # Asked for late, when a first picture can be seen, and once: one that does not stay is made at each
        # asking.
        tokenizer: DualViTok = self._loaded.components["image_tokenizer"]
        return tokenizer

    def _decoded(self) -> list[Tensor]:
        """Pictures [1, 3, h, w] of every sketch."""
        made: dict[int, Tensor] = {}
        for members in groups(self._sizes):
            made |= zip(members, decoded(self._tokenizer, self._maps(members)).split(1), strict=True)
        return [made[index] for index in range(len(self._sketches))]

    @torch.no_grad()
    def _diffused(self, noise: NoiseSource, on_step: OnStep) -> list[Tensor]:
        """Pictures [1, 3, h, w] of every sketch; those of one size are drawn together."""
        # Imported here: most pictures are decoded without it.
        from zoo_illume.sdxl_sampling import decode

        tokenizer, decoder, options = self._tokenizer, self._loaded.components["decoder"], self._options
        steps, made = options.decoder_steps, dict[int, Tensor]()
        for members in groups(self._sizes):
            images = decode(
                decoder,
                merged(tokenizer, self._maps(members)),
                decoder.config.drawn_size(*self._sizes[members[0]]),
                SomeRows(noise, tuple(members), len(self._sketches)),
                steps,
                options.decoder_guidance,
                _Share(on_step, self.tokens + steps * len(made), steps * len(members), self.total),
            )
            made |= zip(members, images.split(1), strict=True)
        return [made[index] for index in range(len(self._sketches))]

    @property
    def _sizes(self) -> list[Size]:
        """Of each sketch as the tokenizer draws it."""
        factor = self._tokenizer.factor
        return [(rows * factor, columns * factor) for _, (rows, columns) in (s.grids for s in self._sketches)]

    def _maps(self, members: Sequence[int]) -> Maps:
        """The codes of sketches of one size."""
        return maps_of([self._sketches[index] for index in members])


@torch.no_grad()
def decoded(tokenizer: DualViTok, maps: Maps) -> Tensor:
    """Codes of both levels as pictures, float32 [n, 3, h, w], nominally in [-1, 1]."""
    device, (_, rows, columns) = _device(tokenizer), maps[1].shape
    together = count_of((rows * tokenizer.factor, columns * tokenizer.factor), PIXELS_AT_ONCE)
    portions = zip(*(codes.to(device).split(together) for codes in maps), strict=True)
    return torch.cat([tokenizer.decode(semantic, pixel).float() for semantic, pixel in portions])


def merged(tokenizer: DualViTok, maps: Maps) -> Tensor:
    """Codes of both levels as a decoder by diffusion reads them, float32 [n, channels, rows, columns]."""
    device = _device(tokenizer)
    semantic, pixel = (codes.to(device) for codes in maps)
    return tokenizer.merge(tokenizer.semantic_codes(semantic), tokenizer.pixel_codes(pixel))


def unsigned(pixels: Tensor) -> Tensor:
    """From [-1, 1], clamped, to [0, 1] on the CPU."""
    return pixels.clamp(-1.0, 1.0).add(1.0).mul(0.5).cpu()


def _device(tokenizer: DualViTok) -> torch.device:
    return next(tokenizer.parameters()).device


@dataclass(frozen=True)
class _Share:
    """An `OnStep` of a part of a run of `total` steps: `count` of them behind `first` others."""

    on_step: OnStep
    first: int
    count: int
    total: int

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None:
        """See `OnStep`; some of the pictures are no preview of a batch."""
        told = self.first + self.count * step // total
        # The last step of all is told with the finished pictures.
        if told < self.total:
            self.on_step(told, self.total, None)

    def wants_preview(self, step: int, total: int) -> bool:
        """See `OnStep`."""
        return False
