"""What would fit in place of a request that does not: each change is planned as the request was."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Literal

import torch

from zoo.errors import ZooError
from zoo.quantities import human_bytes
from zoo.runtime.components import is_used
from zoo.runtime.memory import MemoryNeed
from zoo.runtime.memory_plan import Placement, Wish, place

#: The number format that halves float32, and computes wherever float32 does.
SMALLER = "bfloat16"

LAST = "close other programs, or use a machine with more memory"


@dataclasses.dataclass(frozen=True)
class Change:
    """Another way to ask: what a user types, and the fields of the `Wish` that it sets."""

    text: str
    fields: Mapping[str, Any]

    def __add__(self, other: Change) -> Change:
        return Change(f"{self.text} {other.text}", {**self.fields, **other.fields})


def advice(wish: Wish, placement: Placement, need: MemoryNeed) -> str:
    """What would fit, with what that takes; else what comes nearest, and by how much it fails."""
    single = list(_changes(wish, placement, need))
    pairs = [one + other for one, other in combinations(single, 2) if not set(one.fields) & set(other.fields)]
    nearest: tuple[int, str] | None = None
    for changes in (single, pairs):
        planned = [(change, _planned(wish, change)) for change in changes]
        found = [(change.text, after) for change, after in planned if after is not None]
        fitting = [f"{text} ({human_bytes(after.fullest.needed)})" for text, after in found if after.fits]
        if fitting:
            return f"What fits: {'; '.join(fitting)}.\nOr {LAST}."
        lacking = [(after.fullest.missing(after.free), text) for text, after in found]
        nearest = min([*lacking, *([nearest] if nearest else [])], default=None)
    if nearest is None:
        return f"{LAST[0].upper()}{LAST[1:]}."
    return f"Nearest is {nearest[1]}, which lacks {human_bytes(nearest[0])}: {LAST}."


def _changes(wish: Wish, placement: Placement, need: MemoryNeed) -> Iterator[Change]:
    if wish.dtype != SMALLER and "float32" in [need.dtype, *(part.dtype for part in need.parts)]:
        yield Change(_smaller(wish, placement), {"dtype": SMALLER})
    for text, options in _leaner_options(wish):
        yield Change(f"--option {text}", {"options": options})
    for device in _other_devices(placement.device):
        yield Change(f"--device {device}", {"device": device})


def _smaller(wish: Wish, placement: Placement) -> str:
    fixed = [
        part.role
        for part in placement.parts
        if is_used(part.role, part.component, wish.options) and part.component.dtype == "float32"
    ]
    against = f" (also of {' and '.join(fixed)}, against the card)" if fixed else ""
    return f"--dtype {SMALLER}{against}"


def _leaner_options(wish: Wish) -> Iterator[tuple[str, Any]]:
    """Options that do without a component that the wish's own need, in words and as they are."""
    options, components = wish.options, wish.variant.components

    def used(asked: Any) -> set[str]:
        return {role for role, component in components.items() if is_used(role, component, asked)}

    hints = typing.get_type_hints(type(options)) if dataclasses.is_dataclass(options) else {}
    for name, hint in hints.items():
        values = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        for value in values:
            try:
                other = dataclasses.replace(options, **{name: value})
            except ValueError:
                continue
            if used(other) < used(options):
                yield f"{name}={value}", other


def _other_devices(device: torch.device) -> Iterator[str]:
    if device.type != "cpu":
        yield "cpu"
    if torch.cuda.is_available():
        own = (device.index or 0) if device.type == "cuda" else None
        yield from (f"cuda:{index}" for index in range(torch.cuda.device_count()) if index != own)
    if device.type != "mps" and torch.backends.mps.is_available():
        yield "mps"


def _planned(wish: Wish, change: Change) -> MemoryNeed | None:
    """What a change takes; None for one that is not possible here."""
    changed = dataclasses.replace(wish, **change.fields)
    try:
        return place(changed).need(changed)
    except ZooError:
        return None
