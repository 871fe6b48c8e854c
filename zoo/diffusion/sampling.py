"""One run of a solver on a model: noise by name, start, loop, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.diffusion.denoising import Denoise
from zoo.diffusion.levels import Level, State
from zoo.diffusion.paths import Path
from zoo.diffusion.solvers import Progress, Solver, unreported

if TYPE_CHECKING:
    from zoo.runtime.noise import NoiseSource


@dataclass(frozen=True)
class NamedNoise:
    """The random numbers of a run, for `count` samples on `device`.

    The draws are called "start.level<l>" and "step<k>.level<l>", levels and steps counted from 0. Their
    names and shapes do not depend on the batch, so neither does a sample.
    """

    source: NoiseSource
    levels: Sequence[Level]
    count: int
    device: torch.device

    def start(self, path: Path) -> State:
        """The state at the first point of a path: standard normal, times sigma where that is above 1."""
        scales = [max(1.0, level.sigmas[0]) for level in path.levels]
        drawn = self._draw("start")
        return tuple(value if s == 1.0 else s * value for value, s in zip(drawn, scales, strict=True))

    def __call__(self, step: int) -> State:
        return self._draw(f"step{step}")

    def _draw(self, name: str) -> State:
        shapes = [(self.count, *level.shape) for level in self.levels]
        drawn = (self.source.normal(f"{name}.level{i}", shape) for i, shape in enumerate(shapes))
        return tuple(_moved(tensor, self.device) for tensor in drawn)


def generate(
    denoise: Denoise, path: Path, solver: Solver, noise: NamedNoise, on_step: Progress = unreported
) -> State:
    """Clean data of every level, as the solver leaves it: not clamped, and divided by the signal scales."""
    with torch.no_grad():
        return solver(denoise, noise.start(path), path, noise, on_step)


def pictures(state: State, levels: Sequence[Level], all_levels: bool = False) -> Tensor:
    """Finished samples [n, c, h, w] in [-1, 1], float32: the highest level.

    all_levels: put the lower ones left of it, the lowest first, each enlarged to its size: [n, c, h, k w].
    """
    scaled = [
        (value.float() * level.signal_scale).clamp(-1.0, 1.0)
        for value, level in zip(state, levels, strict=True)
    ]
    if not all_levels:
        return scaled[0]
    size = scaled[0].shape[-2:]
    lower = [interpolate(value, size, mode="bilinear") for value in reversed(scaled[1:])]
    return torch.cat([*lower, scaled[0]], dim=-1)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    # A copy from pageable memory would wait for everything that the device still has to do.
    return tensor.pin_memory().to(device, non_blocking=True)
