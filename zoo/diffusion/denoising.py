"""From a network to clean data at every point of a path: doubling, guidance, parameterisation, threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from zoo.diffusion.guidance import guided
from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import clean_weights
from zoo.diffusion.paths import Path
from zoo.diffusion.thresholds import Threshold, threshold
from zoo.errors import InvalidInput

if TYPE_CHECKING:
    from zoo.runtime.capabilities import Denoiser


class Denoise(Protocol):
    """What solvers call: predicted clean data of every level for the state `x` at a point of the path.

    Solvers treat it as a function of its arguments. It neither changes nor keeps `x`.
    """

    def __call__(self, x: State, point: int) -> State: ...


class Denoising:
    """A `Denoiser` with a condition, as a `Denoise`; everything that stays the same is made here, once.

    guidance: weight of classifier-free guidance on the raw prediction; other than 1 it takes a condition
        with 2n rows, the unconditional ones first, and runs both halves in one batch.
    doubled: the condition has 2n rows with a guidance of 1 as well, for those who ask for `branches`.
    rule: the threshold on predicted clean data.
    dtype: number format that the network computes in; the state itself stays float32.
    """

    def __init__(
        self,
        model: Denoiser,
        levels: Sequence[Level],
        path: Path,
        condition: Any,
        count: int,
        guidance: float = 1.0,
        rule: Threshold = "none",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        doubled: bool = False,
    ) -> None:
        self._model, self._condition = model, condition
        self._guidance, self._rule, self._count = guidance, rule, count
        self._doubled = doubled or guidance != 1.0
        rows = 2 * count if self._doubled else count
        told = torch.tensor(path.network_times, dtype=torch.float32, device=device)
        self._times = told[:, None].repeat(1, rows)
        self._scales = [level.signal_scale for level in levels]
        self._weights = [_weights(model, path, index) for index in range(len(levels))]
        self._inputs: tuple[Tensor, ...] = tuple(
            torch.empty((rows, *level.shape), dtype=dtype, device=device) for level in levels
        )

    def __call__(self, x: State, point: int) -> State:
        return self.clean(x, self.predicted(x, point), point)

    def predicted(self, x: State, point: int) -> State:
        """The network's prediction at a point after guidance, in float32."""
        raw = self.branches(x, point)
        return tuple(guided(value, self._guidance) for value in raw) if self._doubled else raw

    def branches(self, x: State, point: int) -> State:
        """The network's prediction before guidance, in float32: the unconditional rows, then the others."""
        for buffer, value in zip(self._inputs, x, strict=True):
            buffer[: self._count].copy_(value)
            if self._doubled:
                buffer[self._count :].copy_(value)
        raw = self._model.predict(self._inputs, self._times[point], self._condition)
        return tuple(value.float() for value in raw)

    def clean(self, x: State, predicted: State, point: int) -> State:
        """Clean data after the threshold, from a guided prediction at a point."""
        made = []
        for value, guess, weights, scale in zip(x, predicted, self._weights, self._scales, strict=True):
            skip, out = weights[point]
            made.append(threshold(torch.add(skip * value, guess, alpha=out), self._rule, scale))
        return tuple(made)


def _weights(model: Denoiser, path: Path, level: int) -> list[tuple[float, float]]:
    noising = path.levels[level]
    points = list(zip(noising.alphas[:-1], noising.sigmas[:-1], strict=True))
    if model.prediction == "epsilon" and any(alpha == 0 for alpha, _ in points):
        raise InvalidInput(
            "the schedule starts without any signal, where a predicted epsilon says nothing of the picture",
            "On a table of noise levels, --option spacing=leading starts later.",
        )
    return [clean_weights(model.prediction, alpha, sigma) for alpha, sigma in points]
