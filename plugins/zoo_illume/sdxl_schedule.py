"""How the noise of the diffusion decoder falls: from a scheduler's settings to a path of `zoo.diffusion`.

A folder of `diffusers` says in scheduler/scheduler_config.json what its network was trained for and which of
the library's schedulers draws with it. Those that are here give the numbers that the library's give; what is
not here is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.diffusion.parameterisations import Prediction
from zoo.diffusion.paths import Path, path
from zoo.diffusion.schedules import TableSchedule, linear_betas, scaled_linear_betas
from zoo.diffusion.solvers import SOLVERS, Solver
from zoo.diffusion.spacing import Spacing, times
from zoo.errors import WeightsError

_PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
_TABLES = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}


@dataclass(frozen=True)
class Scheduling:
    """What a run of the decoder's network follows; the defaults are those of Stable Diffusion XL.

    offset: see `zoo.diffusion.spacing.times`.
    last: time of the last point: 0 for clean data, 1 for the cleanest noise level.
    scaled_start: the first state is noise times the first sigma instead of the noise itself.
    """

    table: TableSchedule = field(default_factory=lambda: scaled_linear_betas(1000))
    solver_name: str = "euler"
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    offset: int = 1
    last: int = 0
    scaled_start: bool = False

    @property
    def solver(self) -> Solver:
        """The function that takes the steps."""
        return SOLVERS[self.solver_name]

    def path(self, steps: int) -> Path:
        """The points of so many steps; raises `InvalidInput` for more than the table has room for."""
        visited = times(self.table, steps, self.spacing, offset=self.offset)
        return path([self.table], (*visited[:-1], float(self.last)))

    def start_scale(self, route: Path) -> float:
        """What standard normal noise is multiplied by to be the state at the first point."""
        return route.levels[0].sigmas[0] if self.scaled_start else 1.0


@dataclass(frozen=True)
class _Known:
    """One of the library's schedulers: the solver that it is, and what is here of its settings.

    spacings: the rules for its points that are here; `usual` is what it does where nothing is said.
    only: settings with (what the library takes where nothing is said, all that are here).
    """

    solver_name: str
    spacings: tuple[Spacing, ...]
    usual: str
    only: Mapping[str, tuple[Any, tuple[Any, ...]]]


_ALWAYS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "trained_betas": (None, (None,)),
    "rescale_betas_zero_snr": (False, (False, None)),
}
_UNCHANGED: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    **_ALWAYS,
    "clip_sample": (True, (False, None)),
    "thresholding": (False, (False, None)),
}
_KNOWN: Mapping[str, _Known] = {
    "EulerDiscreteScheduler": _Known(
        "euler",
        ("leading", "trailing"),
        "linspace",
        {
            **_ALWAYS,
            "interpolation_type": ("linear", ("linear",)),
            "use_karras_sigmas": (False, (False, None)),
            "use_exponential_sigmas": (False, (False, None)),
            "use_beta_sigmas": (False, (False, None)),
            "timestep_type": ("discrete", ("discrete",)),
            "final_sigmas_type": ("zero", ("zero",)),
        },
    ),
    "DDIMScheduler": _Known("ddim", ("leading",), "leading", _UNCHANGED),
    "DDPMScheduler": _Known(
        "ddpm",
        ("leading", "trailing", "linspace"),
        "leading",
        {**_UNCHANGED, "variance_type": ("fixed_small", ("fixed_small", "fixed_small_log"))},
    ),
}


def scheduling_from(settings: Mapping[str, Any], source: str) -> Scheduling:
    """What the content of a scheduler_config.json asks for.

    `source` is what errors call the file. Raises `WeightsError` for a scheduler, or a setting of one, that is
    not here, with its name.
    """
    name = settings.get("_class_name")
    known = _KNOWN.get(str(name))
    if known is None:
        raise WeightsError(
            f"{source}: scheduler {name!r} is not supported", f"Supported are: {', '.join(_KNOWN)}"
        )
    for setting, (usual, here) in known.only.items():
        _expect(settings.get(setting, usual), here, setting, source)
    spacing = settings.get("timestep_spacing", known.usual)
    _expect(spacing, known.spacings, "timestep_spacing", source)
    prediction = settings.get("prediction_type", "epsilon")
    _expect(prediction, tuple(_PREDICTIONS), "prediction_type", source)
    _expect(settings.get("beta_schedule", "linear"), tuple(_TABLES), "beta_schedule", source)
    try:
        offset = int(settings.get("steps_offset", 0)) if spacing == "leading" else 0
        return Scheduling(
            _table(settings),
            known.solver_name,
            _PREDICTIONS[prediction],
            spacing,
            offset,
            _last(settings, known, offset),
            scaled_start=known.solver_name == "euler" and spacing != "leading",
        )
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source}: {error}") from error


def _table(settings: Mapping[str, Any]) -> TableSchedule:
    make = _TABLES[settings.get("beta_schedule", "linear")]
    first, last = settings.get("beta_start", 1e-4), settings.get("beta_end", 0.02)
    return make(int(settings.get("num_train_timesteps", 1000)), float(first), float(last))


def _last(settings: Mapping[str, Any], known: _Known, offset: int) -> int:
    if known.solver_name != "ddim" or settings.get("set_alpha_to_one", True):
        return 0
    if offset == 0:
        # The last step would lead from the cleanest level to itself.
        raise ValueError("set_alpha_to_one is false with a steps_offset of 0, expected at least 1")
    return 1


def _expect(value: Any, here: tuple[Any, ...], setting: str, source: str) -> None:
    if value not in here:
        listed = ", ".join(json.dumps(one) for one in here)
        raise WeightsError(f"{source}: {setting} is {json.dumps(value)}, supported: {listed}")
