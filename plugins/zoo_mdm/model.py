"""Matryoshka Diffusion: one network that denoises a picture at several resolutions (arXiv 2310.15111).

The innermost level is a UNet that reads a text. Every outer level is a UNet of a higher resolution whose
middle is the level inside it: its coarsest features go in beside the lower-resolution picture, and the inner
level's last features come back. Each level predicts for its own picture, all at the same time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from zoo.diffusion.levels import State
from zoo_mdm.config import LevelConfig, NestedUNetConfig, UNetConfig
from zoo_mdm.denoiser import MatryoshkaDenoiser
from zoo_mdm.level import Stage, UNetLevel
from zoo_mdm.text import Condition, LevelText, StageText, TextPathway, first_rows


class Network(MatryoshkaDenoiser, UNetLevel, ABC):
    """A level with all that is inside it, callable. `config` decides the number of resolutions."""

    def __init__(self, config: UNetConfig | NestedUNetConfig) -> None:
        super().__init__(config, config.text_width)
        self.config = config

    @property
    @abstractmethod
    def innermost(self) -> UNet:
        """The plain UNet at the core."""

    @abstractmethod
    def run(
        self, x: State, time: Tensor, condition: Condition, layers: LevelText | None, more: Tensor | None
    ) -> tuple[State, Tensor]:
        """(predictions of this level and those inside, this level's last features [n, channels[0], h, w]).

        layers: this level's part of `condition.layers`.
        more: features that an outer level adds to those of the picture, of the shape of the result.
        """

    @abstractmethod
    def text_layers(self, features: Tensor) -> LevelText:
        """Keys and values of text features [n, tokens, width] for every attention layer, here and inside."""

    def read_text(
        self,
        features: Tensor | None = None,
        valid: Tensor | None = None,
        present: Tensor | None = None,
        micro: Mapping[str, Tensor] | None = None,
    ) -> Condition:
        """What the network needs of n texts for all steps: `TextPathway.forward` describes the arguments.

        features: [n, tokens, text_dim], the text encoder's output times `valid`; None without a text.
        valid: None is a batch without padding.
        micro: numbers told beside the time, [n] by name.
        """
        told = dict(micro or {})
        if self.innermost.text is None:
            return Condition(micro=told)
        if features is None:
            raise ValueError("features are missing, expected those of a text: the model reads one")
        if valid is None:
            valid = features.new_ones(features.shape[:2])
        vector, features, mask = self.innermost.text(features, valid, present)
        return Condition(vector, features, self.text_layers(features), mask, told)

    def forward(
        self,
        x: State,
        time: Tensor,
        features: Tensor | None = None,
        valid: Tensor | None = None,
        micro: Mapping[str, Tensor] | None = None,
    ) -> State:
        """Noisy pictures, one [n, c, h, w] for each resolution from the highest on, to the same shapes.

        time: [n], 0 .. training_steps - 1. The rest is as for `read_text`. An outer level may hold fewer
        pictures than the one inside it; they are then those of the first rows.
        """
        return self.predict(x, time, self.read_text(features, valid, micro=micro))

    def predict(self, x: State, time: Tensor, condition: Condition) -> State:
        """The raw output for every level; `condition` is what `condition` or `read_text` returned."""
        predictions, _ = self.run(tuple(x), time, condition, condition.layers, None)
        return predictions

    def modulation(self, time: Tensor, condition: Condition, rows: int) -> Tensor:
        """What modulates this level's blocks, for the first rows: [rows, embedding]."""
        vector = None if condition.vector is None else condition.vector[:rows]
        micro = {name: value[:rows] for name, value in (condition.micro or {}).items()}
        return self.conditions(time[:rows], vector, micro)


class UNet(Network):
    """One resolution; also the innermost level of a nested network."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.text = TextPathway(config) if config.text_dim else None
        width = config.channels[-1]
        counts = (1, 0) if config.middle else ()
        self.middle = nn.ModuleList(
            Stage(config, [width], width, attention, config.text_width) for attention in counts
        )

    @property
    def innermost(self) -> UNet:
        """This network itself."""
        return self

    def text_layers(self, features: Tensor) -> LevelText:
        """See `Network.text_layers`."""
        return LevelText(*(_stages(part, features) for part in (self.down, self.middle, self.up)), None)

    def run(
        self, x: State, time: Tensor, condition: Condition, layers: LevelText | None, more: Tensor | None
    ) -> tuple[State, Tensor]:
        """See `Network.run`."""
        (picture,) = x
        embedding = self.modulation(time, condition, len(picture))
        hidden = self.conv_in(picture)
        hidden = hidden if more is None else hidden + more
        hidden, skips = self.descend(hidden, embedding, layers.down if layers else None, condition.mask)
        for index, stage in enumerate(self.middle):
            hidden = stage(hidden, embedding, layers.middle[index] if layers else None, condition.mask)
        hidden = self.ascend(hidden, skips, embedding, layers.up if layers else None, condition.mask)
        return (self.predict_from(hidden),), hidden


class NestedUNet(Network):
    """A level around another one, which may be nested itself."""

    def __init__(self, config: NestedUNetConfig) -> None:
        super().__init__(config)
        self.inner = build(config.inner)
        outer, inside = config.channels[-1], config.inner.channels[0]
        self.to_inner = nn.Conv2d(outer, inside, 3, padding=1)
        self.from_inner = nn.Conv2d(inside, outer, 3, padding=1)
        for adapter in (self.to_inner, self.from_inner):
            nn.init.zeros_(adapter.weight)
            nn.init.zeros_(adapter.bias)

    @property
    def innermost(self) -> UNet:
        """The plain UNet at the core."""
        return self.inner.innermost

    def text_layers(self, features: Tensor) -> LevelText:
        """See `Network.text_layers`."""
        inside = self.inner.text_layers(features)
        return LevelText(_stages(self.down, features), (), _stages(self.up, features), inside)

    def run(
        self, x: State, time: Tensor, condition: Condition, layers: LevelText | None, more: Tensor | None
    ) -> tuple[State, Tensor]:
        """See `Network.run`."""
        picture, rows, mask, inside = x[0], len(x[0]), condition.mask, layers.inner if layers else None
        if rows < len(time):
            layers = layers and first_rows(layers, rows)
            mask = None if mask is None else mask[:rows]
        embedding = self.modulation(time, condition, rows)
        hidden = self.conv_in(_normalised(picture) if self.config.normalise_input else picture)
        hidden = hidden if more is None else hidden + more
        hidden, skips = self.descend(hidden, embedding, layers.down if layers else None, mask)
        passed = self.to_inner(hidden)
        if rows < len(x[1]):
            passed = _with_zero_rows(passed, len(x[1]))
        predictions, features = self.inner.run(x[1:], time, condition, inside, passed)
        hidden = hidden + self.from_inner(features[:rows])
        hidden = self.ascend(hidden, skips, embedding, layers.up if layers else None, mask)
        return (self.predict_from(hidden), *predictions), hidden


def build(config: LevelConfig) -> Network:
    """The network of a configuration, plain or nested."""
    return NestedUNet(config) if isinstance(config, NestedUNetConfig) else UNet(config)


def _stages(stages: nn.ModuleList, features: Tensor) -> tuple[StageText, ...]:
    return tuple(stage.text(features) for stage in stages)


def _normalised(picture: Tensor) -> Tensor:
    """Divided by its own standard deviation over channels and pixels; the mean stays."""
    deviation = picture.float().std(dim=(1, 2, 3), keepdim=True)
    return (picture / deviation).to(picture.dtype)


def _with_zero_rows(x: Tensor, rows: int) -> Tensor:
    return nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 0, rows - len(x)))
