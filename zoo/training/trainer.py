"""The training loop: AdamW, warm-up and cosine, clipping, autocast, EMA, stages, exact resume.

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
from zoo.training.recipe import Budget, Recipe, Stage, stages_of

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
        self.stages = stages_of(recipe)
        # Convolutions are faster in this layout; nothing else notices it.
        self.model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.device = torch.device(device)
        self.seed = recipe.seed if seed is None else seed
        self.step = 0
        self.parameters = dict(model.named_parameters())
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._prepare(self.stages[0])

    @property
    def steps(self) -> int:
        """Of all stages together."""
        return self.stages[-1].end

    def run(self, until: int | None = None) -> Iterator[tuple[int, float]]:
        """Train up to step `until` (default: the last); yields (steps done, loss) after every step."""
        until = self.steps if until is None else min(until, self.steps)
        while self.step < until:
            self._enter_stage()
            yield from self._run_stage(min(until, self.stage.end))

    def _prepare(self, stage: Stage) -> None:
        """What a stage has of its own."""
        budget = stage.recipe.budget
        self.stage = stage
        self.gradients = Gradients(stage.recipe, self.model, self.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=budget.learning_rate,
            betas=budget.betas,
            weight_decay=budget.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def _stage_at(self, step: int) -> Stage:
        return next((stage for stage in self.stages if step < stage.end), self.stages[-1])

    def _enter_stage(self) -> None:
        """Be in the stage that the next step belongs to."""
        stage = self._stage_at(self.step)
        if stage is not self.stage:
            self.gradients.close()
            self._prepare(stage)
        if self.step == stage.first:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.average[name])

    def _run_stage(self, until: int) -> Iterator[tuple[int, float]]:
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
        self._enter_stage()
        return self._train_on(self._batch(self.step))

    def _batch(self, step: int) -> dict[str, Tensor]:
        recipe = self.stage.recipe
        return recipe.batch(self._noise(step), recipe.budget.batch_size)

    def _noise(self, step: int) -> BatchNoise:
        return BatchNoise("train", self.seed, step)

    def _train_on(self, batch: dict[str, Tensor]) -> float:
        budget = self.stage.recipe.budget
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(budget, self.step - self.stage.first)
        loss = self.gradients.of(batch, self._noise(self.step))
        nn.utils.clip_grad_norm_(list(self.parameters.values()), budget.clip_norm)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return float(loss)

    def _update_average(self) -> None:
        # Early on the average follows closely, so that it forgets the random initialisation.
        done = self.step - self.stage.first
        decay = min(self.stage.recipe.budget.ema_decay, (1 + done) / (10 + done))
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
        self.gradients.close()
        self._prepare(self._stage_at(self.step))
        self.model.load_state_dict(_under("model.", tensors))
        for name, tensor in _under("average.", tensors).items():
            self.average[name].copy_(tensor)
        # A stage that is about to begin has no use for what the one before has gathered.
        begun = self.step > self.stage.first
        for name, parameter in self.parameters.items():
            if begun and f"exp_avg.{name}" in tensors:
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
    """Run to step `until` (default: the last), saving every `save_every` steps and at the end.

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
