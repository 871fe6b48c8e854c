"""Options that every sampler has which runs a solver of `zoo.diffusion`."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.diffusion.spacing import Spacing
from zoo.diffusion.thresholds import Threshold


@dataclass(frozen=True)
class SamplingOptions:
    """Steps, guidance, threshold and spacing; raises ValueError for a number out of its range."""

    steps: int = 50  #: how many steps from noise to clean data
    guidance: float = 1.0  #: weight w: unconditional + w (conditional - unconditional); 1 is off
    threshold: Threshold = "clip"  #: what keeps predicted clean data in range
    spacing: Spacing = "auto"  #: where on the schedule the steps lie

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is {self.guidance}, expected a number of at least 0")
