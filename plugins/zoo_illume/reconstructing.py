"""Pictures through the dual tokenizer's codes and back."""

from __future__ import annotations

import PIL.Image
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.sampling import Batch, OnStep, wants_preview
from zoo_illume.decoding import decoded, unsigned
from zoo_illume.dualvitok import PIXELS_AT_ONCE, DualViTok
from zoo_illume.given import given_pictures
from zoo_illume.options import ReconstructOptions
from zoo_illume.preparing import resize, signed
from zoo_illume.sizes import Size
from zoo_illume.together import groups


def reconstruct(
    loaded: LoadedModel, batch: Batch, options: ReconstructOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """What the codes keep of each sample's picture.

    Sides that are no multiples of a pixel code's are rounded down, and the picture resized to that; the
    result has the same size. `on_step` counts pictures. Nothing is drawn from `noise`. Raises `InvalidInput`
    for a size, and for a tokenizer that lacks a branch.
    """
    if batch.size is not None:
        raise InvalidInput("a reconstructed picture keeps its size", "Leave out --size.")
    tokenizer: DualViTok = loaded.model
    given = given_pictures(batch)
    sizes = [_coded_size(picture, tokenizer.factor) for picture in given]
    made: dict[int, Tensor] = {}
    for members in groups(sizes, PIXELS_AT_ONCE):
        images = torch.stack([_fitted(given[index], sizes[index]) for index in members])
        made |= zip(members, _through_codes(tokenizer, images.to(loaded.device)).split(1), strict=True)
        if len(made) < len(batch):
            on_step(len(made), len(batch), None)
    pictures = [made[index] for index in range(len(batch))]
    alike = len(set(sizes)) == 1
    seen = alike and wants_preview(on_step, len(batch), len(batch))
    on_step(len(batch), len(batch), torch.cat(pictures).clamp(-1.0, 1.0) if seen else None)
    return [Image(unsigned(picture[0])) for picture in pictures]


def _coded_size(picture: Tensor, factor: int) -> Size:
    height, width = (max(factor, side // factor * factor) for side in picture.shape[1:])
    return height, width


def _fitted(picture: Tensor, size: Size) -> Tensor:
    """[3, h, w] in [0, 1] to [3, *size] in [-1, 1]."""
    return signed(resize(picture, size, PIL.Image.Resampling.BICUBIC))


@torch.no_grad()
def _through_codes(tokenizer: DualViTok, images: Tensor) -> Tensor:
    """[n, 3, H, W] in [-1, 1] to the same, nominally in that range."""
    return decoded(tokenizer, tokenizer.indices(images))
