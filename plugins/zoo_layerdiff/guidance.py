"""From the network to clean layers: classifier-free guidance, self-mask guidance, and layers that are given.

Self-mask guidance uses the masks that the model itself predicts while it denoises (arXiv 2403.11929). Its
formula is not published; ours follows self-attention guidance (arXiv 2210.00939) with those masks in the
place of attention: the unconditional estimate is blurred where the masks say that there is something, gets
its noise back, and the difference that this makes to the predicted noise is added,

    eps = eps_u + w (eps_c - eps_u) + s (eps_u - eps_blurred),

so that the result moves away from what is blurred inside its own masks. It takes a third evaluation, and is
left out in the first steps, where the masks are noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.diffusion.denoising import Denoise, Denoising
from zoo.diffusion.guidance import guided
from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import clean_from, noise_from, target_weights
from zoo.diffusion.paths import Path
from zoo.runtime.capabilities import LayeredDenoiser
from zoo.runtime.noise import NoiseSource

#: Standard deviation of the blur and half the width of its kernel, in positions of the state: those of
#: self-attention guidance.
BLUR, BLUR_REACH = 1.0, 4


@dataclass(frozen=True)
class SelfMaskGuidance:
    """A `Denoise` with classifier-free and self-mask guidance.

    denoising: classifier-free guidance of weight `guidance` alone, made with `doubled`. alone: the condition
    of the unconditional rows. weight: s above. first: the point of the route from which it is on. counts: how
    many layers each picture has.
    """

    model: LayeredDenoiser
    denoising: Denoising
    route: Path
    alone: Any
    guidance: float
    weight: float
    first: int
    counts: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self, x: State, point: int) -> State:
        (both,) = self.denoising.branches(x, point)
        predicted = guided(both, self.guidance)
        alpha, sigma = self.route.levels[0].alphas[point], self.route.levels[0].sigmas[point]
        if point >= self.first and alpha > 0:
            of_clean, of_noise = target_weights(self.model.prediction, alpha, sigma)
            # More noise by d is less clean data by d sigma / alpha in the same x.
            share = self.weight * (of_noise - of_clean * sigma / alpha)
            predicted = predicted + share * self._difference(x[0], both.chunk(2)[0], point)
        return self.denoising.clean(x, (predicted,), point)

    def _difference(self, x: Tensor, unconditional: Tensor, point: int) -> Tensor:
        """eps_u - eps_blurred, from the unconditional prediction."""
        alpha, sigma = self.route.levels[0].alphas[point], self.route.levels[0].sigmas[point]
        kind = self.model.prediction
        clean = clean_from(kind, x, unconditional, alpha, sigma)
        eps = noise_from(x, clean, alpha, sigma)
        noisy = alpha * degraded(self.model, clean, self.counts) + sigma * eps
        time = torch.full((len(x),), self.route.network_times[point], device=x.device)
        (raw,) = self.model.predict((noisy.to(self.dtype),), time, self.alone)
        return eps - noise_from(noisy, clean_from(kind, noisy, raw.float(), alpha, sigma), alpha, sigma)


def degraded(model: LayeredDenoiser, clean: Tensor, counts: Sequence[int]) -> Tensor:
    """Clean layers [n, layers, c, h, w] with their pictures blurred where masks say that there is something.

    For the background that is what no other layer hides. Masks stay as they are. Of picture i only the first
    `counts[i]` layers are its own.
    """
    masks = model.masks(clean).clone()
    for row, count in enumerate(counts):
        masks[row, count:] = 0.0
    masks[:, 0] = 1.0 - masks[:, 1:].amax(dim=1)
    pictures = clean[:, :, : model.picture_channels]
    soft = torch.lerp(pictures, blurred(pictures), masks)
    return torch.cat([soft, clean[:, :, model.picture_channels :]], dim=2)


def blurred(pictures: Tensor) -> Tensor:
    """[..., h, w] under a Gaussian, the edge repeated outside."""
    places = torch.arange(-BLUR_REACH, BLUR_REACH + 1, dtype=pictures.dtype, device=pictures.device)
    kernel = torch.exp(-0.5 * (places / BLUR).square())
    kernel = kernel / kernel.sum()
    flat = pictures.reshape(-1, 1, *pictures.shape[-2:])
    padded = F.pad(flat, (BLUR_REACH,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).view(pictures.shape)


@dataclass(frozen=True)
class Given:
    """Layers that are not to change. clean: [n, layers, c, h, w]; kept: bool [layers]."""

    clean: Tensor
    kept: Tensor

    def over(self, state: Tensor, other: Tensor) -> Tensor:
        """`state` with the kept layers of `other`."""
        return torch.where(self.kept[:, None, None, None], other, state)


@dataclass(frozen=True)
class WithGiven:
    """A `Denoise` that answers with the given layers where they are kept.

    Deterministic solvers then move them along straight paths from their noise to exactly what they are.
    """

    denoise: Denoise
    given: Given

    def __call__(self, x: State, point: int) -> State:
        (clean,) = self.denoise(x, point)
        return (self.given.over(clean, self.given.clean),)


@dataclass(frozen=True)
class LayerNoise:
    """The random numbers of a run: every layer has draws of its own, "start.layer<i>" and "step<k>.layer<i>".

    So a layer's noise depends neither on how many layers there are nor on the other samples of a batch.
    """

    source: NoiseSource
    layer: Level
    layers: int
    count: int
    device: torch.device

    def start(self) -> Tensor:
        """Standard normal [count, layers, c, h, w]."""
        return self._draw("start")

    def __call__(self, step: int) -> State:
        return (self._draw(f"step{step}"),)

    def _draw(self, name: str) -> Tensor:
        shape = (self.count, *self.layer.shape)
        drawn = [self.source.normal(f"{name}.layer{index}", shape) for index in range(self.layers)]
        return torch.stack(drawn, dim=1).to(self.device)


def later_part(times: Sequence[float], strength: float) -> list[float]:
    """The last share `strength` of a path's steps, at least one."""
    steps = len(times) - 1
    made = max(1, round(strength * steps))
    return list(times[steps - made :])
