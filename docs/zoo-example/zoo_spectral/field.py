"""Spectral synthesis: pictures as Gaussian random fields with a power-law spectrum.

White noise w is filtered in the frequency domain (F) and mixed into colours:

    x = mean + mixing F^-1[a(k) F[w]],    a(k) = side |k|^(-slope / 2),    a(0) = side level

with k in cycles per shorter side of the picture, so that power falls as |k|^-slope and a larger picture shows
the same clouds in more detail. The map from w to x is linear and invertible, hence the density is exact:

    log p(x) = log N(w; 0, 1) - channels sum_k log a(k) - pixels log |det mixing|
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from zoo.io.artifacts import Image
from zoo.shapes.batches import single_objects
from zoo.training.recipe import Budget


@dataclass(frozen=True)
class FieldConfig:
    """What determines the model: its tensors, and the picture's side where a request names no size."""

    channels: int = 3
    size: int = 256  #: pixels


class Field(nn.Module):
    """The field. Pictures are [n, channels, h, w] in [0, 1], noise has the same shape."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.mean = nn.Parameter(torch.full((config.channels,), 0.5))
        self.mixing = nn.Parameter(torch.zeros(config.channels, config.channels).fill_diagonal_(0.1))
        self.slope = nn.Parameter(torch.tensor(3.0))
        self.level = nn.Parameter(torch.tensor(1.0))

    def amplitude(self, height, width):
        """a(k) on the grid of the discrete Fourier transform: [h, w]."""
        side = min(height, width)
        rows = torch.fft.fftfreq(height, 1 / side, device=self.mean.device)
        columns = torch.fft.fftfreq(width, 1 / side, device=self.mean.device)
        distance = torch.hypot(rows[:, None], columns)
        origin = distance == 0
        # Adding `origin` keeps the power, and its gradient, finite where it is not used.
        return side * torch.where(origin, self.level, (distance + origin) ** (-self.slope / 2))

    def synthesise(self, noise):
        """White noise to pictures."""
        filtered = torch.fft.ifft2(torch.fft.fft2(noise) * self.amplitude(*noise.shape[-2:])).real
        return torch.einsum("ij,njhw->nihw", self.mixing.float(), filtered) + self.mean[:, None, None]

    def log_prob(self, images):
        """log p of pictures [n, channels, h, w]: [n], in nats."""
        amplitude = self.amplitude(*images.shape[-2:])
        unmixed = torch.einsum("ij,njhw->nihw", self.mixing.inverse(), images - self.mean[:, None, None])
        noise = torch.fft.fft2(unmixed, norm="ortho") / amplitude
        normal = -0.5 * (noise.abs() ** 2 + math.log(2 * math.pi)).sum(dim=(1, 2, 3))
        return normal - len(self.mean) * amplitude.log().sum() - amplitude.numel() * self.mixing.slogdet()[1]


def convert(tensors, config):
    """Statistics of a field to ours: mean `mu`, colour covariance `sigma`, slope `beta`, level `a0`."""
    mixing = torch.linalg.cholesky(tensors["sigma"].float())
    return {"mean": tensors["mu"], "mixing": mixing, "slope": tensors["beta"], "level": tensors["a0"]}


def export(tensors, config):
    """The inverse of `convert`. Any square root of `sigma` gives the same field."""
    sigma = tensors["mixing"].float() @ tensors["mixing"].float().T
    return {"mu": tensors["mean"], "sigma": sigma, "beta": tensors["slope"], "a0": tensors["level"]}


@dataclass(frozen=True)
class SpectralOptions:
    """Options of the sampler `spectral`."""

    temperature: float = 1.0  #: multiplies the noise; 0 gives the mean colour


def sample(loaded, batch, options, noise, on_step):
    """Draw pictures of any size: one draw of white noise, no steps."""
    model = loaded.model
    height, width = batch.size or (model.config.size, model.config.size)
    white = noise.normal("white", (len(batch), model.config.channels, height, width)).to(loaded.device)
    with torch.inference_mode():
        pictures = model.synthesise(options.temperature * white)
    on_step(1, 1, pictures)
    return [Image(picture) for picture in pictures.clamp(0.0, 1.0).cpu()]


class CloudsRecipe:
    """Maximum likelihood of 32x32 pictures of single shapes; takes seconds."""

    seed = 0
    budget = Budget(
        steps=1000, batch_size=32, learning_rate=0.01, betas=(0.9, 0.99), ema_decay=0.99, autocast=None
    )

    def batch(self, noise, size):
        images, _ = single_objects(noise, size, 32)
        return {"images": (images + 1.0) / 2.0}

    def loss(self, model, batch, noise):
        images = batch["images"]
        return -model.log_prob(images).mean() / images[0].numel()
