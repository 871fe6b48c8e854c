"""The pixel branch: an encoder to codes, and the decoder that draws from the codes of both branches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.residual import activated
from zoo_illume.config import CoderConfig, PixelConfig
from zoo_illume.convolutions import Downsample, Level, Middle, Upsample, norm_of
from zoo_illume.simvq import Quantised, SimVQ

#: Tensors of the finest level that are held at a time, as measured; a decoder's norms read codes.
ENCODING, DECODING = 5, 6


def widest_coding(config: CoderConfig, pixels: int, tensors: int) -> int:
    """Numbers that a coder holds at its widest place for so many pixels; `tensors` is one of the above."""
    return tensors * pixels * max(config.channels, config.widths[0])


@dataclass(frozen=True)
class PixelCodes:
    """What the pixel branch makes of n pictures, whose grid of codes is h x w.

    encoded: [n, dim, h, w], the encoder's output, which ILLUME+ reads pictures by.
    features: [n, dim, h, w], `encoded` through a 1x1 convolution, before they are quantised.
    quantised: their codes, indices [n, h, w] and loss.
    """

    encoded: Tensor
    features: Tensor
    quantised: Quantised


class PixelEncoder(nn.Module):
    """Pictures to features of a `factor` times smaller grid."""

    def __init__(self, config: CoderConfig) -> None:
        super().__init__()
        self.config = config
        groups, last = config.norm_groups, len(config.widths) - 1
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        current = config.channels
        for index, width in enumerate(config.widths):
            inputs = [current, *itertools.repeat(width, config.residual_blocks)][: config.residual_blocks]
            current = width if inputs else current
            resample = None if index == last else Downsample(current)
            attends = index in config.attention_levels
            self.down.append(Level(inputs, current, groups, attends=attends, resample=resample))
        self.middle = Middle(current, groups)
        self.norm_out = norm_of(current, groups, 0)
        self.conv_out = nn.Conv2d(current, config.latent, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, 3, h * factor, w * factor] in [-1, 1] -> [n, latent, h, w].

        The means of the last features' channels, in `latent` equal parts, are added to the last convolution.
        """
        x = self.conv_in(images.to(self.conv_in.weight.dtype))
        for level in self.down:
            x = level(x)
        x = activated(self.norm_out(self.middle(x)))
        n, channels, height, width = x.shape
        parts = x.reshape(n, self.config.latent, channels // self.config.latent, height, width)
        return torch.add(self.conv_out(x), parts.mean(dim=2))


class PixelDecoder(nn.Module):
    """Merged codes to pictures; `up[i]` is level i, of which 0 is the finest."""

    def __init__(self, config: CoderConfig) -> None:
        super().__init__()
        groups, codes = config.norm_groups, config.latent
        current = config.widths[-1]
        self.conv_in = nn.Conv2d(config.latent, current, 3, padding=1)
        self.middle = Middle(current, groups, codes)
        levels = []
        for index, width in reversed(list(enumerate(config.widths))):
            inputs = [current, *itertools.repeat(width, config.residual_blocks)]
            resample = Upsample(width) if index else None
            levels.append(Level(inputs, width, groups, codes, index in config.attention_levels, resample))
            current = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = norm_of(current, groups, codes)
        self.conv_out = nn.Conv2d(current, 3, 3, padding=1)

    def forward(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Latents and codes for the norms, both [n, latent, h, w] -> [n, 3, h * factor, w * factor].

        The latents, each channel repeated to the width of the first convolution, are added to its output.
        """
        x = self.conv_in(latents)
        x = x + latents.repeat_interleave(x.shape[1] // latents.shape[1], dim=1)
        x = self.middle(x, codes)
        for level in reversed(self.up):
            x = level(x, codes)
        drawn: Tensor = self.conv_out(activated(self.norm_out(x, codes)))
        return drawn


class PixelBranch(nn.Module):
    """Encoder, quantiser and decoder of pixels."""

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.encoder = PixelEncoder(config.encoder)
        self.to_codes = nn.Conv2d(config.encoder.latent, config.quantiser.dim, 1)
        self.quantiser = SimVQ(config.quantiser)
        self.from_codes = nn.Conv2d(config.decoder.latent, config.decoder.latent, 1)
        self.decoder = PixelDecoder(config.decoder)

    def encode(self, images: Tensor) -> PixelCodes:
        """Images [n, 3, h * factor, w * factor] in [-1, 1]."""
        encoded = self.encoder(images)
        features = self.to_codes(encoded)
        return PixelCodes(encoded, features, self.quantiser(features))

    def decode(self, merged: Tensor) -> Tensor:
        """Merged codes [n, dims of both branches, h, w] -> images [n, 3, h * factor, w * factor]."""
        codes = merged.to(self.from_codes.weight.dtype)
        images: Tensor = self.decoder(self.from_codes(codes), codes)
        return images


def merged_codes(semantic: Tensor, pixel: Tensor) -> Tensor:
    """Codes [n, a, h1, w1] and [n, b, h2, w2] to [n, a + b, h2, w2], semantic first, float32.

    The semantic ones are resized to the other grid, bicubic without antialias.
    """
    resized = F.interpolate(semantic.float(), pixel.shape[-2:], mode="bicubic", align_corners=False)
    return torch.cat([resized, pixel.float()], dim=1)
