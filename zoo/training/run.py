"""From a reference to a trainer, and from a trainer to weights that a card can name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from zoo.cards import Card, Variant
from zoo.errors import InvalidInput, WeightsError, ZooError
from zoo.io.files import write_file
from zoo.runtime.devices import checked_device, checked_dtype, core_device
from zoo.runtime.loading import build
from zoo.runtime.noise import BatchNoise, generator
from zoo.session import Session
from zoo.training.recipe import Initialises
from zoo.training.trainer import Trainer

#: Built-in weights are at most this large, so that the whole package stays small.
MAX_BUILT_IN_BYTES = 8 * 2**20


def start(session: Session, reference: str, device: str | None = None, seed: int | None = None) -> Trainer:
    """A trainer at step 0 of a variant's recipe; the initial weights depend on `seed` alone.

    A recipe that is `zoo.training.recipe.Initialises` has a say in them. `seed` defaults to the recipe's,
    `device` to the best there is. Raises `NotFound` for a variant without a recipe.
    """
    card, variant = session.resolve(reference)
    recipe = session.recipe(card, variant)
    place = checked_device(device or core_device())
    seed = recipe.seed if seed is None else seed
    if seed < 0:
        raise InvalidInput(f"seed is {seed}, expected at least 0")
    model = initialised(session, card, variant, seed)
    if isinstance(recipe, Initialises):
        recipe.initialise(model, BatchNoise("initialise", seed))
    return Trainer(recipe, model, str(place), seed)


def initialised(session: Session, card: Card, variant: Variant, seed: int) -> nn.Module:
    """A variant's module on the CPU with fresh weights, as a function of `seed` alone."""
    architecture = session.architecture(card, variant)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator("initialise", seed).initial_seed()))
        return build(architecture, variant.config)


def resume(trainer: Trainer, checkpoint: Path) -> None:
    """Continue from a checkpoint; raises `WeightsError` for a file of another model, or none at all."""
    if not checkpoint.is_file():
        raise WeightsError(f"{checkpoint}: no such checkpoint", "Leave out --resume to start from step 0.")
    try:
        trainer.load(checkpoint)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{checkpoint}: is not a checkpoint of this model: {reason}",
            "Choose the folder of this variant with --out.",
        ) from error


@dataclass(frozen=True)
class Exported:
    """A weights file as a card names it."""

    path: Path
    sha256: str
    size: int


def export(trainer: Trainer, path: Path, dtype: str = "float16") -> Exported:
    """Write the averaged weights as safetensors in one step; only floating-point tensors change their dtype.

    Raises `ZooError` when a weight is not finite in that dtype, `OutputNotWritable` where it cannot be
    written.
    """
    kind = checked_dtype(dtype)
    tensors = {name: _cast(name, tensor, kind) for name, tensor in trainer.averaged_state().items()}
    content = save(tensors)
    write_file(path, content, overwrite=True)
    return Exported(path, hashlib.sha256(content).hexdigest(), len(content))


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous()
    cast = tensor.detach().to("cpu", dtype).contiguous()
    if not bool(cast.isfinite().all()):
        raise ZooError(
            f"{name} holds values that are not finite in {str(dtype).removeprefix('torch.')}",
            "The run diverged, or --dtype float32 is needed.",
        )
    return cast
