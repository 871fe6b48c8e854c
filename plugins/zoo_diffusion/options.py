"""Options of the diffusion samplers."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.diffusion.spacing import Spacing
from zoo.diffusion.thresholds import Threshold


@dataclass(frozen=True)
class DiffusionOptions:
    """What all diffusion samplers have."""

    steps: int = 50  #: how many steps from noise to picture
    guidance: float = 1.0  #: weight w: unconditional + w (conditional - unconditional); 1 is off
    threshold: Threshold = "clip"  #: what keeps predicted pictures in range
    spacing: Spacing = "auto"  #: where on the schedule the steps lie
    all_levels: bool = False  #: show the lower resolutions of a nested model beside the picture

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is {self.guidance}, expected a number of at least 0")


@dataclass(frozen=True)
class DDPMOptions(DiffusionOptions):
    """Options of the sampler `ddpm`."""

    steps: int = 250


@dataclass(frozen=True)
class DDIMOptions(DiffusionOptions):
    """Options of the sampler `ddim`."""

    eta: float = 0.0  #: share of new noise: 0 is deterministic, 1 as noisy as `ddpm`

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}, expected 0 to 1")


@dataclass(frozen=True)
class EulerOptions(DiffusionOptions):
    """Options of the sampler `euler`."""


@dataclass(frozen=True)
class HeunOptions(DiffusionOptions):
    """Options of the sampler `heun`."""

    steps: int = 25


@dataclass(frozen=True)
class DPMOptions(DiffusionOptions):
    """Options of the samplers `dpm++` and `dpm++3m`."""

    steps: int = 25
    lower_last: bool = True  #: lower the order towards the end of runs of fewer than ten steps
