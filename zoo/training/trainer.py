"""The training loop: AdamW, warm-up and cosine, clipping, autocast, EMA, exact resume.

Batch `i` depends on the recipe's seed and on `i` alone, so a run that was stopped and resumed is the run that
was not; each is made while the step before it runs. Checkpoints are safetensors: no pickle here either.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.runtime.noise import BatchNoise
from zoo.training.gradients import Gradients
from zoo.training.recipe import Budget, Recipe

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def learning_rate(budget: Budget, step: int) -> float:
    """Linear warm-up to the peak, then a cosine to the final rate at the last step."""
    if step < budget.warmup_steps:
        return budget.learning_rate * (step + 1) / budget.warmup_steps
    span = max(1, budget.steps - budget.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - budget.warmup_steps) / span)))
    return budget.final_learning_rate + (budget.learning_rate - budget.final_learning_rate) * cosine


class Trainer:
    """One model in training. `step` counts the steps done; `average` holds the EMA of the parameters."""

    def __init__(
        self, recipe: Recipe, model: nn.Module, device: str = "cpu", seed: int | None = None
    ) -> None:
        self.recipe = recipe
        # Convolutions are faster in this layout; nothing else notices it.
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.device = torch.device(device)
        self.seed = recipe.seed if seed is None else seed
        self.step = 0
        self.parameters = dict(model.named_parameters())
        self.gradients = Gradients(recipe, self.model, self.device)
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        budget = recipe.budget
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=budget.learning_rate,
            betas=budget.betas,
            weight_decay=budget.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def run(self, until: int | None = None) -> Iterator[tuple[int, float]]:
        """Train up to step `until` (default: the budget); yields (steps done, loss) after every step."""
        until = self.recipe.budget.steps if until is None else until
        self.gradients.start()
        # One thread is enough to make the next batch while the workers are at this one.
        with self.gradients.alone(), ThreadPoolExecutor(1, "batch", torch.set_num_threads, (1,)) as maker:
            coming = maker.submit(self._batch, self.step) if self.step < until else None
            while coming is not None:
                batch = coming.result()
                coming = maker.submit(self._batch, self.step + 1) if self.step + 1 < until else None
                yield self.step + 1, self._train_on(batch)

    def train_step(self) -> float:
        """One optimisation step; returns the batch's loss."""
        return self._train_on(self._batch(self.step))

    def _batch(self, step: int) -> dict[str, Tensor]:
        return self.recipe.batch(self._noise(step), self.recipe.budget.batch_size)

    def _noise(self, step: int) -> BatchNoise:
        return BatchNoise("train", self.seed, step)

    def _train_on(self, batch: dict[str, Tensor]) -> float:
        budget = self.recipe.budget
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(budget, self.step)
        loss = self.gradients.of(batch, self._noise(self.step))
        nn.utils.clip_grad_norm_(list(self.parameters.values()), budget.clip_norm)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return float(loss)

    def _update_average(self) -> None:
        # Early on the average follows closely, so that it forgets the random initialisation.
        decay = min(self.recipe.budget.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), [p.detach() for p in self.parameters.values()], 1.0 - decay
            )

    def averaged_state(self) -> dict[str, Tensor]:
        """The model's state with averaged parameters: what ships."""
        return {**self.model.state_dict(), **self.average}

    def save(self, path: Path) -> None:
        """Write everything needed to go on exactly, atomically."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.parameters.items():
            state = self.optimizer.state.get(parameter, {})
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS if moment in state}
        part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            part,
            metadata={"step": str(self.step), "seed": str(self.seed)},
        )
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Continue from a file that `save` wrote for the same recipe and model."""
        with safe_open(path, framework="pt", device=str(self.device)) as file:
            self.step, self.seed = int(file.metadata()["step"]), int(file.metadata()["seed"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        self.model.load_state_dict(_under("model.", tensors))
        for name, tensor in _under("average.", tensors).items():
            self.average[name].copy_(tensor)
        for name, parameter in self.parameters.items():
            if f"exp_avg.{name}" in tensors:
                self.optimizer.state[parameter] = {m: tensors[f"{m}.{name}"].clone() for m in _MOMENTS}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def train(
    trainer: Trainer,
    checkpoint: Path,
    save_every: int,
    report: Callable[[int, float], None] | None = None,
    until: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> bool:
    """Run to step `until` (default: the budget), saving every `save_every` steps and at the end.

    `stop` is asked after every step; when it says so, the checkpoint is saved and False returned. Files are
    written between steps only: an exception inside a step leaves the last checkpoint as it was.
    """
    for step, loss in trainer.run(until):
        if report is not None:
            report(step, loss)
        stopped = stop is not None and stop()
        if stopped or step % save_every == 0:
            trainer.save(checkpoint)
        if stopped:
            return False
    trainer.save(checkpoint)
    return True
