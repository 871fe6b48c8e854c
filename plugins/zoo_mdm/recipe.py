"""How the built-in `mdm:shapes` is trained: all levels at once, on captions of the shapes world."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from zoo.diffusion.training import denoising_loss, pyramid, training_times
from zoo.runtime.noise import NoiseSource
from zoo.shapes.batches import captioned_scenes
from zoo.shapes.captions import vocabulary
from zoo.shapes.splits import HELD_OUT
from zoo.shapes.words import WordEncoder, WordsConfig
from zoo.training.recipe import Budget
from zoo_mdm.model import Network

#: Side of the pictures, pixels.
SIZE = 32
#: Share of captions replaced by the empty text, which guidance needs.
CAPTION_DROP = 0.1
#: Times are uniform numbers to this power, so that more of them are noisy: it is there that is decided what
#: stands where.
TIME_EXPONENT = 2.0 / 3.0


class ShapesRecipe:
    """The joint loss of all levels (arXiv 2310.15111, section 3.2), every level's mean weighted alike.

    The text encoder has no learned parts: what words mean is learned by the network's own text layers.
    """

    seed = 0
    held_out = HELD_OUT  #: combinations that the scenes never show
    budget = Budget(
        steps=24_000,
        batch_size=64,
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
        self.encoder = WordEncoder(WordsConfig(words=vocabulary()))

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """`size` pictures in [-1, 1] with the features of their captions."""
        images, captions = captioned_scenes(noise, size, SIZE)
        dropped = (noise.uniform("drop", (size,)) < CAPTION_DROP).tolist()
        told = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
        encoded = self.encoder.encode(told)
        return {"images": images, "features": encoded.features, "valid": encoded.valid}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean squared error of the prediction, added up over levels, at times drawn towards noise."""
        network = cast(Network, model)
        levels = network.levels()
        clean = pyramid(batch["images"], levels)
        eps = tuple(noise.normal(f"eps.{index}", level.shape).to(level) for index, level in enumerate(clean))
        uniform = noise.uniform("time", (len(clean[0]),)) ** TIME_EXPONENT
        time = training_times(levels[0].schedule, uniform)
        condition = network.read_text(batch["features"], batch["valid"])
        return denoising_loss(network, levels, clean, eps, time.to(clean[0].device), condition).mean()
