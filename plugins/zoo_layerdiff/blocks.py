"""The blocks of the UNet: Stable Diffusion's, with attention between the layers of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.embeddings import grid_sinusoids
from zoo.nn.residual import activated
from zoo.nn.spatial_attention import KeysValues, split_heads
from zoo_layerdiff.config import Exchange, LayerDiffConfig
from zoo_layerdiff.exchange import InterLayerAttention, Stack

if TYPE_CHECKING:
    from zoo_layerdiff.prompts import Condition


@dataclass(frozen=True)
class BlockTexts:
    """What one block reads of the prompts: keys and values of each layer's own and, where it is attended, of
    the global one for every layer.
    """

    own: KeysValues
    shared: KeysValues | None


@dataclass(frozen=True)
class TextMasks:
    """Which tokens are there: bool [rows, 1, 1, tokens] of the layers' prompts and of the global one; None is
    all.
    """

    own: Tensor | None = None
    shared: Tensor | None = None


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice; between them the embedding is added (arXiv 2112.10752)."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(embedding, outputs)
        self.norm_out = nn.GroupNorm(groups, outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [rows, inputs, h, w] and an activated embedding [rows, e] -> [rows, outputs, h, w]."""
        hidden = self.conv_in(activated(self.norm_in(x))) + self.shift(embedding)[:, :, None, None]
        hidden = self.conv_out(activated(self.norm_out(hidden)))
        return torch.add(hidden, x if self.shortcut is None else self.shortcut(x))


class TextAttention(nn.Module):
    """Cross-attention of positions to the tokens of a text."""

    def __init__(self, channels: int, heads: int, text_width: int, starts_at_zero: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels, bias=False)
        self.kv = nn.Linear(text_width, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        if starts_at_zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def keys_values(self, text: Tensor) -> KeysValues:
        """Of features [rows, tokens, text_width]; they depend neither on the picture nor on time."""
        keys, values = split_heads(self.kv(text), 2, self.heads)
        return keys, values

    def forward(self, x: Tensor, text: KeysValues, mask: Tensor | None) -> Tensor:
        """What is added to x [rows, positions, channels]."""
        (queries,) = split_heads(self.q(self.norm(x)), 1, self.heads)
        attended = F.scaled_dot_product_attention(queries, *text, attn_mask=mask)
        added: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return added


class CollaborativeBlock(nn.Module):
    """The layer-collaborative attention block: every layer by itself, all together, each with its prompt.

    Attention within each layer, inter-layer attention, text-guided intra-layer attention (arXiv 2403.11929),
    feed-forward: without the second, whose output starts at zero, it is Stable Diffusion's block.
    """

    def __init__(self, config: LayerDiffConfig, channels: int, exchange: Exchange) -> None:
        super().__init__()
        heads, hidden = config.heads, config.expansion * channels
        self.heads = heads
        self.self_norm = nn.LayerNorm(channels)
        self.self_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.self_out = nn.Linear(channels, channels)
        self.inter_layer = None
        if exchange != "none":
            self.inter_layer = InterLayerAttention(
                channels, heads, exchange, config.most_layers, config.layer_embeddings
            )
        self.intra_layer = TextAttention(channels, heads, config.text_width)
        self.global_text = None
        if config.global_attention:
            self.global_text = TextAttention(channels, heads, config.text_width, starts_at_zero=True)
        self.feedforward_norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 2 * hidden)
        self.down = nn.Linear(hidden, channels)

    def texts(self, own: Tensor, shared: Tensor) -> BlockTexts:
        """Of the features of the layers' prompts and of the global one for every layer."""
        of_all = None if self.global_text is None else self.global_text.keys_values(shared)
        return BlockTexts(self.intra_layer.keys_values(own), of_all)

    def forward(self, x: Tensor, stack: Stack, texts: BlockTexts, masks: TextMasks) -> Tensor:
        """[rows, positions, channels] -> the same shape."""
        queries, keys, values = split_heads(self.self_qkv(self.self_norm(x)), 3, self.heads)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.self_out(attended.transpose(1, 2).flatten(2))
        if self.inter_layer is not None and stack.exchange:
            x = x + self.inter_layer(x, stack)
        x = x + self.intra_layer(x, texts.own, masks.own)
        if self.global_text is not None and texts.shared is not None:
            x = x + self.global_text(x, texts.shared, masks.shared)
        value, gate = self.up(self.feedforward_norm(x)).chunk(2, dim=-1)
        return torch.add(x, self.down(value * F.gelu(gate)))


class Attention(nn.Module):
    """Norm and 1x1 convolution, a collaborative block over the positions, 1x1 convolution, added.

    `index` is its place among the network's, and that of its texts in a condition. With `config.positions` a
    learned vector is added at every position: convolutions tell where the border is, and not which.
    """

    def __init__(self, config: LayerDiffConfig, stage: int) -> None:
        super().__init__()
        channels, side = config.channels[stage], config.side(stage)
        self.index = 0
        self.norm = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.conv_in = nn.Conv2d(channels, channels, 1)
        self.places = nn.Parameter(grid_sinusoids(side, side, channels)) if config.positions else None
        self.block = CollaborativeBlock(config, channels, config.exchange[stage])
        self.conv_out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """[rows, channels, h, w] -> the same shape."""
        positions = self.conv_in(self.norm(x)).flatten(2).transpose(1, 2)
        if self.places is not None:
            positions = positions + self.places
        positions = self.block(positions, condition.stack, condition.blocks[self.index], condition.masks)
        image = positions.transpose(1, 2).reshape(x.shape)
        return torch.add(x, self.conv_out(image))
