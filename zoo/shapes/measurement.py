"""What every evaluation tells of the run that it measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from zoo.errors import ZooError
from zoo.io.artifacts import Artifact
from zoo.io.request import Request
from zoo.runtime import devices
from zoo.runtime.model import LoadedModel
from zoo.runtime.options import changed_options

#: Options that are stated with every result, also where they are the sampler's own defaults.
_ALWAYS_STATED = ("steps", "guidance", "mask_guidance", "solver")

Kind = TypeVar("Kind", bound=Artifact)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A run of a model whose samples were judged: everything needed to measure it again."""

    reference: str
    weights: str
    sampler: str
    options: Mapping[str, Any]
    changed: Mapping[str, Any]  #: the options that are not at the sampler's own defaults
    device: str
    dtype: str
    seed: int
    seconds_per_sample: float

    @property
    def stated(self) -> dict[str, Any]:
        """The options that a figure is not to be quoted without: steps, guidance and what was changed."""
        always = {name: self.options[name] for name in _ALWAYS_STATED if name in self.options}
        return {**always, **self.changed}

    def facts(self) -> dict[str, Any]:
        """The run as JSON values."""
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(Measurement)}
        return {**facts, "options": dict(self.options), "changed": dict(self.changed)}


def run_facts(loaded: LoadedModel, request: Request, seconds_per_sample: float) -> dict[str, Any]:
    """The fields of `Measurement` for the samples of a request."""
    options = loaded.options(request)
    return {
        "reference": loaded.reference,
        "weights": loaded.weights,
        "sampler": loaded.sampler_of(request).name,
        "options": dataclasses.asdict(options),
        "changed": changed_options(options),
        "device": str(loaded.device),
        "dtype": devices.dtype_name(loaded.dtype),
        "seed": request.seed_of(0),
        "seconds_per_sample": seconds_per_sample,
    }


class Timed(Generic[Kind]):
    """Iterates over artifacts and counts the time that drawing them takes, judging left out.

    Raises `ZooError` for artifacts of another class than the one that is judged.
    """

    def __init__(self, artifacts: Iterator[Any], kind: type[Kind]) -> None:
        self._artifacts = artifacts
        self._kind = kind
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Kind]:
        while True:
            started = time.perf_counter()
            artifact = next(self._artifacts, None)
            self.seconds += time.perf_counter() - started
            if artifact is None:
                return
            if not isinstance(artifact, self._kind):
                raise ZooError(f"eval judges {self._kind.kind} here, and the sampler made: {artifact.kind}")
            yield artifact
