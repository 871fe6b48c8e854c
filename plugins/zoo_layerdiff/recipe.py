"""How the built-in `layerdiff:shapes` is trained: the layers of scenes of the shapes world, with captions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from zoo.diffusion.training import denoising_loss, training_times
from zoo.runtime.noise import NoiseSource
from zoo.shapes.captions import vocabulary
from zoo.shapes.layered_batches import layered_scenes
from zoo.shapes.splits import HELD_OUT
from zoo.shapes.words import WordEncoder, WordsConfig
from zoo.training.recipe import Budget
from zoo_layerdiff.model import LayerDiff
from zoo_layerdiff.prompts import PromptFeatures

#: Side of the pictures, pixels.
SIZE = 32
#: Share of the batches whose scenes have one, two or three objects: relations take longest to learn.
OBJECTS = (0.15, 0.45, 0.40)
#: Shares of scenes that lose all their prompts, only the global one, or only those of the layers.
DROP_ALL, DROP_GLOBAL, DROP_LAYERS = 0.10, 0.05, 0.05


class ShapesRecipe:
    """The mean squared error over all layers and channels, masks included.

    All scenes of a batch have the same number of layers, so that none is computed for nothing; a batch's size
    counts layers. The text encoder has no learned parts.
    """

    seed = 0
    held_out = HELD_OUT  #: combinations that the scenes never show
    budget = Budget(
        steps=18_000,
        batch_size=96,
        learning_rate=1e-3,
        final_learning_rate=1e-5,
        warmup_steps=500,
        betas=(0.9, 0.99),
        weight_decay=1e-4,
        clip_norm=1.0,
        ema_decay=0.999,
        autocast=None,
    )

    def __init__(self) -> None:
        self.encoder = WordEncoder(WordsConfig(words=vocabulary(), parts=True))

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """Scenes of `size` layers together: clean layers, and the features of their prompts."""
        objects = 1 + int(torch.searchsorted(torch.tensor(OBJECTS).cumsum(0), noise.uniform("objects", (1,))))
        layers = 1 + min(objects, len(OBJECTS))
        scenes = layered_scenes(noise, max(1, size // layers), SIZE, objects=(layers - 1,))
        count = len(scenes.captions)
        kept_global, kept_parts = _kept(noise.uniform("drop", (count,)))
        captions = [text if kept else "" for text, kept in zip(scenes.captions, kept_global, strict=True)]
        parts = [
            part if kept else ""
            for texts, kept in zip(scenes.parts, kept_parts, strict=True)
            for part in texts
        ]
        shared, own = self.encoder.encode(captions), self.encoder.encode(parts)
        clean = torch.cat([scenes.pictures, scenes.masks * 2.0 - 1.0], dim=2)
        return {
            "clean": clean[:, :layers],
            "shared": shared.features,
            "shared_valid": shared.valid,
            "own": own.features.unflatten(0, (count, layers)),
            "own_valid": own.valid.unflatten(0, (count, layers)),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean squared error at times that are the same for all layers of a scene."""
        network = cast(LayerDiff, model)
        clean, level = batch["clean"], network.level()
        eps = noise.normal("eps", clean.shape).to(clean)
        time = training_times(level.schedule, noise.uniform("time", (len(clean),)))
        features = PromptFeatures(batch["shared"], batch["own"], batch["shared_valid"], batch["own_valid"])
        condition = network.read_prompts(features)
        return denoising_loss(network, [level], (clean,), (eps,), time.to(clean.device), condition).mean()


def _kept(uniform: Tensor) -> tuple[list[bool], list[bool]]:
    """Whether each scene keeps its global prompt, and whether its layers keep theirs."""
    no_global = uniform < DROP_ALL + DROP_GLOBAL
    no_layers = (uniform < DROP_ALL) | (
        (uniform >= DROP_ALL + DROP_GLOBAL) & (uniform < DROP_ALL + DROP_GLOBAL + DROP_LAYERS)
    )
    return (~no_global).tolist(), (~no_layers).tolist()
