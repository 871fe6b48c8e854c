"""What determines a model of Matryoshka Diffusion: one table for each resolution level, nested."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: Both are fixed in the authors' code.
ATTENTION_HEADS = 8
ATTENTION_GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """What a plain UNet and every outer level of a nested one have in common.

    Lists name the stages of the level from its finest resolution on, each half the one before.
    """

    image_size: int  #: side of the pictures that the level makes, pixels
    channels: tuple[int, ...]  #: width of each stage
    residual_blocks: tuple[int, ...]  #: blocks of each stage on the way down; one more on the way up
    attention_layers: tuple[int, ...] = ()  #: attention layers after every block of a stage; () is none
    attention_feedforward: bool = False  #: a feed-forward after each attention layer
    norm_groups: int = 32  #: groups of the norms outside of attention
    embedding_dim: int = 0  #: width of the time embedding; 0 is four times the first width
    micro_conditions: Mapping[str, float] = field(default_factory=dict)  #: numbers told beside time: default
    dropout: float = 0.0
    in_channels: int = 3
    out_channels: int = 3
    prediction: Literal["v", "epsilon"] = "v"  #: what the network predicts
    #: The noise by time, of `zoo.diffusion.schedules`: `cosine_capped`, `linear_betas` or `cosine_log_ratio`.
    schedule: Literal["cosine-capped", "linear-betas", "cosine-log-ratio"] = "cosine-capped"
    training_steps: int = 1000  #: times that the network was trained for: 0 .. training_steps - 1

    def __post_init__(self) -> None:
        stages = len(self.channels)
        self._set("channels", tuple(self.channels))
        self._set("residual_blocks", tuple(self.residual_blocks))
        self._set("attention_layers", tuple(self.attention_layers) or (0,) * stages)
        self._set("micro_conditions", {name: float(value) for name, value in self.micro_conditions.items()})
        self._set("embedding_dim", self.embedding_dim or 4 * self.channels[0])
        for name in ("residual_blocks", "attention_layers"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, channels has {stages}")
        if self.embedding_dim % 8:
            raise ValueError(f"embedding_dim ({self.embedding_dim}) must be a multiple of 8")
        if self.image_size % self.ratio:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {self.ratio}, "
                f"which {stages} stages divide it by"
            )
        self._check_choice("prediction", ("v", "epsilon"))
        self._check_choice("schedule", ("cosine-capped", "linear-betas", "cosine-log-ratio"))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of: {', '.join(choices)}")

    @property
    def ratio(self) -> int:
        """How much smaller the coarsest stage is than the finest."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True, kw_only=True)
class UNetConfig(LevelConfig):
    """A plain UNet, and the innermost level of a nested one: only it reads the text."""

    middle: bool = True  #: two more residual blocks, with attention between, at the coarsest resolution
    text_dim: int = 0  #: width of the text encoder's features; 0 is a model without text
    text_projection: int = 0  #: width that the features are projected to; 0 leaves them as they are
    text_layers: int = 0  #: transformer layers on the projected features
    mask_padding: bool = True  #: False: the image attends to the text's padding, as in the released models
    text_tokens: int = 128  #: longer token sequences are cut
    text_characters: int = 0  #: longer texts are cut before they are tokenised; 0 is no limit
    #: Divides the pictures before noise is added; for plain networks only.
    signal_scale: float = 1.0

    @property
    def innermost(self) -> UNetConfig:
        """This configuration itself."""
        return self

    @property
    def text_width(self) -> int:
        """Width of the text features that cross-attention reads; 0 without text."""
        return (self.text_projection or self.text_dim) if self.text_dim else 0


@dataclass(frozen=True, kw_only=True)
class NestedUNetConfig(LevelConfig):
    """An outer level and, as `inner`, the levels that it is wrapped around, to any depth.

    `inner` is a table of its own: one with a key `inner` is a nested UNet again, one without a plain UNet.
    """

    inner: UNetConfig | NestedUNetConfig
    normalise_input: bool = True  #: divide the noisy picture by its standard deviation
    #: Exponent p in the noise of a level with S times the innermost one's side, whose signal-to-noise ratio
    #: is divided by S^p. None divides the pictures by S instead.
    noise_shift: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.inner, Mapping):
            self._set("inner", inner_config(self.inner))
        if self.inner.image_size * self.ratio != self.image_size:
            raise ValueError(
                f"inner makes pictures of side {self.inner.image_size}, "
                f"expected {self.image_size // self.ratio}: image_size ({self.image_size}) over {self.ratio}"
            )
        if self.inner.embedding_dim != self.embedding_dim:
            raise ValueError(
                f"inner has embedding_dim {self.inner.embedding_dim}, outside it is {self.embedding_dim}"
            )

    @property
    def innermost(self) -> UNetConfig:
        """The plain UNet at the core."""
        return self.inner.innermost

    @property
    def text_width(self) -> int:
        """Width of the text features that cross-attention reads; 0 without text."""
        return self.innermost.text_width


def inner_config(table: Mapping[str, Any]) -> UNetConfig | NestedUNetConfig:
    """The configuration of a nested table; raises `ValueError` for a key that it does not have."""
    kind = NestedUNetConfig if "inner" in table else UNetConfig
    known = {entry.name for entry in dataclasses.fields(kind)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"inner has no setting '{unknown[0]}'; it has: {', '.join(sorted(known))}")
    return kind(**table)
