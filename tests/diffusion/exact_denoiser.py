"""A denoiser that is never wrong: data is normal around a mean for each class, so clean data is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import Prediction, predicted_from
from zoo.diffusion.schedules import Schedule, TableSchedule, cosine_capped
from zoo.errors import InvalidInput
from zoo.registry import Architecture
from zoo.runtime.model import LoadedModel
from zoo.runtime.sampling import Batch
from zoo.session import Session

CLASSES = ["dark", "grey", "light"]
MEANS = (-0.6, 0.0, 0.6, 0.1)  # the last is for "no class"


def exact_clean(x: Tensor, alpha: Any, sigma: Any, mean: Any, deviation: float) -> Tensor:
    """The mean of x0 given x = alpha x0 + sigma eps, for x0 normal with this mean and deviation."""
    share = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
    return mean + share * (x - alpha * mean)


class ExactDenoiser(nn.Module):
    """Offers `denoiser`. Keeps what `condition` and `predict` were given, for tests to look at."""

    def __init__(
        self,
        schedules: Sequence[Schedule] = (cosine_capped(1000),),
        shapes: Sequence[tuple[int, int, int]] = ((3, 8, 8),),
        prediction: Prediction = "v",
        deviation: float = 0.1,
        signal_scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.prediction, self.deviation = prediction, deviation
        scales = signal_scales or [1.0] * len(shapes)
        self._levels = tuple(map(Level, shapes, schedules, scales))
        self.means = nn.Parameter(torch.tensor(MEANS), requires_grad=False)
        self.guided: list[bool] = []
        self.calls: list[tuple[tuple[torch.Size, ...], Tensor, torch.dtype]] = []
        self.buffers_seen: set[int] = set()

    def levels(self, size: tuple[int, int] | None = None) -> tuple[Level, ...]:
        if size not in (None, self._levels[0].shape[1:]):
            raise InvalidInput(f"this model does not make {size}", "Leave out --size.")
        return self._levels

    def condition(self, batch: Batch, components: Mapping[str, nn.Module], guided: bool) -> Tensor:
        self.guided.append(guided)
        given = batch.labels
        labels = torch.full((len(batch),), -1) if given is None else given
        return self.means[torch.cat([torch.full_like(labels, -1), labels]) if guided else labels]

    def predict(self, x: State, time: Tensor, condition: Tensor) -> State:
        self.calls.append((tuple(value.shape for value in x), time.clone(), x[0].dtype))
        self.buffers_seen.add(x[0].data_ptr())
        first = self._levels[0].schedule
        at = time + 1 if isinstance(first, TableSchedule) else time / getattr(first, "time_scale", 1.0)
        return tuple(self._level(level, v, at, condition) for level, v in zip(self._levels, x, strict=True))

    def _level(self, level: Level, x: Tensor, time: Tensor, means: Tensor) -> Tensor:
        alpha, sigma = (value.reshape(-1, 1, 1, 1) for value in level.schedule.alpha_sigma(time))
        mean = means.double().reshape(-1, 1, 1, 1) / level.signal_scale
        clean = exact_clean(x.double(), alpha, sigma, mean, self.deviation / level.signal_scale)
        return predicted_from(self.prediction, x.double(), clean, alpha, sigma).to(x.dtype)


def loaded_exact(model: ExactDenoiser, offers: Sequence[str] = ("denoiser",), **sampler: Any) -> LoadedModel:
    """The denoiser as a user would have it after `load`; `sampler` are the card's defaults."""
    document = {
        "schema": 1,
        "method": "exact",
        "title": "Exact",
        "summary": "normal data",
        "tasks": ["class-to-image", "unconditional"],
        "default": "normal",
        "variant": {
            "normal": {
                "summary": "three classes",
                "architecture": "exact",
                "config": {},
                "sampler": {"name": "ddim", **sampler},
                "classes": CLASSES,
            }
        },
    }
    card = parse_card(document)
    session = Session(Catalogue(cards={"exact": card}))
    architecture = Architecture("exact", "exact", ExactDenoiser, ExactDenoiser, offers=tuple(offers))
    return LoadedModel(
        card=card,
        variant=card.variants["normal"],
        architecture=architecture,
        components={"model": model},
        device=torch.device("cpu"),
        dtype=torch.float32,
        weights="",
        session=session,
    )
