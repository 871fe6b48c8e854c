"""Small networks of MDM with weights that are all in use, and a text encoder of a few words, for tests."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from zoo_mdm.config import NestedUNetConfig, UNetConfig
from zoo_mdm.encoder import TextEncoder
from zoo_mdm.model import Network, build
from zoo_mdm.pieces import PieceTable

INNER: dict[str, Any] = {
    "image_size": 8,
    "channels": [8, 32],
    "residual_blocks": [1, 2],
    "attention_layers": [0, 1],
    "attention_feedforward": True,
    "norm_groups": 4,
    "micro_conditions": {"scale": 8},
    "text_dim": 6,
    "text_projection": 16,
    "mask_padding": False,
}
OUTER: dict[str, Any] = {
    "image_size": 16,
    "channels": [8, 32],
    "residual_blocks": [1, 1],
    "attention_layers": [0, 1],
    "norm_groups": 4,
    "embedding_dim": 32,
    "micro_conditions": {"scale": 16},
    "inner": INNER,
}

PIECES = ("<pad>", "</s>", "\u2581", "\u2581a", "\u2581red", "\u2581blue", "\u2581circle", "\u2581square")


def inline_toml(value: Any) -> str:
    """A configuration as a card writes it; what JSON writes for anything but tables is TOML as well."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return f"{{ {', '.join(f'{key} = {inline_toml(entry)}' for key, entry in value.items())} }}"


def randomised(network: nn.Module) -> nn.Module:
    """Random numbers everywhere: fresh networks have zeros that would hide mistakes."""
    torch.manual_seed(0)
    for tensor in network.parameters():
        nn.init.normal_(tensor, std=0.3 if tensor.dim() == 1 else tensor[0].numel() ** -0.5)
    return network.eval().requires_grad_(False)


def small_unet(**changes: Any) -> Network:
    return randomised(build(UNetConfig(**{**INNER, **changes})))


def small_nested(**changes: Any) -> Network:
    return randomised(build(NestedUNetConfig(**{**OUTER, **changes})))


class WordFeatures(nn.Module):
    """Stands for a language model: each token has features of its own, whatever is around it."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, width)
        self.calls: list[Tensor] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        self.calls.append(input_ids)
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def piece_table() -> PieceTable:
    return PieceTable((piece, -1.0 if len(piece) > 1 else -2.0) for piece in PIECES)


def small_text_encoder() -> TextEncoder:
    table = piece_table()
    return TextEncoder(randomised(WordFeatures(len(table), 6)), table)
