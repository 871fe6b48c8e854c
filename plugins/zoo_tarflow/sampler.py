"""TarFlow's sampler: guided autoregressive inversion, then one denoising step (arXiv 2412.06329)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.nn.transformer import KVCache
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.sampling import Batch, OnStep
from zoo_tarflow.model import FlowBlock, TarFlow

#: Above this many tokens the denoising step recomputes each block's activations rather than keep all.
RECOMPUTE_TOKENS = 256
#: Pictures times tokens that one denoising pass takes at once; splitting a batch does not change the result.
DENOISE_TOKENS = 8192


@dataclass(frozen=True)
class TarFlowOptions:
    """Options of the sampler `tarflow`."""

    guidance: float = 0.0  #: weight w: conditional + w (conditional - unconditional); 0 is off
    guide: Literal["ab", "a", "b", ""] = "ab"  #: guide the log-scale (a), the shift (b) or both
    anneal: bool = True  #: let the weight grow linearly along each block's sequence
    attention_temperature: float = 1.0  #: divides the unconditional branch's attention logits
    denoise: float = 1.0  #: multiplier of the denoising step; 0 is off
    noise_std: float = 0.0  #: noise level the model was trained with, in units of [-1, 1]; 0 skips denoising

    def __post_init__(self) -> None:
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
    guided = _guidance_acts(model, labels, options)
    tokens, blocks = model.config.tokens, len(model.blocks)
    total = blocks * (tokens - 1)
    with torch.no_grad():
        x = latents * model.prior_variance.float().sqrt()
        caches = _empty_caches(model, len(latents) * (2 if guided else 1))
    for done, block in enumerate(reversed(model.blocks)):
        report = _TokenReport(on_step, done * (tokens - 1), total)
        with torch.inference_mode():
            inverted = invert_block(block, x, labels, options if guided else None, caches, report)
        # A copy made outside inference mode is an ordinary tensor: the denoising step differentiates it.
        x = inverted.clone()
        on_step((done + 1) * (tokens - 1), total, model.unpatchify(x).clone())
    return model.unpatchify(x)


@dataclass(frozen=True)
class _TokenReport:
    """Numbers the tokens of one block within the whole run."""

    on_step: OnStep
    before: int
    total: int

    def __call__(self, token: int) -> None:
        self.on_step(self.before + token, self.total, None)


def _guidance_acts(model: TarFlow, labels: Tensor | None, options: TarFlowOptions) -> bool:
    """Whether the unconditional branch can differ from the conditional one, and is asked for."""
    conditional = bool(model.config.num_classes) and labels is not None
    differs = conditional or options.attention_temperature != 1.0
    return bool(options.guidance and options.guide) and differs


def _empty_caches(model: TarFlow, rows: int) -> list[KVCache]:
    c = model.config
    weight = model.blocks[0].project_in.weight
    heads = c.channels // c.head_dim
    return [KVCache.empty(rows, heads, c.tokens, c.head_dim, weight) for _ in range(c.layers_per_block)]


def invert_block(
    block: FlowBlock,
    z: Tensor,
    labels: Tensor | None,
    guide: TarFlowOptions | None,
    caches: list[KVCache],
    report: _TokenReport,
) -> Tensor:
    """Undo one block: z [n, tokens, features] -> x of the same shape.

    Conditional and unconditional rows run as one batch; both read the guided tokens.
    """
    x = block.in_order(z).clone()
    position = block.in_order(block.position, 0)
    n, tokens, _ = x.shape
    branches = 1 if guide is None else 2
    vector = _branch_vectors(block, labels, n, branches)
    query_scale = _query_scale(guide, n, position)
    for index in range(tokens - 1):
        token = x[:, index : index + 1].expand(n, 1, -1).repeat(branches, 1, 1)
        hidden = block.embed(token, position[index : index + 1], vector)
        for layer, cache in zip(block.layers, caches, strict=True):
            hidden = layer.step(hidden, cache, index, query_scale)
        alpha, mu = block.split(block.project_out(hidden[:, 0]).float())
        if guide is not None:
            weight = guide.guidance * ((index + 1) / (tokens - 1) if guide.anneal else 1.0)
            alpha = _guided(alpha, n, weight if "a" in guide.guide else 0.0)
            mu = _guided(mu, n, weight if "b" in guide.guide else 0.0)
        x[:, index + 1].mul_(alpha.exp()).add_(mu)
        report(index + 1)
    return block.in_order(x)


def _branch_vectors(block: FlowBlock, labels: Tensor | None, n: int, branches: int) -> Tensor | None:
    conditional = block.class_vector(labels)
    if conditional is None or branches == 1:
        return conditional
    null = block.class_vector(None)
    assert null is not None
    return torch.cat((conditional.expand(n, -1), null.expand(n, -1)))


def _query_scale(guide: TarFlowOptions | None, n: int, like: Tensor) -> Tensor | None:
    """[rows, 1, 1, 1]: the temperature touches the unconditional rows only."""
    if guide is None or guide.attention_temperature == 1.0:
        return None
    scale = like.new_ones(2 * n, 1, 1, 1)
    scale[n:] = 1.0 / guide.attention_temperature
    return scale


def _guided(value: Tensor, n: int, weight: float) -> Tensor:
    conditional, unconditional = value[:n], value[n:]
    return torch.lerp(unconditional, conditional, 1.0 + weight)


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
    pieces = []
    for start in range(0, len(images), size):
        chosen = None if labels is None else labels[start : start + size]
        pieces.append(_score_chunk(model, images[start : start + size], chosen))
    return torch.cat(pieces)


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
