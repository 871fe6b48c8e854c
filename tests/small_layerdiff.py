"""Small LayerDiff networks with weights that are all in use, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_mdm import inline_toml
from torch import Tensor, nn

from zoo.shapes.captions import vocabulary
from zoo.shapes.words import WordEncoder, WordsConfig
from zoo_layerdiff.config import LayerDiffConfig
from zoo_layerdiff.model import LayerDiff
from zoo_layerdiff.prompts import PromptFeatures

TOKENS = 24

CONFIG: dict[str, Any] = {
    "size": 32,
    "channels": [8, 16],
    "attention": [False, True],
    "exchange": ["none", "joint"],
    "residual_blocks": 1,
    "heads": 2,
    "norm_groups": 4,
    "expansion": 2,
    "patch": 2,
    "text_dim": WordsConfig(words=vocabulary(), tokens=TOKENS).width,
    "text_projection": 16,
    "text_layers": 1,
    "text_pooling": True,
    "text_tokens": TOKENS,
    "prediction": "v",
    "schedule": "cosine-capped",
}

#: The backbone that the weights in `tests/layerdiff/sd_unet.safetensors` are for.
BACKBONE: dict[str, Any] = {
    "size": 8,
    "channels": [16, 32],
    "attention": [True, False],
    "residual_blocks": 1,
    "heads": 4,
    "norm_groups": 8,
    "picture_channels": 4,
    "latent_factor": 8,
    "text_dim": 12,
}


CARD = f"""
schema = 1
method = "small"
title = "Small networks"
summary = "for tests"
tasks = ["text-to-layers"]
default = "layers"

[variant.layers]
summary = "random weights"
architecture = "layerdiff"
sampler = {{ name = "layerdiff", steps = 4, guidance = 2.0, mask_guidance = 0.0 }}
captions = "shapes"
dtype = "float32"
config = {inline_toml(CONFIG)}
[variant.layers.components.text_encoder]
architecture = "shapes-words"
config = {inline_toml({"tokens": TOKENS, "parts": True, "words": list(vocabulary())})}
[[variant.layers.files]]
role = "model"
source = ["layers.safetensors"]
"""


def small_network(**changes: Any) -> LayerDiff:
    """Random numbers everywhere: fresh networks have zeros that would hide mistakes."""
    network = LayerDiff(LayerDiffConfig(**{**CONFIG, **changes}))
    torch.manual_seed(0)
    for tensor in network.parameters():
        nn.init.normal_(tensor, std=0.3 if tensor.dim() < 2 else tensor[0].numel() ** -0.5)
    return network.eval().requires_grad_(False)


def word_encoder() -> WordEncoder:
    return WordEncoder(WordsConfig(words=vocabulary(), tokens=TOKENS, parts=True))


def random_prompts(pictures: int, layers: int, width: int, present: Tensor | None = None) -> PromptFeatures:
    """Features of texts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(pictures, 7, width, generator=generator)
    own = torch.randn(pictures, layers, 4, width, generator=generator)
    shared_valid = (torch.arange(7) < torch.arange(3, 3 + pictures)[:, None]).float()
    own_valid = torch.ones(pictures, layers, 4)
    own_valid[:, 1:, 2:] = 0.0
    return PromptFeatures(shared, own, shared_valid, own_valid, present)


def small_cards(parent: Path) -> Path:
    """A folder of cards with `small:layers`, whose weights are random."""
    folder = parent / "cards"
    folder.mkdir()
    (folder / "small.toml").write_text(CARD, encoding="utf-8")
    save_file(small_network().state_dict(), folder / "layers.safetensors")
    return folder
