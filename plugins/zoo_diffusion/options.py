"""Options of the diffusion samplers."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.diffusion.options import SamplingOptions


@dataclass(frozen=True)
class DiffusionOptions(SamplingOptions):
    """What the samplers of pictures have."""

    all_levels: bool = False  #: show the lower resolutions of a nested model beside the picture


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
