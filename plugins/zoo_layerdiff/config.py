"""What determines a LayerDiff model: the UNet, how its layers see each other, and how it reads prompts."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal, get_args

from zoo.diffusion.schedules import TableName

#: How the layers of a picture see each other: not at all, each position the same one of the other layers, or
#: all positions of all layers.
Exchange = Literal["none", "column", "joint"]


@dataclass(frozen=True, kw_only=True)
class LayerDiffConfig:
    """Lists name the stages of the UNet from its finest resolution on, each half the one before.

    The paper publishes the parts and their purpose, not their sizes: every default here is ours, most of them
    Stable Diffusion 1.5's, which the paper compares itself with.
    """

    size: int  #: side of what is denoised: pixels, or latents where `latent_factor` is more than 1
    channels: tuple[int, ...]  #: width of each stage
    attention: tuple[
        bool, ...
    ]  #: whether a stage has a collaborative block behind each of its residual blocks
    residual_blocks: int = 2  #: blocks of each stage on the way down; one more on the way up
    heads: int = 8
    norm_groups: int = 32
    expansion: int = 4  #: width inside the feed-forward, in widths of the stage
    patch: int = 1  #: side of the squares that are folded into channels before the first convolution
    picture_channels: int = 3
    #: A square number k^2: the mask in k x k sub-positions of every denoised position.
    mask_channels: int = 1
    latent_factor: int = 1  #: pixels of a picture for each denoised position; above 1 a VAE makes the latents
    latent_scale: float = 1.0  #: the VAE's latents are multiplied by it
    most_layers: int = 4  #: with the background
    exchange: tuple[Exchange, ...] = ()  #: of each stage, the last one's also in the middle; () is "column"
    layer_embeddings: bool = True  #: tell a layer which one it is
    positions: bool = False  #: tell attention where in the picture it is
    global_attention: bool = False  #: attend to the global prompt as well, beside what the enhancer brings
    text_dim: int  #: width of the text encoder's features
    text_projection: int = 0  #: width that the features are projected to; 0 leaves them as they are
    text_layers: int = 0  #: transformer layers on each text
    text_pooling: bool = False  #: add the mean of a layer's prompt to the time embedding
    text_tokens: int = 77  #: longer texts are cut
    enhancer_layers: int = 1  #: of the layer-specific prompt enhancer; 0 leaves it out
    #: How much a fresh enhancer brings: 0 leaves a pretrained backbone as it is, and opens slowly.
    enhancer_gate: float = 0.0
    prediction: Literal["epsilon", "v"] = "epsilon"
    schedule: TableName = "scaled-linear-betas"
    #: The signal-to-noise ratio is divided by it: flat layers and masks are seen through much more noise than
    #: pictures, and what stands where is decided only while they are not (arXiv 2301.11093).
    noise_shift: float = 1.0
    training_steps: int = 1000  #: times that the network was trained for: 0 .. training_steps - 1

    def __post_init__(self) -> None:
        for name in ("channels", "attention", "exchange"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.exchange:
            object.__setattr__(self, "exchange", ("column",) * len(self.channels))
        self._check_lists()
        self._check_choices()
        coarsest = self.patch * 2 ** (len(self.channels) - 1)
        if self.size % coarsest:
            raise ValueError(
                f"size ({self.size}) must be a multiple of {coarsest}, which the stages divide by"
            )
        if isqrt(self.mask_channels) ** 2 != self.mask_channels:
            raise ValueError(f"mask_channels ({self.mask_channels}) must be a square number")
        if self.most_layers < 2:
            raise ValueError(f"most_layers ({self.most_layers}) must be at least 2: a background and a layer")

    def _check_lists(self) -> None:
        for name in ("attention", "exchange"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries, channels has {len(self.channels)}"
                )
        for width in self.channels:
            if width % self.heads or width % self.norm_groups:
                raise ValueError(
                    f"a width of {width} must be a multiple of heads ({self.heads}) and of norm_groups "
                    f"({self.norm_groups})"
                )

    def _check_choices(self) -> None:
        for value in self.exchange:
            if value not in get_args(Exchange):
                raise ValueError(f"exchange holds {value!r}, expected: {', '.join(get_args(Exchange))}")
        if self.prediction not in ("epsilon", "v"):
            raise ValueError(f"prediction is {self.prediction!r}, expected epsilon or v")
        if self.schedule not in get_args(TableName):
            raise ValueError(f"schedule is {self.schedule!r}, expected: {', '.join(get_args(TableName))}")

    @property
    def state_channels(self) -> int:
        """Channels of one layer: its picture, then its mask."""
        return self.picture_channels + self.mask_channels

    def side(self, stage: int) -> int:
        """Positions along a side at a stage."""
        return int(self.size // self.patch // 2**stage)

    @property
    def embedding(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]

    @property
    def text_width(self) -> int:
        """Width of the features that attention reads."""
        return self.text_projection or self.text_dim

    @property
    def picture_size(self) -> int:
        """Side of the finished pictures in pixels."""
        return self.size * self.latent_factor
