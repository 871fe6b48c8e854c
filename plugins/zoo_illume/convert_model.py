"""The authors' checkpoints of the whole model: their names and shapes to ours, and back.

Their files hold what transformers writes of a model with a vision tower. A head that shares the table of
embeddings may stand in them as a tensor of its own; ours never does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.runtime.keymaps import to_ours, to_theirs
from zoo_illume.convert import CODER, VIT, Linear, under
from zoo_illume.model_config import IllumeConfig

HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"

KEYS = (
    *under("model.vision_tower.semantic_encoder.", "vision.semantic.", VIT),
    *under("model.vision_tower.pixel_encoder.", "vision.pixel.", CODER),
    ("model.mm_projector.projector_1.{rest}", "semantic_projector.{rest}"),
    ("model.mm_projector.projector_2.{rest}", "pixel_projector.{rest}"),
    ("model.embed_tokens.{rest}", "language_model.model.embed_tokens.{rest}"),
    ("model.layers.{i}.{rest}", "language_model.model.layers.{i}.{rest}"),
    ("model.norm.{rest}", "language_model.model.norm.{rest}"),
    ("lm_head.{rest}", "language_model.lm_head.{rest}"),
)

_LINEAR = Linear(
    re.compile(r"vision\.pixel\..*\.attention\.\d+\.(q|k|v|out)\.weight"), "vision.semantic.embed.weight"
)


def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of the authors' model to ours.

    Raises `ValueError` where a head that the configuration ties to the embeddings differs from them.
    """
    ours = {name: _LINEAR.flat(name, tensor) for name, tensor in to_ours(tensors, KEYS).items()}
    if IllumeConfig(**config).language_model.tie_word_embeddings and HEAD in ours:
        head = ours.pop(HEAD)
        if EMBEDDINGS in ours and not _same(head, ours[EMBEDDINGS]):
            raise ValueError(
                "lm_head.weight differs from model.embed_tokens.weight, and the configuration ties the two"
            )
    return ours


def export(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict to one that the authors' model loads strictly: with a head, shared or not."""
    settings = IllumeConfig(**config)
    shaped = {name: _LINEAR.kernel(name, tensor, settings.vit) for name, tensor in tensors.items()}
    if settings.language_model.tie_word_embeddings:
        shaped[HEAD] = shaped[EMBEDDINGS]
    return to_theirs(shaped, KEYS)


def _same(head: Tensor, embeddings: Tensor) -> bool:
    """Whether two tables are equal; without values, whether they could be."""
    if head.is_meta or embeddings.is_meta:
        return head.shape == embeddings.shape
    return torch.equal(head, embeddings)
