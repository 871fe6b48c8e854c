"""Layered pictures of the shapes world whose every layer is known, as a model of layers would make them."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from itertools import permutations, product

import torch
from torch import Tensor

from zoo.io.layers import Layer, LayeredImage
from zoo.shapes import Item, Scene, layers, matches, parse


@lru_cache
def scene_of(prompt: str, sizes: tuple[str, ...] = ("small", "large", "small")) -> Scene:
    """A scene that a prompt is true of, its objects back to front in the order named."""
    said = parse(prompt)
    for cells in permutations(product(range(3), range(3)), len(said.objects)):
        items = tuple(
            Item(mention.shape, mention.colour, mention.size or size, cell)
            for mention, size, cell in zip(said.objects, sizes, cells, strict=False)
        )
        scene = Scene(said.background or "white", items)
        if matches(said, scene):
            return scene
    raise AssertionError(f"no scene for {prompt}")


def over_grey(rgba: Tensor) -> Tensor:
    """Layers [n, 4, h, w] over the neutral grey: [n, 3, h, w]."""
    return rgba[:, :3] * rgba[:, 3:] + 0.5 * (1.0 - rgba[:, 3:])


def layered(rgba: Tensor, drawn: Tensor | None) -> LayeredImage:
    """Layers [n, 4, h, w] as an artifact."""
    size = (rgba.shape[2], rgba.shape[3])
    return LayeredImage(size, tuple(Layer(pixels.clone()) for pixels in rgba), drawn=drawn)


def true_layers(scene: Scene, side: int = 32) -> LayeredImage:
    """What a perfect model makes of a scene."""
    rgba = layers(scene, side)
    return layered(rgba, over_grey(rgba))


def shifted_masks(image: LayeredImage, pixels: int) -> LayeredImage:
    """Every foreground mask that many pixels to the right of what its layer shows."""
    moved = []
    for layer in image.layers[1:]:
        rgba = layer.pixels.clone()
        rgba[3] = rgba[3].roll(pixels, dims=1)
        moved.append(dataclasses.replace(layer, pixels=rgba))
    return dataclasses.replace(image, layers=(image.layers[0], *moved))


def reordered(image: LayeredImage, *order: int) -> LayeredImage:
    """The layers in another order, or some of them more often or not at all."""
    assert image.drawn is not None
    chosen = tuple(image.layers[index] for index in order)
    return dataclasses.replace(image, layers=chosen, drawn=image.drawn[list(order)])


def redrawn(image: LayeredImage, index: int, rgba: Tensor) -> LayeredImage:
    """One layer's RGBA replaced, in the picture before its mask too."""
    assert image.drawn is not None
    drawn = image.drawn.clone()
    drawn[index] = over_grey(rgba[None])[0]
    return dataclasses.replace(image.with_layer(index, pixels=rgba), drawn=drawn)


def emptied(image: LayeredImage, index: int) -> LayeredImage:
    """A layer in which nothing is painted."""
    return redrawn(image, index, torch.full_like(image.layers[index].pixels, 0.0))


def painted_into(image: LayeredImage, index: int, other: int) -> LayeredImage:
    """Layer `index` shows the object of layer `other` besides its own."""
    own, more = image.layers[index].pixels, image.layers[other].pixels
    alpha = own[3] + more[3] * (1.0 - own[3])
    colour = (own[:3] * own[3] * (1.0 - more[3]) + more[:3] * more[3]) / alpha.clamp_min(1e-6)
    return redrawn(image, index, torch.cat([colour, alpha[None]]))
