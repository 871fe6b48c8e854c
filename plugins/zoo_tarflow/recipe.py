"""How the built-in `tarflow:shapes` is trained: the paper's objective on single objects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.runtime.noise import NoiseSource
from zoo.shapes.batches import single_objects
from zoo.training.recipe import Budget

#: Standard deviation of the Gaussian noise added to the data, the paper's noise augmentation. Flat synthetic
#: pictures lie on a thin set, whose density cannot be fitted with less.
NOISE_STD = 0.15
#: Share of labels replaced by "no class", which the paper's guidance needs.
LABEL_DROP = 0.1


def nll(z: Tensor, logdet: Tensor) -> Tensor:
    """Negative log-likelihood per dimension without its constant, [n]: the paper's training objective."""
    return 0.5 * z.square().mean(dim=(1, 2)) - logdet


class ShapesRecipe:
    """Maximum likelihood of noisy 32x32 pictures of one object, with class ids of `zoo.shapes.CLASSES`."""

    seed = 0
    budget = Budget(
        steps=18_000,
        batch_size=64,
        learning_rate=8e-4,
        final_learning_rate=1e-6,
        warmup_steps=500,
        betas=(0.9, 0.95),
        weight_decay=1e-4,
        clip_norm=1.0,
        ema_decay=0.999,
    )

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """`size` clean images in [-1, 1] with their class ids."""
        images, labels = single_objects(noise, size, 32)
        return {"images": images, "labels": labels}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """Mean negative log-likelihood per dimension of the noisy images."""
        images, labels = batch["images"], batch["labels"]
        images = images + NOISE_STD * noise.normal("data", images.shape).to(images)
        dropped = noise.uniform("drop", (len(labels),)).to(labels.device) < LABEL_DROP
        z, logdet = model(images, torch.where(dropped, -1, labels))
        return nll(z, logdet).mean()
