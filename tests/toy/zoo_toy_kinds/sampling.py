"""Samplers that make layers and notes of noise and texts, and tell what they were asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from zoo.io.layers import Layer, LayeredImage
from zoo_toy_kinds.notes import Note

_MOST_PARTS = 4

#: (prompt, part prompts, negative, seed) of every sample, by batch.
drawn: list[list[tuple[str | None, tuple[str, ...], str | None, int]]] = []


@dataclass(frozen=True)
class KindOptions:
    steps: int = 3
    guidance: float = 1.0


def layers(loaded, batch, options, noise, on_step):
    drawn.append([(item.prompt, item.part_prompts, item.negative, item.seed) for item in batch.items])
    if "text_encoder" in loaded.components:
        texts = [text for item in batch.items for text in item.texts]
        loaded.components["text_encoder"].encode(texts, 8)
    side = loaded.model.config.size
    height, width = batch.size or (side, side)
    grain = noise.normal("layers", (len(batch), _MOST_PARTS, 4, height, width))
    for step in range(options.steps):
        on_step(step + 1, options.steps, grain[:, 0, :3].detach())
    return [
        _layered(item.prompt, item.part_prompts, values, options)
        for item, values in zip(batch.items, grain, strict=True)
    ]


def composite(loaded, batch, options, noise, on_step):
    return [made.composite() for made in layers(loaded, batch, options, noise, on_step)]


def notes(loaded, batch, options, noise, on_step):
    on_step(1, 1, None)
    levels = noise.uniform("level", (len(batch), 1)).mul(255).flatten().tolist()
    return [Note(int(level)) for level in levels]


def _layered(prompt, parts, values, options):
    texts = parts or (prompt or "", "")
    pixels = [
        (0.5 + 0.1 * options.guidance * part + sum(map(ord, text)) % 10 / 20).clamp(0.0, 1.0)
        for part, text in zip(values, texts, strict=False)
    ]
    made = tuple(Layer(part, name=text) for part, text in zip(pixels, texts, strict=True))
    opaque = made[0].pixels.clone()
    opaque[3] = 1.0
    made = (dataclasses.replace(made[0], pixels=opaque), *made[1:])
    return LayeredImage(tuple(values.shape[-2:]), made)
