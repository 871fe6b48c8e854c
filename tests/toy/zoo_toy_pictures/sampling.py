"""Samplers whose pictures and texts tell which pictures, prompts and options they were given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zoo.io.artifacts import Image
from zoo.io.text import Text
from zoo.runtime.sampling import tell_text


@dataclass(frozen=True)
class PlainOptions:
    level: float = 0.75


@dataclass(frozen=True)
class MirrorOptions:
    share: float = 1.0
    guidance: float = 1.0


@dataclass(frozen=True)
class TellOptions:
    digits: int = 2


def plain(loaded, batch, options, noise, on_step):
    return [Image(torch.full((3, 4, 4), options.level)) for _ in batch.items]


def mirror(loaded, batch, options, noise, on_step):
    on_step(1, 1, None)
    grain = noise.uniform("grain", (len(batch), 1))
    images = batch.images_of("image")
    return [
        Image((image.flip(2) * options.share + 0.25 * (1.0 - options.share) * one).contiguous())
        for image, one in zip(images, grain, strict=True)
    ]


def tell(loaded, batch, options, noise, on_step):
    texts = []
    for row, (image, prompt) in enumerate(zip(batch.images_of("image"), batch.prompts, strict=True)):
        height, width = image.shape[1:]
        level = f"{float(image.mean()):.{options.digits}f}"
        pieces = [f"{prompt or 'What?'} ", f"{width} by {height}, ", f"level {level}."]
        for step, piece in enumerate(pieces):
            tell_text(on_step, row, piece)
            on_step(step + 1, len(pieces), None)
        texts.append(Text("".join(pieces)))
    return texts


def blend(loaded, batch, options, noise, on_step):
    given = zip(batch.images_of("image"), batch.images_of("other"), batch.images_of("mask"), strict=True)
    return [Image(torch.lerp(one, other, 0.5 if mask is None else mask)) for one, other, mask in given]
