"""The semantic branch: the vision transformer's features to codes, and codes back to features."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_illume.config import BLOCK_EXPANSION, BLOCK_HEADS, Projection, SemanticConfig
from zoo_illume.patches import block_positions
from zoo_illume.simvq import Quantised, SimVQ
from zoo_illume.vision import Block, VisionTransformer, rotation


@dataclass(frozen=True)
class SemanticCodes:
    """What the semantic branch makes of n pictures, whose grid of codes is h x w.

    features: [n, dim, h, w], before they are quantised.
    target: [n, vit channels, h, w], the vision transformer's features without mean and scale: what the
        semantic decoder learns to give back.
    quantised: their codes, indices [n, h, w] and loss.
    """

    features: Tensor
    target: Tensor
    quantised: Quantised


def projection(kind: Projection, inputs: int, outputs: int) -> nn.Sequential:
    """The last layers of an encoder or decoder, as its configuration names them."""
    if kind == "linear-norm":
        return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs))
    if kind == "norm-linear":
        return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs))
    if kind == "mlp":
        return nn.Sequential(nn.Linear(inputs, inputs), nn.Tanh(), nn.Linear(inputs, outputs))
    return nn.Sequential(nn.Linear(inputs, outputs))


class _Blocks(nn.Module):
    """A linear layer, blocks over the cells of a picture, a projection."""

    def __init__(self, inputs: int, width: int, count: int, kind: Projection, outputs: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, BLOCK_HEADS, BLOCK_EXPANSION) for _ in range(count))
        self.proj_out = projection(kind, width, outputs)

    def forward(self, cells: Tensor, rows: int, columns: int) -> Tensor:
        """[n, rows * columns, inputs] -> [n, rows * columns, outputs]."""
        x = self.proj_in(cells)
        positions = rotation(block_positions(rows, columns, 1, x.device), x.shape[-1] // BLOCK_HEADS)
        for block in self.blocks:
            x = block(x, positions)
        projected: Tensor = self.proj_out(x)
        return projected


class SemanticEncoder(_Blocks):
    """Pictures to the features that are quantised."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(
            config.vit.out_channels, config.width, config.blocks, config.projection, config.quantiser.dim
        )
        self.vit = VisionTransformer(config.vit)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [n, 3, H, W] in [-1, 1] to (features [n, dim, h, w], target [n, vit channels, h, w])."""
        rows, columns = self.vit.grid(images.shape[-2], images.shape[-1])
        seen = self.vit(images)
        target = F.layer_norm(seen, seen.shape[-1:], eps=1e-6)
        features = self(target, rows, columns)
        return _as_map(features, rows, columns), _as_map(target, rows, columns)


class SemanticDecoder(_Blocks):
    """Codes back to the vision transformer's features, for training: nothing is drawn from them."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(
            config.quantiser.dim,
            config.decoder_width,
            config.decoder_blocks,
            config.decoder_projection,
            config.vit.out_channels,
        )

    def decode(self, codes: Tensor) -> Tensor:
        """[n, dim, h, w] -> [n, vit channels, h, w]."""
        rows, columns = codes.shape[-2:]
        cells = codes.to(self.proj_in.weight.dtype).flatten(2).transpose(1, 2)
        return _as_map(self(cells, rows, columns), rows, columns)


class SemanticBranch(nn.Module):
    """Encoder, quantiser and decoder of meaning."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.encoder = SemanticEncoder(config)
        self.quantiser = SimVQ(config.quantiser)
        self.decoder = SemanticDecoder(config)

    def encode(self, images: Tensor) -> SemanticCodes:
        """Images [n, 3, H, W] in [-1, 1] of any size."""
        features, target = self.encoder.encode(images)
        return SemanticCodes(features, target, self.quantiser(features))


def _as_map(cells: Tensor, rows: int, columns: int) -> Tensor:
    n, _, channels = cells.shape
    return cells.transpose(1, 2).reshape(n, channels, rows, columns)
