"""What samplers see of a network: its levels, how it reads a batch's prompts, and what it takes of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.diffusion.levels import Level
from zoo.diffusion.schedules import TableSchedule, named_table
from zoo.errors import InvalidInput
from zoo_mdm.config import LevelConfig, NestedUNetConfig, UNetConfig
from zoo_mdm.text import Condition

if TYPE_CHECKING:
    from zoo.runtime.sampling import Batch


class MatryoshkaDenoiser:
    """The part of a network that offers `denoiser` and `memory-estimate`; `Network` computes."""

    config: UNetConfig | NestedUNetConfig

    @property
    def prediction(self) -> str:
        """What `predict` returns: "v" or "epsilon"."""
        return self.config.prediction

    def levels(self, size: tuple[int, int] | None = None) -> tuple[Level, ...]:
        """Every resolution, highest first, with its share of noise (arXiv 2310.15111, section 3.3)."""
        side = self.config.image_size
        if size not in (None, (side, side)):
            raise InvalidInput(f"the model makes pictures of {side}x{side}", "Leave out --size.")
        base = named_table(self.config.schedule, self.config.training_steps)
        return tuple(self._level(config, base) for config in chain(self.config))

    def _level(self, config: LevelConfig, base: TableSchedule) -> Level:
        shape = (config.in_channels, config.image_size, config.image_size)
        if not isinstance(self.config, NestedUNetConfig):
            return Level(shape, base, self.config.signal_scale)
        ratio = config.image_size // self.config.innermost.image_size
        if ratio == 1:
            return Level(shape, base)
        if self.config.noise_shift is None:
            return Level(shape, base, float(ratio))
        return Level(shape, base.shifted(float(ratio**self.config.noise_shift)))

    def condition(self, batch: Batch, components: Mapping[str, Any], guided: bool) -> Condition:
        """The texts of a batch, encoded once; a guided batch is doubled, negative prompts first.

        Released models attend to the padding, so its length matters: as in the authors' code a prompt and its
        negative are padded to the longer of the two, whatever else the batch holds.
        """
        config = self.config.innermost
        if not config.text_dim:
            if any(batch.prompts) or any(batch.negatives):
                raise InvalidInput("the model reads no text, and a prompt was given", "Leave out --prompt.")
            return self.read_text()
        if "text_encoder" not in components:
            raise InvalidInput(
                "the model reads text, and it has no text encoder",
                "Its card names one: [variant.NAME.components.text_encoder].",
            )
        prompts = [prompt or "" for prompt in batch.prompts]
        negatives = [negative or "" for negative in batch.negatives]
        texts = negatives + prompts if guided else prompts
        encoded = components["text_encoder"].encode(texts, config.text_tokens, config.text_characters)
        weight = next(self.parameters())
        valid = encoded.valid.to(weight.device)
        present = _present(encoded.lengths, len(prompts), valid.shape[1])
        features = encoded.features.to(weight.device, weight.dtype)
        return self.read_text(features, valid, None if present is None else present.to(weight.device))

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of a guided step beside the weights: features kept for the way up, text, the widest block."""
        levels = list(chain(self.config))
        kept = sum(_kept(config) for config in levels)
        widest = max(_widest(config) for config in levels)
        text = 2 * self.config.innermost.text_tokens * sum(_attending(config) for config in levels)
        return 2 * batch_size * (kept + widest + text) * dtype.itemsize


def chain(config: LevelConfig) -> Iterator[LevelConfig]:
    """A level's configuration and those inside it, from the outside in."""
    yield config
    if isinstance(config, NestedUNetConfig):
        yield from chain(config.inner)


def _present(lengths: Tensor, samples: int, longest: int) -> Tensor | None:
    """bool [rows, longest]: what each row would have been padded to on its own; None where that is all."""
    own = lengths.view(-1, samples).amax(dim=0)
    if bool((own == longest).all()):
        return None
    rows = own.repeat(len(lengths) // samples)
    return torch.arange(longest) < rows[:, None]


def _stages(config: LevelConfig) -> Iterator[tuple[int, int, int, int]]:
    """(width, pixels, blocks, attention layers) of each stage on the way down."""
    for index, width in enumerate(config.channels):
        pixels = (config.image_size // 2**index) ** 2
        yield width, pixels, config.residual_blocks[index], config.attention_layers[index]


def _kept(config: LevelConfig) -> int:
    """Numbers of all features that one picture keeps for the way up."""
    return sum(width * pixels * (blocks + 1) for width, pixels, blocks, _ in _stages(config))


def _widest(config: LevelConfig) -> int:
    """Numbers that the largest block of the way up holds at once, or its attention and feed-forward."""
    widths = [*config.channels, config.channels[-1]]
    most = 0
    for index, (width, pixels, _, attention) in enumerate(_stages(config)):
        joined = width + max(width, widths[index + 1])
        # The joined input with its norm, three hidden maps and the result; or queries, keys and values and
        # the fourfold expansion before and after its activation.
        most = max(most, pixels * (2 * joined + 4 * width), pixels * 12 * width * (attention > 0))
    return most


def _attending(config: LevelConfig) -> int:
    """The widths of all attention layers added up."""
    return sum(width * (2 * blocks + 1) * layers for width, _, blocks, layers in _stages(config))
