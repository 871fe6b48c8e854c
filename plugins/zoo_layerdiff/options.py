"""Options of the sampler `layerdiff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.diffusion.options import SamplingOptions


@dataclass(frozen=True)
class LayerDiffOptions(SamplingOptions):
    """How layers are drawn. The paper publishes no numbers: the defaults are ours, after those of SD 1.5."""

    guidance: float = 7.5  #: weight w: unconditional + w (conditional - unconditional); 1 is off
    solver: Literal["ddpm", "ddim", "euler", "heun", "dpm++", "dpm++3m"] = "ddim"  #: the solver
    mask_guidance: float = 0.75  #: weight of self-mask guidance; 0 is off
    mask_guidance_from: float = 0.2  #: share of the steps before it begins, while masks are still noise
    inter_layer: bool = True  #: let the layers see each other
    layer_prompts: bool = True  #: tell every layer its own prompt
    redraw: int | None = None  #: draw only this layer of a given picture anew; 0 is the background
    strength: float = 1.0  #: with redraw: how much of the layer is drawn anew; 1 is all of it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mask_guidance < float("inf"):
            raise ValueError(f"mask_guidance is {self.mask_guidance}, expected a number of at least 0")
        if not 0 <= self.mask_guidance_from <= 1:
            raise ValueError(f"mask_guidance_from is {self.mask_guidance_from}, expected 0 to 1")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}, expected more than 0 and at most 1")
        if self.strength != 1 and self.redraw is None:
            raise ValueError(f"strength is {self.strength} without redraw, which says what it is about")
        if self.redraw is not None and self.redraw < 0:
            raise ValueError(f"redraw is {self.redraw}, expected the number of a layer, from 0")
