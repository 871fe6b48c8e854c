"""The sampler: a batch's layers together, or one layer of given ones anew."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.diffusion.denoising import Denoise, Denoising
from zoo.diffusion.levels import Level
from zoo.diffusion.paths import Path, path
from zoo.diffusion.solvers import SOLVERS, Preview
from zoo.diffusion.spacing import times
from zoo.errors import InvalidInput
from zoo.io.layers import Layer, LayeredImage
from zoo.runtime.capabilities import LayeredDenoiser
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.sampling import Batch, Item, OnStep, wants_preview
from zoo_layerdiff.guidance import Given, LayerNoise, SelfMaskGuidance, WithGiven, later_part
from zoo_layerdiff.options import LayerDiffOptions
from zoo_layerdiff.pictures import composite, over_neutral, straight


def sample(
    loaded: LoadedModel, batch: Batch, options: LayerDiffOptions, noise: NoiseSource, on_step: OnStep
) -> list[LayeredImage]:
    """A layered picture for each sample of the batch, its layers named by their prompts.

    With `options.redraw`, each sample is given the layers [layers, 4, h, w] in [0, 1] of a picture, in the
    role "layers": all but that one come back as they are. Raises `InvalidInput` for layers that do not fit
    the request.
    """
    run = _Run(loaded, batch if options.layer_prompts else _without_prompts(batch, layers_only=True), options)
    given = run.given()
    drawn = LayerNoise(noise, run.layer, run.layers, len(batch), loaded.device)
    with torch.no_grad():
        denoise, start = run.denoise(), drawn.start()
        if given is not None:
            denoise, start = WithGiven(denoise, given), run.noisy(start, given)
        report = _Report(on_step, loaded)
        (clean,) = SOLVERS[options.solver](denoise, (start,), run.route, drawn, report)
        pictures, masks = run.model.decode(clean, loaded.components)
    return [
        _layered(pictures[row].cpu(), masks[row].cpu(), item, run) for row, item in enumerate(batch.items)
    ]


@dataclass(frozen=True)
class _Run:
    """What is worked out once for a batch."""

    loaded: LoadedModel
    batch: Batch
    options: LayerDiffOptions

    def __post_init__(self) -> None:
        level, options = self.model.level(self.batch.size), self.options
        visited = times(level.schedule, options.steps, options.spacing)
        later = visited if options.redraw is None else later_part(visited, options.strength)
        object.__setattr__(self, "layer", level)
        object.__setattr__(self, "route", path([level.schedule], later))

    layer: Level = dataclasses.field(init=False)
    route: Path = dataclasses.field(init=False)

    @property
    def model(self) -> LayeredDenoiser:
        model: LayeredDenoiser = self.loaded.model
        return model

    @property
    def counts(self) -> tuple[int, ...]:
        """Layers of each picture."""
        return tuple(len(parts) for parts in self.batch.part_prompts)

    @property
    def layers(self) -> int:
        """Layers of the picture that has most."""
        return max(self.counts)

    def denoise(self) -> Denoise:
        """The network with its guidance."""
        options, loaded, model = self.options, self.loaded, self.model
        guided = options.guidance != 1.0 or options.mask_guidance > 0
        condition = model.condition(self.batch, loaded.components, guided, options.inter_layer)
        level = dataclasses.replace(self.layer, shape=(self.layers, *self.layer.shape))
        denoising = Denoising(
            model,
            [level],
            self.route,
            condition,
            len(self.batch),
            options.guidance,
            options.threshold,
            loaded.dtype,
            loaded.device,
            doubled=guided,
        )
        if not options.mask_guidance:
            return denoising
        nothing = _without_prompts(self.batch)
        alone = model.condition(nothing, loaded.components, False, options.inter_layer)
        skipped = options.steps - self.route.steps
        first = max(0, round(options.mask_guidance_from * options.steps) - skipped)
        return SelfMaskGuidance(
            model,
            denoising,
            self.route,
            alone,
            options.guidance,
            options.mask_guidance,
            first,
            self.counts,
            loaded.dtype,
        )

    @property
    def pictures(self) -> tuple[Tensor, ...]:
        """The layers that each sample is given; () where they are given none."""
        return tuple(layers for layers in self.batch.images_of("layers") if layers is not None)

    def given(self) -> Given | None:
        """The layers to keep, where one of them is drawn anew."""
        redraw, pictures = self.options.redraw, self.pictures
        if redraw is None:
            if pictures:
                raise InvalidInput("layers were given, and none of them is to be drawn anew", "Set redraw.")
            return None
        if len(pictures) < len(self.batch):
            raise InvalidInput(
                f"layer {redraw} is to be drawn anew, and the picture that it belongs to is missing",
                "zoo edit FILE --layer NUMBER takes it from a file; what it made cannot be replayed.",
            )
        for layers, count in zip(pictures, self.counts, strict=True):
            self._check(layers, count, redraw)
        # Samples of one picture share its layers.
        encoded = {id(layers): self._encode(layers) for layers in pictures}
        clean = torch.stack([encoded[id(layers)] for layers in pictures])
        return Given(clean, torch.arange(self.layers, device=clean.device) != redraw)

    def _encode(self, layers: Tensor) -> Tensor:
        """Clean layers [layers, c, h, w], zeros behind those of a picture that has fewer than others."""
        pictures, masks = over_neutral(layers.to(self.loaded.device).float())
        (clean,) = self.model.encode(pictures[None], masks[None], self.loaded.components)
        behind = clean.new_zeros(self.layers - len(clean), *clean.shape[1:])
        return torch.cat([clean, behind])

    def _check(self, layers: Tensor, prompts: int, redraw: int) -> None:
        if redraw >= len(layers):
            raise InvalidInput(f"there is no layer {redraw}, expected 0 to {len(layers) - 1}")
        if prompts != len(layers):
            raise InvalidInput(
                f"{len(layers)} layers were given with {prompts} layer prompts, expected as many of both"
            )
        side = self.model.picture_size
        if tuple(layers.shape[1:]) != (4, side, side):
            raise InvalidInput(f"layers have shape {list(layers.shape)}, expected [n, 4, {side}, {side}]")

    def noisy(self, noise: Tensor, given: Given) -> Tensor:
        """The state at the start of the route; the layer to draw is noise alone unless some of it stays."""
        alpha, sigma = self.route.levels[0].alphas[0], self.route.levels[0].sigmas[0]
        known = alpha * given.clean + sigma * noise
        return given.over(noise, known) if self.options.strength == 1.0 else known


@dataclass(frozen=True)
class _Report:
    """Hands composites of a solver's estimates to a sampler's watcher, where it wants them."""

    on_step: OnStep
    loaded: LoadedModel

    def __call__(self, step: int, total: int, preview: Preview) -> None:
        estimate = None
        if wants_preview(self.on_step, step, total):
            estimate = composite(*self.loaded.model.decode(preview.clean(), self.loaded.components))
        self.on_step(step, total, estimate)


def _layered(pictures: Tensor, masks: Tensor, item: Item, run: _Run) -> LayeredImage:
    """The layers of one sample, from pictures [layers, 3, h, w] in [-1, 1] and masks [layers, h, w]."""
    parts = item.part_prompts
    pictures, masks = pictures[: len(parts)].float(), masks[: len(parts)].float()
    masks = torch.cat([torch.ones_like(masks[:1]), masks[1:]])
    made = straight(pictures, masks)
    if "layers" in item.images:
        kept, redraw = item.images["layers"].pixels, run.options.redraw
        made = torch.stack([made[i] if i == redraw else kept[i] for i in range(len(parts))])
    layers = tuple(Layer(pixels, name) for pixels, name in zip(made, parts, strict=True))
    side = run.model.picture_size
    return LayeredImage((side, side), layers, drawn=pictures.add(1.0).mul(0.5))


def _without_prompts(batch: Batch, layers_only: bool = False) -> Batch:
    """The batch with empty layer prompts; and, unless `layers_only`, as the unconditional half has it."""
    items = []
    for item in batch.items:
        empty = dataclasses.replace(item, part_prompts=("",) * len(item.part_prompts))
        items.append(empty if layers_only else dataclasses.replace(empty, prompt=item.negative))
    return dataclasses.replace(batch, items=tuple(items))
