"""The tensors of a folder of `diffusers`, its network's and its autoencoder's in one, to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.runtime.keymaps import KeyMap, to_ours

#: The autoencoder's names; those of its encoder are left out, which nothing here runs.
_DECODER, _ENCODER = ("decoder.", "post_quant_conv."), ("encoder.", "quant_conv.")

#: What the library called the parts of its first attention layers, and calls them now.
_RENAMED: KeyMap = [
    (
        f"vae.decoder.mid_block.attentions.{{i}}.{old}.{{rest}}",
        f"vae.decoder.mid_block.attentions.{{i}}.{new}.{{rest}}",
    )
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
]


def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of unet/ and vae/, together or of one of them, to those of `SdxlDecoder`.

    The two have no name in common. Names that are ours already are left as they are.
    """
    placed = {_placed(name): tensor for name, tensor in tensors.items() if not name.startswith(_ENCODER)}
    return to_ours(placed, _RENAMED)


def _placed(name: str) -> str:
    if name.startswith(("unet.", "vae.")):
        return name
    return f"vae.{name}" if name.startswith(_DECODER) else f"unet.{name}"
