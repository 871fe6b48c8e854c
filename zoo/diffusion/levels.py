"""What diffusion runs on: one or several resolutions, each with its own shape and noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zoo.diffusion.schedules import Schedule

#: One tensor [n, c, h, w] for each level, highest resolution first; a plain model has a tuple of one.
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Level:
    """One resolution of a model.

    shape: (channels, height, width) of one sample, with what a method puts before, such as its layers.
    schedule: how its noise grows. All levels of a model share the schedule's time axis, and may differ in
        how much noise a time means (`Schedule.shifted`).
    signal_scale: pictures are divided by it before noise is added (arXiv 2301.10972), so that thresholds
        look at x0 * signal_scale and a finished sample is multiplied by it.
    """

    shape: tuple[int, ...]
    schedule: Schedule
    signal_scale: float = 1.0
