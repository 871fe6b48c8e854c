"""Samplers that paint what is asked for, with switches for every way to go wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

from zoo.io.artifacts import Image
from zoo.shapes.captions import parse
from zoo.shapes.rendering import render
from zoo.shapes.scene import CLASSES, Item, Scene


@dataclass(frozen=True)
class ToyOptions:
    steps: int = 2
    guidance: float = 1.0
    grain: float = 0.01
    delay: float = 0.0
    fail: bool = False
    limit: int | None = None
    wrong: str = ""
    mode: Literal["plain", "flipped"] = "plain"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.grain < 0:
            raise ValueError(f"grain is {self.grain}, expected at least 0")


@dataclass(frozen=True)
class FlatOptions:
    level: float = 0.5


def sample(loaded, batch, options, noise, on_step):
    if options.fail:
        raise KeyError("the sampler broke")
    if options.limit is not None and len(batch) > options.limit:
        raise MemoryError
    size = loaded.model.config.size
    grain = noise.normal("grain", (len(batch), 3, size, size)) * options.grain * options.guidance
    for step in range(options.steps):
        time.sleep(options.delay)
        on_step(step + 1, options.steps, grain.detach())
    gain = loaded.model.linear.weight.float().mean().cpu()
    pictures = [
        _paint(_name(item, loaded.variant.classes), options.wrong, size) + (1.0 + gain) * g
        for item, g in zip(batch.items, grain, strict=True)
    ]
    if options.mode == "flipped":
        pictures = [picture.flip(1) for picture in pictures]
    return [Image(picture.clamp(0.0, 1.0)) for picture in pictures]


def flat(loaded, batch, options, noise, on_step):
    size = loaded.model.config.size
    on_step(1, 1, None)
    return [Image(torch.full((3, size, size), options.level)) for _ in batch.items]


def _name(item, classes) -> str:
    if item.class_id is not None:
        return classes[item.class_id] if classes else CLASSES[item.class_id]
    if item.prompt is not None:
        mention = parse(item.prompt).objects[0]
        return f"{mention.colour} {mention.shape}"
    return CLASSES[0]


def _paint(name: str, wrong: str, size: int):
    colour, shape = ("pink cross" if name == wrong else name).split()
    return render(Scene("white", (Item(shape, colour),)), size)
