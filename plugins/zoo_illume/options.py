"""Options of the samplers: how tokens are chosen, and what draws a picture from its codes.

Defaults are those of the authors' scripts. Their scripts apply the settings of texts a second time to every
token, through the generation loop around their own processor: `doubled` does the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

from zoo.runtime.tokens.processors import Warp
from zoo_illume.processor import UNCHANGED, Warps

Number = TypeVar("Number", int, float)

#: The pixel codes' top-k, where it is not given, in semantic top-ks.
PIXEL_SHARE = 3


@dataclass(frozen=True)
class ChoiceOptions:
    """How tokens are chosen."""

    temperature: float = 1.0  #: divides the logits; 0 takes the likeliest token
    top_k: int = 2048  #: so many of the likeliest tokens; 0 is all
    top_p: float = 1.0  #: the likeliest tokens up to this share of the probability; 1 is all
    doubled: bool = False  #: apply the three a second time to every token, as the authors' scripts do

    def __post_init__(self) -> None:
        check_choice("", self.temperature, self.top_k, self.top_p)

    @property
    def greedy(self) -> bool:
        """Whether texts are the likeliest ones."""
        return self.temperature == 0

    @property
    def warp(self) -> Warp:
        """Of texts; where the likeliest token is taken, all of it would change nothing."""
        return _warp(self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True)
class DrawOptions(ChoiceOptions):
    """How a picture is drawn. Semantic settings default to those above, pixel settings to semantic ones."""

    semantic_temperature: float | None = None  #: as temperature, of semantic codes
    semantic_top_k: int | None = None  #: as top_k, of semantic codes
    semantic_top_p: float | None = None  #: as top_p, of semantic codes
    pixel_temperature: float | None = None  #: as temperature, of pixel codes
    pixel_top_k: int | None = None  #: as top_k, of pixel codes; by default three times the semantic one
    pixel_top_p: float | None = None  #: as top_p, of pixel codes
    guidance: float = 2.0  #: weight w: unconditional + w (conditional - unconditional); 1 is off
    decoder: Literal["pixel", "diffusion"] = "pixel"  #: the tokenizer's own, or one of twice the size
    decoder_steps: int = 50  #: steps of the decoder by diffusion
    decoder_guidance: float = 2.0  #: its guidance; 1 is off

    def __post_init__(self) -> None:
        super().__post_init__()
        for prefix, (temperature, top_k, top_p) in zip(("semantic_", "pixel_"), self.settings, strict=True):
            check_choice(prefix, temperature, top_k, top_p)
        for name in ("guidance", "decoder_guidance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number of at least 0")
        if self.decoder_steps < 1:
            raise ValueError(f"decoder_steps is {self.decoder_steps}, expected at least 1")

    @property
    def settings(self) -> tuple[tuple[float, int, float], tuple[float, int, float]]:
        """Temperature, top-k and top-p of semantic codes, then of pixel codes, defaults filled in."""
        semantic = (
            _given(self.semantic_temperature, self.temperature),
            _given(self.semantic_top_k, self.top_k),
            _given(self.semantic_top_p, self.top_p),
        )
        pixel = (
            _given(self.pixel_temperature, semantic[0]),
            _given(self.pixel_top_k, PIXEL_SHARE * semantic[1]),
            _given(self.pixel_top_p, semantic[2]),
        )
        return semantic, pixel

    @property
    def warps(self) -> Warps:
        """Of texts and both levels."""
        return Warps(self.warp, tuple(_warp(*setting) for setting in self.settings))

    @property
    def greedy_levels(self) -> tuple[bool, ...]:
        """Of each level, whether its likeliest codes are taken. With `doubled`, greedy texts make all so."""
        return tuple(setting[0] == 0 or (self.doubled and self.greedy) for setting in self.settings)

    def uses(self, role: str) -> bool:
        """Whether a component of this role is needed for it."""
        return role != "decoder" or self.decoder == "diffusion"

    def stage_of(self, role: str) -> Literal["with", "after"]:
        """When it is needed: what makes pictures of codes is behind all tokens, but for previews."""
        return "after" if role in ("image_tokenizer", "decoder") else "with"


@dataclass(frozen=True)
class EditOptions(DrawOptions):
    """How a picture is edited: as it is drawn, with less chance and less guidance."""

    temperature: float = 0.7  #: divides the logits; 0 takes the likeliest token
    top_k: int = 512  #: so many of the likeliest tokens; 0 is all
    top_p: float = 0.8  #: the likeliest tokens up to this share of the probability; 1 is all
    guidance: float = 1.25  #: weight w: unconditional + w (conditional - unconditional); 1 is off


@dataclass(frozen=True)
class TextOptions(ChoiceOptions):
    """How a text is written."""

    top_k: int = 128  #: so many of the likeliest tokens; 0 is all
    max_tokens: int = 1024  #: a text ends here at the latest

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 1")

    def uses(self, role: str) -> bool:
        """Whether a component of this role is needed for it: no codes become pictures."""
        return role not in ("image_tokenizer", "decoder")


@dataclass(frozen=True)
class ReconstructOptions:
    """A picture's codes leave nothing to choose."""


def check_choice(prefix: str, temperature: float, top_k: int, top_p: float) -> None:
    """Raise `ValueError` for settings outside of their ranges; `prefix` stands before their names."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"{prefix}temperature is {temperature}, expected a number of at least 0")
    if top_k < 0:
        raise ValueError(f"{prefix}top_k is {top_k}, expected a number of tokens, or 0 for all")
    if not 0 < top_p <= 1:
        raise ValueError(f"{prefix}top_p is {top_p}, expected above 0 and at most 1")


def _warp(temperature: float, top_k: int, top_p: float) -> Warp:
    return Warp(temperature, top_k, top_p) if temperature else UNCHANGED


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
