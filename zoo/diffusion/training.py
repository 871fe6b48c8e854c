"""What diffusion models are trained on: times, noisy data, losses and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import Prediction, clean_from, noised, predicted_from, target
from zoo.diffusion.schedules import EDMSchedule, Schedule, TableSchedule

if TYPE_CHECKING:
    from zoo.runtime.capabilities import Denoiser


def training_times(schedule: Schedule, uniform: Tensor) -> Tensor:
    """Times for numbers in [0, 1) of any shape.

    A table's entries 1 .. n alike, as whole numbers; EDM's log-normal sigmas of mean -1.2 and deviation 1.2
    (arXiv 2206.00364, table 1); else even between `finest` and `start`.
    """
    if isinstance(schedule, TableSchedule):
        # In float32, 0.99999997 of a thousand is a thousand.
        return 1 + (uniform.double() * schedule.steps).long().clamp(max=schedule.steps - 1)
    if isinstance(schedule, EDMSchedule):
        normal = torch.special.ndtri(uniform.double().clamp(1e-9, 1.0 - 1e-9))
        return torch.exp(1.2 * normal - 1.2).to(uniform.dtype)
    return schedule.finest + uniform * (schedule.start - schedule.finest)


def pyramid(images: Tensor, levels: Sequence[Level]) -> State:
    """Images [n, c, h, w] of the highest level and their copies for the others.

    Each copy averages the next higher one, as Matryoshka diffusion does (arXiv 2310.15111). Raises ValueError
    where a level's side does not divide that of the next higher one.
    """
    copies = [images]
    for level in levels[1:]:
        (height, width), wanted = copies[-1].shape[-2:], level.shape[1:]
        if height % wanted[0] or width % wanted[1]:
            raise ValueError(f"a level of {list(wanted)} does not divide the next higher {[height, width]}")
        copies.append(avg_pool2d(copies[-1], (height // wanted[0], width // wanted[1])))
    return tuple(copies)


def noisy(levels: Sequence[Level], clean: State, eps: State, time: Tensor) -> State:
    """The state of clean data and standard normal noise at times [n], each level at its own scales."""
    made = []
    for level, x0, e in zip(levels, clean, eps, strict=True):
        made.append(noised(x0 / level.signal_scale, e, *_scales(level.schedule, time, x0)))
    return tuple(made)


def denoising_loss(
    model: Denoiser,
    levels: Sequence[Level],
    clean: State,
    eps: State,
    time: Tensor,
    condition: Any,
    measured: Prediction | None = None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Each sample's squared error [n]: a mean over a level's values, summed over levels.

    clean, eps: data and standard normal noise of every level, [n, c, h, w].
    time: schedule times [n]; the network is told its own time of them.
    measured: the quantity whose error counts, computed from the prediction through clean data; None is the
        prediction itself. "epsilon" for a network that predicts v weights its error by alpha^2.
    weights: one for each level, 1 where left out; a level of weight 0 is not computed.
    """
    states = noisy(levels, clean, eps, time)
    told = levels[0].schedule.network_time(time).float()
    total = clean[0].new_zeros(len(clean[0]))
    predictions = model.predict(states, told, condition)
    for index, level in enumerate(levels):
        weight = 1.0 if weights is None else weights[index]
        if weight:
            x0 = clean[index] / level.signal_scale
            scales = _scales(level.schedule, time, x0)
            guess = predictions[index].to(x0.dtype)
            if measured not in (None, model.prediction):
                found = clean_from(model.prediction, states[index], guess, *scales)
                guess = predicted_from(measured, states[index], found, *scales)
            wanted = target(measured or model.prediction, x0, eps[index], *scales)
            total = total + weight * (guess - wanted).square().flatten(1).mean(1)
    return total


def variational_weights(schedule: TableSchedule) -> Tensor:
    """float32 [n + 1]: SNR(t - 1) / SNR(t) - 1 for an epsilon's error at table entry t (arXiv 2107.00630).

    It is infinite at t = 1, which takes the value of t = 2; so does the unused entry 0.
    """
    gammas = schedule.gammas.double()
    now, before = gammas[2:], gammas[1:-1]
    weights = before * (1.0 - now) / ((1.0 - before) * now) - 1.0
    return torch.cat([weights[:1], weights[:1], weights]).float()


def edm_weights(sigma: Tensor, data_std: float = 0.5) -> Tensor:
    """EDM's weight for the error of clean data at noise levels of any shape (arXiv 2206.00364, table 1)."""
    return (sigma**2 + data_std**2) / (sigma * data_std) ** 2


def _scales(schedule: Schedule, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = schedule.alpha_sigma(time)
    shape = (-1, *[1] * (like.dim() - 1))
    return alpha.to(like.dtype).reshape(shape), sigma.to(like.dtype).reshape(shape)
