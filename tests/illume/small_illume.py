"""Small dual tokenizers and a small ILLUME+ with weights that are all in use, for tests.

Codes stand for the released squares: 28 x 28 pixels for meaning, 16 x 16 for pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.cards import Card, parse_card
from zoo.runtime.model import LoadedModel, load
from zoo.session import Session
from zoo_illume.config import DualViTokConfig
from zoo_illume.dualvitok import DualViTok
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import IllumeConfig, TokenTable
from zoo_illume.words import Words, WordsConfig

SEMANTIC: dict[str, Any] = {
    "vit": {"depth": 1, "width": 16, "heads": 2, "expansion": 2, "out_channels": 24},
    "quantiser": {"codes": 50, "dim": 6},
    "width": 64,
    "blocks": 1,
    "decoder_width": 64,
    "decoder_blocks": 1,
}
PIXEL: dict[str, Any] = {
    "encoder": {"channels": 8, "latent": 4, "residual_blocks": 1, "norm_groups": 4},
    "quantiser": {"codes": 70, "dim": 4},
    "decoder": {"channels": 20, "latent": 10, "residual_blocks": 1, "norm_groups": 4},
}
CONFIG: dict[str, Any] = {"semantic": SEMANTIC, "pixel": PIXEL}


def randomised(module: nn.Module) -> nn.Module:
    """Random numbers everywhere: fresh norms have zeros and ones that would hide mistakes."""
    torch.manual_seed(0)
    for tensor in module.parameters():
        nn.init.normal_(tensor, std=0.3 if tensor.dim() == 1 else tensor[0].numel() ** -0.5)
    return module.eval()


def small_tokenizer(**changes: Any) -> DualViTok:
    tokenizer = randomised(DualViTok(DualViTokConfig(**{**CONFIG, **changes})))
    assert isinstance(tokenizer, DualViTok)
    return tokenizer.requires_grad_(False)


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours in [-1, 1], so that resizing leaves something to see."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 2.0 - 1.0
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


CONTROLS = ("<|im_start|>", "<|im_end|>")
_SAID = (
    "system you are a helpful assistant . user",
    "generate an image of , the content of image is random",
    "please edit the image according to the instruction : reconstruct the given image",
    "describe the image . what colour is the circle ?",
    "make the red green blue circle square on white",
)
WORDS = tuple(dict.fromkeys(" ".join(_SAID).split()))
_END = len(CONTROLS) + len(WORDS)
#: Texts first, then single tokens, two heights and widths, codes.
TOKENS: dict[str, Any] = {
    "end_of_text": CONTROLS.index("<|im_end|>"),
    "start_of_image": _END,
    "end_of_image": _END + 1,
    "end_of_line": _END + 2,
    "start_of_level": [_END + 3, _END + 5],
    "end_of_level": [_END + 4, _END + 6],
    "first_height": _END + 7,
    "first_width": _END + 9,
    "sizes": 2,
    "first_code": [_END + 11, _END + 61],
    "codes": [50, 70],
}
MODEL: dict[str, Any] = {
    "language_model": {
        "vocab_size": _END + 131 + 3,  # rows that no token has, as the released tables have them
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "vit": SEMANTIC["vit"],
    "encoder": PIXEL["encoder"],
    "tokens": TOKENS,
    "sizes": [[64, 64], [64, 128], [128, 64]],
}
#: (rows, columns) of semantic and pixel codes of the small model's pictures, by their size.
GRIDS = {(64, 64): ((2, 2), (4, 4)), (64, 128): ((2, 4), (4, 8)), (128, 64): ((4, 2), (8, 4))}


def small_words() -> Words:
    """The tokenizer of texts."""
    return Words(WordsConfig(words=WORDS, controls=CONTROLS))


def token_table() -> TokenTable:
    """What the small model's tokens mean."""
    return TokenTable(**TOKENS)


def small_model(**changes: Any) -> IllumePlus:
    """A language model that reads, draws and edits, of random weights."""
    model = randomised(IllumePlus(IllumeConfig(**{**MODEL, **changes})))
    assert isinstance(model, IllumePlus)
    model.requires_grad_(False)
    # Random networks hardly attend and are hardly sure of anything, and pictures look alike to them: without
    # more contrast it would not matter what they read.
    for module in model.language_model.modules():
        if isinstance(module, nn.RMSNorm):
            module.weight.add_(1.0)
    for layer in model.language_model.layers:
        layer.self_attn.q_proj.weight.mul_(3.0)
        layer.self_attn.o_proj.weight.mul_(3.0)
    for projector in (model.semantic_projector, model.pixel_projector):
        projector[0].weight.mul_(10.0)
    model.language_model.lm_head.weight.mul_(3.0)
    return model


def small_card(folder: Path, **config: Any) -> Card:
    """The card of `small:model` and `small:tokenizer`, whose weights lie in the folder."""
    words = {"words": list(WORDS), "controls": list(CONTROLS)}
    tokenizer = {"role": "image_tokenizer", "source": ["image_tokenizer.safetensors"]}
    document = {
        "schema": 1,
        "method": "small",
        "title": "Small ILLUME+",
        "summary": "for tests",
        "tasks": ["text-to-image", "image-editing", "image-to-text", "text-to-text", "reconstruction"],
        "default": "model",
        "variant": {
            "model": {
                "summary": "random weights",
                "architecture": "illume-plus",
                "config": {**MODEL, **config},
                "dtype": "float32",
                "sampler": {"name": "illume-draw", "top_k": 0, "guidance": 1.5},
                "tasks": {
                    "edit": {"name": "illume-edit", "top_k": 0},
                    "describe": {"name": "illume-describe", "max_tokens": 6},
                    "text": {"name": "illume-text", "max_tokens": 6},
                },
                "components": {
                    "image_tokenizer": {"architecture": "dualvitok", "config": CONFIG, "dtype": "float32"},
                    "text_tokenizer": {"architecture": "illume-words", "config": words},
                },
                "files": [{"role": "model", "source": ["model.safetensors"]}, tokenizer],
            },
            "tokenizer": {
                "summary": "random weights",
                "architecture": "dualvitok",
                "config": CONFIG,
                "dtype": "float32",
                "sampler": {"name": "dualvitok"},
                "files": [{**tokenizer, "role": "model"}],
            },
        },
    }
    # The file itself is not needed: its folder is where the weights lie.
    return parse_card(document, folder / "small.toml", "tests")


def small_session(folder: Path, **config: Any) -> Session:
    """A session that knows the card of `small_card`; its weights are written into the folder."""
    save_file(small_model(**config).state_dict(), folder / "model.safetensors")
    save_file(small_tokenizer().state_dict(), folder / "image_tokenizer.safetensors")
    session = Session()
    session.catalogue.add(small_card(folder, **config))
    return session


def loaded_model(folder: Path, **config: Any) -> LoadedModel:
    """The small model as users load theirs."""
    return load("small:model", device="cpu", session=small_session(folder, **config), threads=1)
