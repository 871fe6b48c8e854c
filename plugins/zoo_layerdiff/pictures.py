"""Pictures of layers: from what the network draws over a neutral colour to straight RGBA, and back."""

from __future__ import annotations

import torch
from torch import Tensor

#: Below this share a pixel's colour cannot be told from the neutral one it is mixed with.
_FAINTEST = 0.1


def straight(pictures: Tensor, masks: Tensor) -> Tensor:
    """RGBA layers [..., 4, h, w] in [0, 1], of pictures [..., 3, h, w] in [-1, 1] and masks [..., h, w].

    A layer's picture is p = m c + (1 - m) 0 with the colour c that is sought: c = p / m. So m c + (1 - m) y
    is p + (1 - m) y over any other layer y, and no neutral colour is left at the edges.
    """
    colours = (pictures / masks[..., None, :, :].clamp(min=_FAINTEST)).clamp(-1.0, 1.0)
    return torch.cat([colours.add(1.0).mul(0.5), masks[..., None, :, :]], dim=-3)


def over_neutral(layers: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `straight`: pictures [..., 3, h, w] in [-1, 1] and masks [..., h, w]."""
    masks = layers[..., 3, :, :]
    return (layers[..., :3, :, :] * 2.0 - 1.0) * masks[..., None, :, :], masks


def composite(pictures: Tensor, masks: Tensor) -> Tensor:
    """The whole picture [n, 3, h, w] in [-1, 1] of layers [n, layers, 3, h, w], background first."""
    picture = pictures[:, 0]
    for index in range(1, pictures.shape[1]):
        picture = pictures[:, index] + (1.0 - masks[:, index, None]) * picture
    return picture.clamp(-1.0, 1.0)
