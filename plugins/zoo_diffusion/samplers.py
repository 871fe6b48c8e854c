"""The samplers: a solver of `zoo.diffusion`, a model that offers `denoiser`, and the options of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from zoo_diffusion.options import DiffusionOptions


@dataclass(frozen=True)
class Sampler:
    """Draws with the solver that `solver` makes of the options."""

    solver: Callable[[Any], Solver]

    def __call__(
        self,
        loaded: LoadedModel,
        batch: Batch,
        options: DiffusionOptions,
        noise: NoiseSource,
        on_step: OnStep,
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
        report = _Report(on_step, levels[0].signal_scale)
        state = generate(denoise, route, self.solver(options), random, report)
        finished = pictures(state, levels, options.all_levels)
        return [Image(picture) for picture in finished.add(1.0).mul_(0.5).cpu()]


#: Ancestral sampling (arXiv 2006.11239).
ddpm = Sampler(lambda options: solvers.ddpm)
#: Implicit sampling (arXiv 2010.02502).
ddim = Sampler(lambda options: partial(solvers.ddim, eta=options.eta))
#: First order along the probability flow.
euler = Sampler(lambda options: solvers.euler)
#: Second order along the probability flow (arXiv 2206.00364).
heun = Sampler(lambda options: solvers.heun)
#: DPM-Solver++ (2M) (arXiv 2211.01095).
dpm2 = Sampler(lambda options: partial(solvers.dpm_multistep, order=2, lower_last=options.lower_last))
#: DPM-Solver++ with three points.
dpm3 = Sampler(lambda options: partial(solvers.dpm_multistep, order=3, lower_last=options.lower_last))


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
