"""What the diffusion decoder's modules take beside their weights, from their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

#: Tensors of a residual block's input that are there at once: as it came, normed, and activated.
_RESIDUAL = 3
#: Widths of a token inside a transformer block: the gated feed-forward's 8 and what is made of them.
_TRANSFORMER = 18
#: What the small tensors take that nothing here counts, such as the text's keys and the time's features.
_SMALL = 1.1


def network_bytes(settings: Mapping[str, Any], latents: int, dtype: torch.dtype) -> int:
    """Bytes of a pass of a UNet over so many latents, those of all rows together.

    What is kept for the way up, and the widest block: the first behind an enlargement, which has what comes
    from below beside its own input, or a transformer.
    """
    levels = list(_levels(settings, latents))
    layers = int(settings["layers_per_block"])
    kept = levels[0][0] * latents + sum(width * tokens * layers for width, tokens, _ in levels)
    kept += sum(width * tokens // 4 for width, tokens, _ in levels[:-1])
    below = [width for width, _, _ in levels[1:]] + [levels[-1][0]]
    widest = max(
        tokens * max(_RESIDUAL * (width + deeper) + deeper, _TRANSFORMER * width * attends)
        for (width, tokens, attends), deeper in zip(levels, below, strict=True)
    )
    return int(_SMALL * (kept + widest) * dtype.itemsize)


def pictures_bytes(settings: Mapping[str, Any], pixels: int) -> int:
    """Bytes of making so many pixels of latents with an autoencoder's decoder, in float32.

    The widest block: the first at full size, whose input has the channels of the level below.
    """
    first, *deeper = settings["block_out_channels"]
    width = int(deeper[0] if deeper else first)
    return (_RESIDUAL * width + int(first)) * pixels * torch.float32.itemsize


def _levels(settings: Mapping[str, Any], latents: int) -> Iterator[tuple[int, int, bool]]:
    """(width, latents, whether it has transformers) of each level on the way down."""
    kinds = settings["down_block_types"]
    for index, (width, kind) in enumerate(zip(settings["block_out_channels"], kinds, strict=True)):
        yield int(width), latents // 4**index, "CrossAttn" in kind
