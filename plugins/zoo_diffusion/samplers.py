"""The samplers: a solver of `zoo.diffusion`, a model that offers `denoiser`, and the options of a request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from zoo.diffusion import solvers
from zoo.diffusion.denoising import Denoising
from zoo.diffusion.paths import path
from zoo.diffusion.sampling import NamedNoise, generate, pictures
from zoo.diffusion.solvers import Preview, Solver
from zoo.diffusion.spacing import times
from zoo.io.artifacts import Image
from zoo.runtime.capabilities import Denoiser
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.sampling import Batch, OnStep, wants_preview
from zoo_diffusion.options import DDIMOptions, DiffusionOptions, DPMOptions


def ddpm(
    loaded: LoadedModel, batch: Batch, options: DiffusionOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """Ancestral sampling (arXiv 2006.11239)."""
    return draw(loaded, batch, options, noise, on_step, solvers.ddpm)


def ddim(
    loaded: LoadedModel, batch: Batch, options: DDIMOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """Implicit sampling (arXiv 2010.02502)."""
    return draw(loaded, batch, options, noise, on_step, partial(solvers.ddim, eta=options.eta))


def euler(
    loaded: LoadedModel, batch: Batch, options: DiffusionOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """First order along the probability flow."""
    return draw(loaded, batch, options, noise, on_step, solvers.euler)


def heun(
    loaded: LoadedModel, batch: Batch, options: DiffusionOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """Second order along the probability flow (arXiv 2206.00364)."""
    return draw(loaded, batch, options, noise, on_step, solvers.heun)


def dpm2(
    loaded: LoadedModel, batch: Batch, options: DPMOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """DPM-Solver++ (2M) (arXiv 2211.01095)."""
    return draw(loaded, batch, options, noise, on_step, _multistep(2, options))


def dpm3(
    loaded: LoadedModel, batch: Batch, options: DPMOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """DPM-Solver++ with three points."""
    return draw(loaded, batch, options, noise, on_step, _multistep(3, options))


def draw(
    loaded: LoadedModel,
    batch: Batch,
    options: DiffusionOptions,
    noise: NoiseSource,
    on_step: OnStep,
    solver: Solver,
) -> list[Image]:
    """Pictures of a batch. `on_step` sees the predicted clean pictures of the highest level."""
    model: Denoiser = loaded.model
    levels, count = model.levels(batch.size), len(batch)
    condition = model.condition(batch, loaded.components, options.guidance != 1.0)
    visited = times(levels[0].schedule, options.steps, options.spacing)
    route = path([level.schedule for level in levels], visited)
    denoise = Denoising(
        model,
        levels,
        route,
        condition,
        count,
        options.guidance,
        options.threshold,
        loaded.dtype,
        loaded.device,
    )
    random = NamedNoise(noise, levels, count, loaded.device)
    state = generate(denoise, route, solver, random, _Report(on_step, levels[0].signal_scale))
    finished = pictures(state, levels, options.all_levels)
    return [Image(picture) for picture in finished.add(1.0).mul_(0.5).cpu()]


def _multistep(order: int, options: DPMOptions) -> Solver:
    return partial(solvers.dpm_multistep, order=order, lower_last=options.lower_last)


@dataclass(frozen=True)
class _Report:
    """Hands a solver's previews to a sampler's watcher, where it wants them."""

    on_step: OnStep
    signal_scale: float

    def __call__(self, step: int, total: int, preview: Preview) -> None:
        estimate = None
        if wants_preview(self.on_step, step, total):
            estimate = preview.clean().mul_(self.signal_scale).clamp_(-1.0, 1.0)
        self.on_step(step, total, estimate)
