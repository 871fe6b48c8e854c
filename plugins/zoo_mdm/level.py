"""One resolution level of a network: its time embedding, its way down and its way up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.embeddings import EmbeddingMLP, sinusoids
from zoo.nn.residual import Downsample, ResidualBlock, Upsample, activated
from zoo.nn.spatial_attention import SpatialAttention
from zoo_mdm.config import ATTENTION_GROUPS, ATTENTION_HEADS, LevelConfig
from zoo_mdm.text import StageText


class Conditions(nn.Module):
    """The time, and other numbers told beside it, each by an embedding of its own."""

    def __init__(self, config: LevelConfig) -> None:
        super().__init__()
        self.features = config.embedding_dim // 4
        self.defaults = dict(config.micro_conditions)
        self.time = EmbeddingMLP(self.features, config.embedding_dim)
        self.micro = nn.ModuleDict()
        for name in self.defaults:
            self.micro[name] = EmbeddingMLP(self.features, config.embedding_dim)
            _start_at_zero(self.micro[name].second)

    def embed_time(self, time: Tensor) -> Tensor:
        """[n] training times, 0 .. training_steps - 1, not divided by anything -> [n, embedding]."""
        return self.time(sinusoids(time, self.features))

    def embed_micro(self, values: Mapping[str, Tensor], like: Tensor) -> Tensor | None:
        """The sum over all micro-conditions, [n, embedding]; None for a level without.

        values: [n] by name; one that is not there has its default. `like` [n] gives their number and device.
        A scale is clamped to its default, which is the side of the training pictures; any other condition
        counts in thousandths.
        """
        total = None
        for name, embed in self.micro.items():
            default = self.defaults[name]
            given = values.get(name)
            value = torch.full_like(like, default, dtype=torch.float32) if given is None else given.float()
            number = (value / default).clamp(max=1.0) * default if name == "scale" else value * 1000.0
            embedded = embed(sinusoids(number, self.features))
            total = embedded if total is None else total + embedded
        return total

    def forward(self, time: Tensor, text: Tensor | None, values: Mapping[str, Tensor]) -> Tensor:
        """All that modulates the level's blocks, added up and activated: [n, embedding]."""
        embedding = self.embed_time(time)
        for more in (text, self.embed_micro(values, time)):
            embedding = embedding if more is None else embedding + more
        return F.silu(embedding)


class Stage(nn.Module):
    """Residual blocks of one resolution, each followed by attention layers, then a change of resolution."""

    def __init__(
        self,
        config: LevelConfig,
        inputs: list[int],
        channels: int,
        attention: int = 0,
        text_width: int = 0,
        resample: nn.Module | None = None,
    ) -> None:
        """`inputs` are the widths that the blocks read; `attention` counts the layers after each block."""
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(width, channels, config.embedding_dim, config.norm_groups, config.dropout)
            for width in inputs
        )
        expansion = 4 if config.attention_feedforward else 0
        self.attention = nn.ModuleList(
            SpatialAttention(channels, ATTENTION_HEADS, ATTENTION_GROUPS, text_width, expansion)
            for _ in range(attention * len(inputs))
        )
        self.resample = resample

    def text(self, features: Tensor) -> StageText:
        """Keys and values of the text for each attention layer."""
        return tuple(layer.keys_values(features) for layer in self.attention)

    def attend(self, x: Tensor, block: int, text: StageText | None, mask: Tensor | None) -> Tensor:
        """The attention layers after a block."""
        count = len(self.attention) // len(self.blocks)
        for layer in range(block * count, (block + 1) * count):
            x = self.attention[layer](x, text[layer] if text else None, mask)
        return x

    def descend(
        self, x: Tensor, embedding: Tensor, text: StageText | None, mask: Tensor | None, skips: list[Tensor]
    ) -> Tensor:
        """The way down: appends every block's result, and the resampled one, to `skips`."""
        for index, block in enumerate(self.blocks):
            x = self.attend(block(x, embedding), index, text, mask)
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x)
            skips.append(x)
        return x

    def ascend(
        self, x: Tensor, embedding: Tensor, text: StageText | None, mask: Tensor | None, skips: list[Tensor]
    ) -> Tensor:
        """The way up: every block reads x beside the last of `skips`, which is taken off."""
        for index, block in enumerate(self.blocks):
            x = self.attend(block(torch.cat([x, skips.pop()], dim=1), embedding), index, text, mask)
        return x if self.resample is None else self.resample(x)

    def forward(self, x: Tensor, embedding: Tensor, text: StageText | None, mask: Tensor | None) -> Tensor:
        """Straight through, as in the middle."""
        for index, block in enumerate(self.blocks):
            x = self.attend(block(x, embedding), index, text, mask)
        return x


class UNetLevel(nn.Module):
    """The layers of one level; what lies between the way down and the way up is the subclass's."""

    def __init__(self, config: LevelConfig, text_width: int) -> None:
        super().__init__()
        widths, last = config.channels, len(config.channels) - 1
        self.conditions = Conditions(config)
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        current, skips = widths[0], [widths[0]]
        for index, width in enumerate(widths):
            blocks, attention = config.residual_blocks[index], config.attention_layers[index]
            inputs = [current, *itertools.repeat(width, blocks - 1)]
            resample = None if index == last else Downsample(width)
            self.down.append(Stage(config, inputs, width, attention, text_width, resample))
            skips += [width] * (blocks + (resample is not None))
            current = width
        for index in range(last, -1, -1):
            width, attention = widths[index], config.attention_layers[index]
            inputs = []
            for _ in range(config.residual_blocks[index] + 1):
                inputs.append(current + skips.pop())
                current = width
            resample = Upsample(width) if index else None
            self.up.append(Stage(config, inputs, width, attention, text_width, resample))
        self.norm_out = nn.GroupNorm(config.norm_groups, current)
        self.conv_out = nn.Conv2d(current, config.out_channels, 3, padding=1)
        _start_at_zero(self.conv_out)

    def descend(
        self, x: Tensor, embedding: Tensor, text: tuple[StageText, ...] | None, mask: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Features of the finest resolution [n, channels[0], h, w] to the coarsest, and all on the way."""
        skips = [x]
        for index, stage in enumerate(self.down):
            x = stage.descend(x, embedding, text[index] if text else None, mask, skips)
        return x, skips

    def ascend(
        self,
        x: Tensor,
        skips: list[Tensor],
        embedding: Tensor,
        text: tuple[StageText, ...] | None,
        mask: Tensor | None,
    ) -> Tensor:
        """The coarsest features to the finest, with those kept on the way down."""
        for index, stage in enumerate(self.up):
            x = stage.ascend(x, embedding, text[index] if text else None, mask, skips)
        return x

    def predict_from(self, x: Tensor) -> Tensor:
        """The level's prediction [n, out_channels, h, w] from its finest features."""
        return self.conv_out(activated(self.norm_out(x)))


def _start_at_zero(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
