"""Images to patch sequences and back."""

from __future__ import annotations

from torch import Tensor


def patchify(images: Tensor, patch: int) -> Tensor:
    """[n, c, h, w] -> [n, (h/p)(w/p), c*p*p].

    Patches run left to right, top to bottom. Within a patch the features run channel, row, column, with the
    channel slowest.
    """
    n, c, h, w = images.shape
    grid = images.reshape(n, c, h // patch, patch, w // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, (h // patch) * (w // patch), c * patch * patch)


def unpatchify(patches: Tensor, patch: int, channels: int, height: int, width: int) -> Tensor:
    """Inverse of `patchify`: [n, tokens, c*p*p] -> [n, c, h, w]."""
    n = patches.shape[0]
    grid = patches.reshape(n, height // patch, width // patch, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, height, width)
