"""TarFlow's sampler: guided autoregressive inversion, then one denoising step (arXiv 2412.06329)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.runtime.decoding.engine import Engine
from zoo.runtime.decoding.options import DecodingOptions
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.reports import Work, report
from zoo.runtime.sampling import Batch, OnStep, wants_preview
from zoo_tarflow.decoder import Guidance, TarFlowNetwork
from zoo_tarflow.model import TarFlow

#: Above this many tokens the denoising step recomputes each block's activations rather than keep all.
RECOMPUTE_TOKENS = 256
#: Pictures times tokens that one denoising pass takes at once; splitting a batch does not change the result.
DENOISE_TOKENS = 8192


@dataclass(frozen=True)
class TarFlowOptions(DecodingOptions):
    """Options of the sampler `tarflow`."""

    guidance: float = 0.0  #: weight w: conditional + w (conditional - unconditional); 0 is off
    guide: Literal["ab", "a", "b", ""] = "ab"  #: guide the log-scale (a), the shift (b) or both
    anneal: bool = True  #: let the weight grow linearly along each block's sequence
    attention_temperature: float = 1.0  #: divides the unconditional branch's attention logits
    denoise: float = 1.0  #: multiplier of the denoising step; 0 is off
    noise_std: float = 0.0  #: noise level the model was trained with, in units of [-1, 1]; 0 skips denoising

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is {self.guidance}, expected a number of at least 0")
        if not 0 < self.attention_temperature < float("inf"):
            raise ValueError(
                f"attention_temperature is {self.attention_temperature}, expected a positive number"
            )
        if not (0 <= self.denoise < float("inf") and 0 <= self.noise_std < float("inf")):
            raise ValueError("denoise and noise_std are numbers of at least 0")


def sample(
    loaded: LoadedModel, batch: Batch, options: TarFlowOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """Draw images. `on_step` sees the image-shaped state, unclipped, after every block."""
    model: TarFlow = loaded.model
    side = model.config.img_size
    if batch.size not in (None, (side, side)):
        raise InvalidInput(f"{loaded.reference} makes pictures of {side}x{side}", "Leave out --size.")
    latents = noise.normal("latents", (len(batch), *model.latent_shape)).to(loaded.device)
    labels = None if batch.labels is None else batch.labels.to(loaded.device)
    images = invert(model, latents, labels, options, on_step)
    if options.denoise and options.noise_std:
        images = denoise(model, images, labels, options.noise_std, options.denoise)
    pixels = (images.clamp(-1.0, 1.0) + 1.0) * 0.5
    return [Image(picture) for picture in pixels.float().cpu()]


def invert(
    model: TarFlow, latents: Tensor, labels: Tensor | None, options: TarFlowOptions, on_step: OnStep
) -> Tensor:
    """Noise [n, tokens, features] to images [n, c, h, w], blocks last to first."""
    blocks, tokens = list(reversed(model.blocks)), model.config.tokens
    guidance = Guidance.of(model, labels, options)
    with torch.no_grad():
        x = (latents * model.prior_variance.float().sqrt()).transpose(0, 1)
    with torch.inference_mode():
        rows = len(latents) * guidance.branches
        engine = Engine(blocks, rows, tokens, options, guidance.query_scale(len(latents), latents.device))
        network = TarFlowNetwork(model.config, engine.layers, guidance, latents)
    steps = len(blocks) * (tokens - 1)
    for done, block in enumerate(blocks):
        network.load(block, labels)
        on_token = _TokenReport(on_step, done * (tokens - 1), steps)
        # A copy made outside inference mode is an ordinary tensor: the denoising step differentiates it.
        x = engine.invert(network, x, on_token).clone()
        step = (done + 1) * (tokens - 1)
        seen = wants_preview(on_step, step, steps)
        on_step(step, steps, model.unpatchify(x.transpose(0, 1)).clone() if seen else None)
    engine.report()
    return model.unpatchify(x.transpose(0, 1))


@dataclass(frozen=True)
class _TokenReport:
    """Numbers the tokens of one block within the whole run."""

    on_step: OnStep
    before: int
    total: int

    def __call__(self, token: int) -> None:
        self.on_step(self.before + token, self.total, None)


def denoise(
    model: TarFlow, images: Tensor, labels: Tensor | None, noise_std: float, multiplier: float = 1.0
) -> Tensor:
    """x + multiplier sigma^2 grad log p(x): Tweedie's estimate of the clean image, the paper's denoising.

    images [n, c, h, w] as sampled, not clipped.
    """
    return images + multiplier * noise_std**2 * score(model, images, labels)


def score(model: TarFlow, images: Tensor, labels: Tensor | None) -> Tensor:
    """grad log p of each image [n, c, h, w], under the standard normal prior."""
    size = max(1, DENOISE_TOKENS // model.config.tokens)
    report(_score_work(model, len(images), size))
    pieces = []
    for start in range(0, len(images), size):
        chosen = None if labels is None else labels[start : start + size]
        pieces.append(_score_chunk(model, images[start : start + size], chosen))
    return torch.cat(pieces)


def _score_work(model: TarFlow, n: int, chunk: int) -> Work:
    c, weights = model.config, sum(parameter.numel() for parameter in model.parameters())
    # Forward, and backward to the inputs; the forward pass twice where activations are not kept.
    passes = 3 if c.tokens > RECOMPUTE_TOKENS else 2
    attention = 2 * c.num_blocks * c.layers_per_block * c.channels * c.tokens**2
    read = weights * model.prior_variance.element_size()
    return Work(
        stage="denoising",
        bytes=passes * read * -(-n // chunk),
        flops=passes * n * (2 * weights * c.tokens + attention),
        working_set=read,
    )


def _score_chunk(model: TarFlow, images: Tensor, labels: Tensor | None) -> Tensor:
    with torch.enable_grad():
        leaf = images.detach().float().requires_grad_(True)
        x, logdet = model.patchify(leaf), leaf.new_zeros(len(leaf))
        for block in model.blocks:
            if model.config.tokens > RECOMPUTE_TOKENS:
                x, change = checkpoint(block, x, labels, use_reentrant=False)
            else:
                x, change = block(x, labels)
            logdet = logdet + change
        dimensions = x[0].numel()
        log_prob = -0.5 * x.square().sum() + dimensions * logdet.sum()
        (gradient,) = torch.autograd.grad(log_prob, leaf)
    return gradient
