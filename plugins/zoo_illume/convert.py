"""The authors' checkpoints of the dual tokenizer: their names and shapes to ours, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.runtime.keymaps import KeyMap, to_ours, to_theirs
from zoo_illume.config import DualViTokConfig, VisionConfig

_BLOCK = (
    ("norm1.{rest}", "attention_norm.{rest}"),
    ("attn.qkv.{rest}", "qkv.{rest}"),
    ("attn.proj.{rest}", "out.{rest}"),
    ("norm2.{rest}", "feedforward_norm.{rest}"),
    ("mlp.fc1.{rest}", "up.{rest}"),
    ("mlp.fc2.{rest}", "down.{rest}"),
)
_QUANTISER = (
    ("frozen_codebook", "codebook"),
    ("code_transform.{rest}", "transform.{rest}"),
)
#: Of a norm that reads codes, then of a plain one.
_NORM = (
    ("norm_layer.{rest}", "norm.{rest}"),
    ("conv_y.{rest}", "scale.{rest}"),
    ("conv_b.{rest}", "shift.{rest}"),
    ("weight", "weight"),
    ("bias", "bias"),
)


def under(theirs: str, ours: str, table: KeyMap) -> KeyMap:
    """A table's names inside of a part: `theirs` and `ours` are what stands before them."""
    return [(f"{theirs}{their_part}", f"{ours}{our_part}") for their_part, our_part in table]


_RESIDUAL = (
    *under("norm1.", "norm_in.", _NORM),
    ("conv1.{rest}", "conv_in.{rest}"),
    *under("norm2.", "norm_out.", _NORM),
    ("conv2.{rest}", "conv_out.{rest}"),
    ("nin_shortcut.{rest}", "shortcut.{rest}"),
)
_ATTENTION = (
    *under("norm.", "norm.", _NORM),
    *((f"{name}.{{rest}}", f"{name}.{{rest}}") for name in "qkv"),
    ("proj_out.{rest}", "out.{rest}"),
)
CODER = (
    ("conv_in.{rest}", "conv_in.{rest}"),
    *under("mid.block_1.", "middle.blocks.0.", _RESIDUAL),
    *under("mid.attn_1.", "middle.attention.0.", _ATTENTION),
    *under("mid.block_2.", "middle.blocks.1.", _RESIDUAL),
    *(
        row
        for level in ("down.{i}.", "up.{i}.")
        for row in (
            *under(f"{level}block.{{j}}.", f"{level}blocks.{{j}}.", _RESIDUAL),
            *under(f"{level}attn.{{j}}.", f"{level}attention.{{j}}.", _ATTENTION),
        )
    ),
    ("down.{i}.downsample.{rest}", "down.{i}.resample.{rest}"),
    ("up.{i}.upsample.{rest}", "up.{i}.resample.{rest}"),
    *under("norm_out.", "norm_out.", _NORM),
    ("conv_out.{rest}", "conv_out.{rest}"),
)
VIT = (
    ("patch_embed.proj.{rest}", "embed.{rest}"),
    *under("blocks.{i}.", "blocks.{i}.", _BLOCK),
    ("merger.ln_q.{rest}", "merger.norm.{rest}"),
    ("merger.mlp.0.{rest}", "merger.up.{rest}"),
    ("merger.mlp.2.{rest}", "merger.down.{rest}"),
)
#: What stands behind the vision transformer, and the decoder.
_FEATURES = (
    ("proj_in.{rest}", "proj_in.{rest}"),
    *under("blocks.{i}.", "blocks.{i}.", _BLOCK),
    ("proj_out.{rest}", "proj_out.{rest}"),
)

#: The whole tokenizer's names.
KEYS = (
    *under("semantic_encoder.model.", "semantic.encoder.vit.", VIT),
    *under("semantic_encoder.", "semantic.encoder.", _FEATURES),
    *under("semantic_quantizer.", "semantic.quantiser.", _QUANTISER),
    *under("semantic_decoder.", "semantic.decoder.", _FEATURES),
    *under("pixel_encoder.", "pixel.encoder.", CODER),
    *under("pixel_quantizer.", "pixel.quantiser.", _QUANTISER),
    *under("pixel_decoder.", "pixel.decoder.", CODER),
    ("pixel_quant_conv.{rest}", "pixel.to_codes.{rest}"),
    ("pixel_post_quant_conv.{rest}", "pixel.from_codes.{rest}"),
)


@dataclass(frozen=True)
class Linear:
    """Which linear layers of ours are convolutions of the authors, by the names of their weights.

    pointwise: a pattern of those with 1x1 kernels. patches: the one whose kernel is a patch.
    """

    pointwise: re.Pattern[str]
    patches: str

    def flat(self, name: str, tensor: Tensor) -> Tensor:
        """A linear layer's weight from that of a convolution; one of another shape stays, to be reported."""
        if self.pointwise.fullmatch(name) and tensor.shape[2:] == (1, 1):
            return tensor[:, :, 0, 0]
        if name == self.patches and tensor.dim() == 5:
            return tensor.flatten(1)
        return tensor

    def kernel(self, name: str, tensor: Tensor, vit: VisionConfig | None) -> Tensor:
        """The inverse of `flat`."""
        if self.pointwise.fullmatch(name):
            return tensor[:, :, None, None]
        if name == self.patches and vit is not None:
            return tensor.reshape(len(tensor), 3, vit.frames, vit.patch, vit.patch)
        return tensor


_LINEAR = Linear(
    re.compile(r"pixel\..*\.attention\.\d+\.(q|k|v|out)\.weight|semantic\.encoder\.proj_in\.weight"),
    "semantic.encoder.vit.embed.weight",
)


def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of the authors' `DualViTok`, or of one branch of it, to ours."""
    return {name: _LINEAR.flat(name, tensor) for name, tensor in to_ours(tensors, KEYS).items()}


def export(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict to one that the authors' model loads strictly."""
    semantic = DualViTokConfig(**config).semantic
    vit = semantic.vit if semantic else None
    return to_theirs({name: _LINEAR.kernel(name, tensor, vit) for name, tensor in tensors.items()}, KEYS)
