"""TarFlow: an exact, invertible map between images and Gaussian noise (arXiv 2412.06329).

A stack of autoregressive blocks. Each predicts for every patch x_i, from the patches before it, a log-scale
alpha_i and a shift mu_i, and maps x_i to z_i = (x_i - mu_i) exp(-alpha_i); the first patch passes unchanged.
Odd blocks read the sequence in reverse. The Jacobian is triangular, so its log-determinant is minus the sum
of all alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.patches import patchify, unpatchify
from zoo.nn.transformer import TransformerLayer


@dataclass(frozen=True)
class TarFlowConfig:
    """What determines the shape of every tensor; names follow the authors' code."""

    in_channels: int  #: image channels
    img_size: int  #: side of the square image, pixels
    patch_size: int  #: side of a patch, pixels
    channels: int  #: transformer width
    num_blocks: int  #: autoregressive flow blocks
    layers_per_block: int  #: transformer layers in each block
    nvp: bool = True  #: False is the volume-preserving form: alpha = 0, and the prior's variance is learned
    num_classes: int = 0  #: 0 is unconditional
    head_dim: int = 64
    mlp_expansion: int = 4

    def __post_init__(self) -> None:
        if self.img_size % self.patch_size:
            raise ValueError(
                f"img_size ({self.img_size}) must be a multiple of patch_size ({self.patch_size})"
            )

    @property
    def tokens(self) -> int:
        """Patches in an image."""
        return (self.img_size // self.patch_size) ** 2

    @property
    def features(self) -> int:
        """Numbers in a patch."""
        return self.in_channels * self.patch_size**2


class FlowBlock(nn.Module):
    """One autoregressive transformation of the patch sequence."""

    def __init__(self, config: TarFlowConfig, reverse_order: bool) -> None:
        super().__init__()
        self.nvp = config.nvp
        self.reverse_order = reverse_order
        self.project_in = nn.Linear(config.features, config.channels)
        self.position = nn.Parameter(torch.randn(config.tokens, config.channels) * 0.01)
        self.class_table: nn.Parameter | None = None
        if config.num_classes:
            self.class_table = nn.Parameter(torch.randn(config.num_classes, config.channels) * 0.01)
        self.layers = nn.ModuleList(
            TransformerLayer(config.channels, config.head_dim, config.mlp_expansion)
            for _ in range(config.layers_per_block)
        )
        self.project_out = nn.Linear(config.channels, config.features * (2 if config.nvp else 1))
        # With a zero projection a fresh block is the identity.
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def in_order(self, sequence: Tensor, dim: int = 1) -> Tensor:
        """To this block's own reading direction, and back: the map is its own inverse."""
        return sequence.flip(dim) if self.reverse_order else sequence

    def class_vector(self, labels: Tensor | None) -> Tensor | None:
        """[n, channels] for labels [n], [1, channels] without; None for an unconditional model.

        A negative label means "no class", which is the mean of the class table.
        """
        if self.class_table is None:
            return None
        null = self.class_table.mean(dim=0, keepdim=True)
        if labels is None:
            return null
        return torch.where((labels < 0)[:, None], null, self.class_table[labels.clamp(min=0)])

    def embed(self, x: Tensor, position: Tensor, vector: Tensor | None) -> Tensor:
        """Patches [n, t, features] to the transformer's width; adds position [t, width], class [n, width]."""
        hidden = self.project_in(x.to(self.project_in.weight.dtype)) + position
        return hidden if vector is None else hidden + vector[:, None]

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, mu) from the output projection."""
        if not self.nvp:
            return torch.zeros_like(projected), projected
        alpha, mu = projected.chunk(2, dim=-1)
        return alpha, mu

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images to noise: x [n, tokens, features] -> (z of the same shape, logdet [n] per dimension)."""
        x = self.in_order(x)
        # The last token predicts nothing, so it is never read.
        hidden = self.embed(x[:, :-1], self.in_order(self.position, 0)[:-1], self.class_vector(labels))
        for layer in self.layers:
            hidden = layer(hidden)
        alpha, mu = self.split(F.pad(self.project_out(hidden).float(), (0, 0, 1, 0)))
        z = (x - mu) * (-alpha).exp()
        return self.in_order(z), -alpha.mean(dim=(1, 2))


class TarFlow(nn.Module):
    """The flow. Images are [n, c, h, w], nominally in [-1, 1]; latents are [n, tokens, features]."""

    prior_variance: Tensor

    def __init__(self, config: TarFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            FlowBlock(config, reverse_order=bool(index % 2)) for index in range(config.num_blocks)
        )
        self.register_buffer("prior_variance", torch.ones(config.tokens, config.features))

    def patchify(self, images: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, tokens, features]."""
        return patchify(images, self.config.patch_size)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """[n, tokens, features] -> [n, c, h, w]."""
        c = self.config
        return unpatchify(patches, c.patch_size, c.in_channels, c.img_size, c.img_size)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, trace: list[tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images to latents.

        labels [n], negative for "no class". Returns z [n, tokens, features] and the log-determinant [n]
        divided by the number of dimensions. `trace`, if given, receives (output, logdet) of every block.
        """
        x = self.patchify(images)
        logdet = x.new_zeros(len(x), dtype=torch.float32)
        for block in self.blocks:
            x, block_logdet = block(x, labels)
            logdet = logdet + block_logdet
            if trace is not None:
                trace.append((x, block_logdet))
        return x, logdet

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(tokens, features) of one sample's noise."""
        return self.config.tokens, self.config.features

    def log_prob(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p of images [n, c, h, w] under the prior N(0, prior_variance): [n], in nats for an image."""
        z, logdet = self(images, labels)
        variance = self.prior_variance.float()
        prior = -0.5 * (z.square() / variance + variance.log() + math.log(2.0 * math.pi)).sum(dim=(1, 2))
        return prior + logdet * z[0].numel()

    def bits_per_dim(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Bits per dimension [n] by the authors' evaluation, without labels.

        8-bit images [n, c, h, w] are dequantised with `uniform` in [0, 1). As in the authors' code the prior
        is the standard normal whatever `prior_variance` is, and a picture counts 3 h w dimensions.
        """
        z, logdet = self(dequantise(images, uniform))
        return (nll_per_dim(z, self.config.img_size) - logdet) / math.log(2.0)

    def update_prior(self, z: Tensor, rate: float = 0.1) -> None:
        """Move the volume-preserving model's prior variance towards the latents' [n, tokens, features]."""
        self.prior_variance.lerp_(z.detach().square().mean(dim=0), rate)

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes beside the weights: what guided decoding holds, or the activations of the denoising step."""
        c = self.config
        per_layer = batch_size * c.tokens * c.channels
        # Keys and values of both branches, float32 on a CPU; and one block's weights in another layout.
        cache = 2 * 2 * c.layers_per_block * per_layer * 4
        cache += sum(p.numel() for p in self.blocks[0].parameters()) * 4
        activations = (8 + 2 * c.mlp_expansion) * per_layer * 4 * c.layers_per_block
        attention = batch_size * c.tokens**2 * (c.channels // c.head_dim) * 4 * c.layers_per_block
        return max(cache, activations + attention) + 8 * batch_size * c.tokens * c.features * 4


def dequantise(images: Tensor, uniform: Tensor) -> Tensor:
    """8-bit values and uniform noise in [0, 1) to [-1, 1)."""
    return 2.0 * (images.float() + uniform) / 256.0 - 1.0


def nll_per_dim(z: Tensor, img_size: int) -> Tensor:
    """-log p(z) of dequantised 8-bit data per dimension, [n], in nats; the scale of [-1, 1) accounted for."""
    log_normal = -0.5 * (z.square() + math.log(2.0 * math.pi)).sum(dim=(1, 2))
    return -(log_normal - z[0].numel() * math.log(128.0)) / (3 * img_size**2)
