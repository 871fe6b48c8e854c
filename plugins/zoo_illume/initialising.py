"""What a small model that is trained from nothing begins with, where fresh weights would be slow to learn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.nn.language_model import LanguageModel
from zoo.nn.rotary import rotary_angles, rotate
from zoo.runtime.noise import NoiseSource
from zoo_illume.dualvitok import DualViTok
from zoo_illume.model import IllumePlus

#: Spread of a code's features, in which embeddings of codes begin near each other.
NEAR = 0.6
#: Shares of length that a code's first embedding has of its neighbourhood, and of its own.
COMMON, OWN = 0.8, 0.6
#: Logits that each rotary frequency of an aligned head adds at its place: next to it they sum to 5 less.
ALIGNED = 8.0


@torch.no_grad()
def see_as_tokenizer(model: IllumePlus, tokenizer: DualViTok) -> None:
    """The networks that look at pictures begin as those of the tokenizer."""
    assert tokenizer.semantic is not None and tokenizer.pixel is not None
    model.vision.semantic.load_state_dict(tokenizer.semantic.encoder.vit.state_dict())
    model.vision.pixel.load_state_dict(tokenizer.pixel.encoder.state_dict())


@torch.no_grad()
def neighbouring_codes(model: IllumePlus, tokenizer: DualViTok, noise: NoiseSource) -> None:
    """Codes that lie near each other begin with embeddings that do.

    Of a table of unrelated rows, what is learnt of one code says nothing of the thousands beside it.
    """
    table, tokens = model.language_model.head_weight, model.config.tokens
    for level, look_up in enumerate((tokenizer.semantic_codes, tokenizer.pixel_codes)):
        first, count = tokens.first_code[level], tokens.codes[level]
        codes = look_up(torch.arange(count)[:, None, None]).flatten(1)
        rows = table[first : first + count]
        common = _fourier_features(codes, rows.shape[1], noise, level) * rows.std()
        rows.copy_(COMMON * common + OWN * rows)


def _fourier_features(codes: Tensor, width: int, noise: NoiseSource, level: int) -> Tensor:
    """Codes [n, dim] as rows [n, width] of unit spread, whose products fall with the distance of codes.

    Random features of a Gaussian kernel of width `NEAR` (Rahimi and Recht 2007, section 3.1).
    """
    directions = noise.normal(f"directions.{level}", (codes.shape[1], width)) / NEAR
    phases = noise.uniform(f"phases.{level}", (width,)) * (2.0 * math.pi)
    return (codes @ directions + phases).cos() * math.sqrt(2.0)


@torch.no_grad()
def aligned_heads(model: LanguageModel, distance: int) -> None:
    """A head of the first layer and one of the middle one begin by looking `distance` tokens back.

    Copying needs a head that finds the same place of another picture. Training from random heads learnt none
    within 10,000 steps: a gradient leads there only once the place is looked at. Biases of queries and keys
    are turned by their positions alone, so that two that differ by an angle meet at one distance (arXiv
    2104.09864, section 3.2.2). The slow half of the frequencies tells no neighbours apart and stays.
    """
    head_dim, theta = model.config.head_dim, model.config.rope_theta
    fast = torch.arange(head_dim // 2) < head_dim // 4
    key = torch.cat([fast, torch.zeros(head_dim // 2)]) * math.sqrt(ALIGNED * math.sqrt(head_dim))
    query = rotate(
        key, *(part.squeeze(0) for part in rotary_angles(torch.tensor([-distance]), head_dim, theta))
    )
    for layer in (model.layers[0], model.layers[len(model.layers) // 2]):
        attention = layer.self_attn
        attention.q_proj.bias[:head_dim] = query.flatten()
        attention.k_proj.bias[:head_dim] = key
