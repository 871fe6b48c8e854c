"""What a recipe is: everything that determines a built-in variant's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from zoo.runtime.noise import NoiseSource


@dataclass(frozen=True)
class Budget:
    """Optimisation settings. One step consumes one batch; AdamW, linear warm-up, cosine decay."""

    steps: int
    batch_size: int
    learning_rate: float
    final_learning_rate: float = 0.0
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    autocast: str | None = "bfloat16"  #: None trains in float32


class Recipe(Protocol):
    """How a variant is trained. The architecture and its config come from the card."""

    seed: int
    budget: Budget

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """Draw `size` training examples on the CPU, as a function of `noise` alone."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """Scalar to minimise: a mean over the rows of `batch`, which is on the model's device.

        A row's share depends on no other row, and on `noise` only through draws whose first dimension is the
        batch: the trainer deals a batch out, row by row, to workers.
        """
        ...


@runtime_checkable
class Initialises(Protocol):
    """A recipe that may have this method too, for weights that do not start as their modules make them."""

    def initialise(self, model: nn.Module, noise: NoiseSource) -> None:
        """Change a fresh model on the CPU in place, before step 0, as a function of `noise` alone.

        A run that is resumed is initialised as well, before its checkpoint replaces all of it.
        """
        ...


@runtime_checkable
class Staged(Protocol):
    """A recipe that another one follows, on the same model.

    The next stage begins with the averaged weights, an optimiser and a schedule of its own. Parameters that
    its loss does not use stay as they are.
    """

    next_stage: Recipe


@dataclass(frozen=True)
class Stage:
    """A recipe and its part of all steps: from `first` up to, not including, `end`."""

    recipe: Recipe
    first: int
    end: int


def stages_of(recipe: Recipe) -> list[Stage]:
    """The recipe, and those that follow it, one after the other."""
    stages = [Stage(recipe, 0, recipe.budget.steps)]
    while isinstance(recipe, Staged):
        recipe, first = recipe.next_stage, stages[-1].end
        stages.append(Stage(recipe, first, first + recipe.budget.steps))
    return stages
