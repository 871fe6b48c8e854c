"""What determines a dual tokenizer: its two branches, each with codes of its own.

Defaults are the sizes of the released one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

#: The last layers of an encoder or decoder of features.
Projection = Literal["linear", "linear-norm", "norm-linear", "mlp"]

#: Both are fixed in the authors' code for the blocks behind the vision transformer, whatever their width.
BLOCK_HEADS = 16
BLOCK_EXPANSION = 4

Table = TypeVar("Table")


def nested(owner: object, name: str, kind: type[Table], optional: bool = False) -> None:
    """Turn the table under `name` into a `kind`; raises `ValueError` for a key that it does not have."""
    value = getattr(owner, name)
    if isinstance(value, kind) or (optional and value is None):
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}, expected a table")
    known = {entry.name for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(f"{name} has no setting '{unknown[0]}'; it has: {', '.join(sorted(known))}")
    object.__setattr__(owner, name, kind(**value))


def check_positive(owner: Any, *names: str) -> None:
    """Raise `ValueError` for a setting of these names that is not at least 1."""
    for name in names:
        if getattr(owner, name) < 1:
            raise ValueError(f"{name} is {getattr(owner, name)}, expected at least 1")


def _check_rotary(what: str, width: int, heads: int) -> None:
    # Rows and columns turn half of a head each, and a rotation needs two channels.
    if width % (4 * heads):
        raise ValueError(f"{what} ({width}) must be a multiple of 4 times the {heads} heads")


@dataclass(frozen=True, kw_only=True)
class QuantiserConfig:
    """A SimVQ codebook and the weights of its loss."""

    codes: int
    dim: int = 32
    frozen_dim: int = 0  #: width of the frozen codes that a learned map turns into codes; 0 is `dim`
    commitment: float = 1.0  #: weight of the loss
    features_share: float = 0.25  #: weight, inside of the loss, of pulling features to their codes

    def __post_init__(self) -> None:
        object.__setattr__(self, "frozen_dim", self.frozen_dim or self.dim)
        check_positive(self, "codes", "dim", "frozen_dim")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision transformer of Qwen2-VL."""

    depth: int = 32
    width: int = 1280
    heads: int = 16
    expansion: int = 4  #: width inside the feed-forward, in widths
    out_channels: int = 3584
    patch: int = 14  #: side of a patch, pixels
    merge: int = 2  #: the features of merge x merge patches become one
    frames: int = 2  #: frames of a video in one patch; a picture is repeated

    def __post_init__(self) -> None:
        check_positive(self, "width", "heads", "expansion", "out_channels", "patch", "merge", "frames")
        _check_rotary("vit.width", self.width, self.heads)

    @property
    def cell(self) -> int:
        """Side of what becomes one feature, pixels."""
        return self.patch * self.merge


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    """The branch of meaning: features of the vision transformer, quantised, and a decoder back to them."""

    vit: VisionConfig = field(default_factory=VisionConfig)
    quantiser: QuantiserConfig = field(default_factory=lambda: QuantiserConfig(codes=32768))
    width: int = 1280  #: of the encoder's blocks behind the vision transformer
    blocks: int = 4
    projection: Projection = "linear"
    decoder_width: int = 1280
    decoder_blocks: int = 4
    decoder_projection: Projection = "linear-norm"

    def __post_init__(self) -> None:
        nested(self, "vit", VisionConfig)
        nested(self, "quantiser", QuantiserConfig)
        for name in ("width", "decoder_width"):
            _check_rotary(name, getattr(self, name), BLOCK_HEADS)
        for name in ("projection", "decoder_projection"):
            if getattr(self, name) not in get_args(Projection):
                choices = ", ".join(get_args(Projection))
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of: {choices}")


@dataclass(frozen=True, kw_only=True)
class CoderConfig:
    """A convolutional encoder or decoder; lists name its levels from the finest resolution on."""

    channels: int  #: base width
    latent: int  #: channels of its coarse end
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  #: width of each level, in base widths
    residual_blocks: int = 2  #: of each level of an encoder; a decoder's levels have one more
    attention_levels: tuple[int, ...] = (4,)  #: indices of the levels with attention behind every block
    norm_groups: int = 32

    def __post_init__(self) -> None:
        for name in ("multipliers", "attention_levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_positive(self, "channels", "latent", "norm_groups")
        if not self.multipliers:
            raise ValueError("multipliers is empty, expected one for each level")
        if self.residual_blocks < 0:
            raise ValueError(f"residual_blocks is {self.residual_blocks}, expected at least 0")
        for width in (self.channels, *self.widths):
            # Down-sampling folds four positions into the channels.
            if width < 1 or width % self.norm_groups or width % 4:
                raise ValueError(
                    f"a width of {width} must be a multiple of norm_groups ({self.norm_groups}) and of 4"
                )
        for level in self.attention_levels:
            if not 0 <= level < len(self.multipliers):
                raise ValueError(
                    f"attention_levels holds {level}, expected 0 .. {len(self.multipliers) - 1}: "
                    "indices of levels, not sizes"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def encoded_width(self) -> int:
        """Channels at an encoder's coarsest level: without residual blocks nothing changes their number."""
        return self.widths[-1] if self.residual_blocks else self.channels

    @property
    def factor(self) -> int:
        """How much smaller the coarsest level is than the finest."""
        return int(2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """The branch of pixels: encoder, codes, and the decoder, which reads the codes of both branches."""

    encoder: CoderConfig = field(default_factory=lambda: CoderConfig(channels=128, latent=32))
    quantiser: QuantiserConfig = field(default_factory=lambda: QuantiserConfig(codes=98304))
    decoder: CoderConfig = field(default_factory=lambda: CoderConfig(channels=384, latent=64))

    def __post_init__(self) -> None:
        nested(self, "encoder", CoderConfig)
        nested(self, "quantiser", QuantiserConfig)
        nested(self, "decoder", CoderConfig)
        if self.encoder.latent != self.quantiser.dim:
            raise ValueError(
                f"encoder.latent is {self.encoder.latent}, expected the quantiser's dim, {self.quantiser.dim}"
            )
        ends = (self.encoder.encoded_width, self.encoder), (self.decoder.widths[-1], self.decoder)
        for width, coder in ends:
            if width % coder.latent:
                raise ValueError(
                    f"the coarsest width ({width}) must be a multiple of latent ({coder.latent})"
                )
        if self.encoder.factor != self.decoder.factor:
            raise ValueError(
                f"encoder and decoder have {len(self.encoder.multipliers)} and "
                f"{len(self.decoder.multipliers)} levels, expected as many"
            )


@dataclass(frozen=True, kw_only=True)
class DualViTokConfig:
    """A dual tokenizer, or one branch of it alone: `{}` is a branch of the released sizes, None is none."""

    semantic: SemanticConfig | None = None
    pixel: PixelConfig | None = None

    def __post_init__(self) -> None:
        nested(self, "semantic", SemanticConfig, optional=True)
        nested(self, "pixel", PixelConfig, optional=True)
        if self.semantic is None and self.pixel is None:
            raise ValueError("neither semantic nor pixel is given, expected at least one")
        if self.semantic is None or self.pixel is None:
            return
        merged = self.semantic.quantiser.dim + self.pixel.quantiser.dim
        if self.pixel.decoder.latent != merged:
            raise ValueError(
                f"pixel.decoder.latent is {self.pixel.decoder.latent}, expected {merged}: "
                "the widths of both branches' codes together"
            )
