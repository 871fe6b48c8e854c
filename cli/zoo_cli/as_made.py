"""Running a model as it ran when a file was made: its device, number format and weights, where they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidInput

if TYPE_CHECKING:
    from zoo.io.artifacts import Provenance
    from zoo.runtime.model import LoadedModel
    from zoo_cli.output import Output


def named(path: Path) -> Path:
    """The path with a name of its own, to call another one after: "." and ".." have none."""
    return path.resolve() if path.name in ("", "..") else path


def as_made(made: Provenance, given: Mapping[str, Any], out: Output) -> dict[str, Any]:
    """The options `given` with device, dtype and weights of a sample where they leave these open."""
    return {
        **given,
        "device": given["device"] or _same_device(made.device, out),
        "dtype": given["dtype"] or made.dtype,
        "weights": given["weights"] or _own_weights(made.weights),
    }


def tell_differences(made: Provenance, loaded: LoadedModel, out: Output) -> None:
    """Warn where zoo or the weights are not those that a sample was made with."""
    from zoo.version import __version__

    if made.zoo_version != __version__:
        out.warning(f"the picture was made by zoo {made.zoo_version}, this is {__version__}")
    if made.weights is not None and made.weights != loaded.weights:
        out.warning(f"the picture was made with the weights {made.weights}, these are {loaded.weights}")


def _same_device(name: str, out: Output) -> str | None:
    from zoo.runtime.devices import checked_device

    try:
        checked_device(name)
    except InvalidInput:
        out.warning(f"the picture was made on {name}, which is not here: small differences are normal")
        return None
    return name


def _own_weights(weights: str | None) -> str | None:
    """The weights file that was given by hand, where it is still there."""
    if weights is None or weights.startswith("sha256:") or not Path(weights).is_file():
        return None
    return weights
