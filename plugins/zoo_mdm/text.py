"""The text side of a model: projection, pooling, and what the network keeps of a text for a whole run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from zoo.nn.spatial_attention import KeysValues
from zoo.nn.text_layers import TextLayer
from zoo_mdm.config import ATTENTION_HEADS, UNetConfig

#: Keys and values for each attention layer of a stage.
StageText = tuple[KeysValues | None, ...]


@dataclass(frozen=True)
class LevelText:
    """Keys and values for every attention layer of a level and of those inside it, in the order of stages."""

    down: tuple[StageText, ...]
    middle: tuple[StageText, ...]
    up: tuple[StageText, ...]
    inner: LevelText | None


@dataclass(frozen=True)
class Condition:
    """What a network knows of n texts: made once, for all steps. Everything is None for a model without text.

    vector: [n, embedding], the pooled text, added to every level's time embedding.
    features: [n, tokens, width], what cross-attention reads.
    layers: their keys and values, layer by layer.
    mask: bool [n, 1, 1, tokens], the positions that are attended; None is all.
    micro: numbers told beside the time, [n] by name; a condition that is not there has its default.
    """

    vector: Tensor | None = None
    features: Tensor | None = None
    layers: LevelText | None = None
    mask: Tensor | None = None
    micro: dict[str, Tensor] | None = None


class TextPathway(nn.Module):
    """Features of a text encoder to what the network reads of them."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.text_width
        self.mask_padding = config.mask_padding
        self.projection = nn.Linear(config.text_dim, width) if config.text_projection else None
        self.layers = nn.ModuleList(TextLayer(width, ATTENTION_HEADS) for _ in range(config.text_layers))
        self.embedding = nn.Linear(width, config.embedding_dim, bias=False)

    def forward(
        self, features: Tensor, valid: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features [n, tokens, text_dim] to what `Condition` calls vector, features and mask.

        valid: [n, tokens], 1 for tokens and 0 for padding.
        present: bool [n, tokens], the positions that a row has at all: its tokens and the padding that
            belongs to it; None is all. It keeps rows apart that were padded to a common length.
        """
        if self.projection is not None:
            features = self.projection(features)
        attended = valid.bool() if self.mask_padding else present
        mask = None if attended is None else attended[:, None, None]
        for layer in self.layers:
            features = layer(features, mask)
        # Behind layers that read the padding, the padding counts as well.
        counted = present if self.layers and not self.mask_padding else valid
        weights = features.new_ones(features.shape[:2]) if counted is None else counted.to(features.dtype)
        pooled = (weights[:, :, None] * features).sum(dim=1) / weights.sum(dim=1, keepdim=True)
        return self.embedding(pooled), features, mask


def first_rows(layers: LevelText, rows: int) -> LevelText:
    """The keys and values of the first rows alone, for a level with fewer pictures than the inner one."""

    def cut(stages: tuple[StageText, ...]) -> tuple[StageText, ...]:
        return tuple(
            tuple(None if pair is None else (pair[0][:rows], pair[1][:rows]) for pair in stage)
            for stage in stages
        )

    return LevelText(cut(layers.down), cut(layers.middle), cut(layers.up), layers.inner)
