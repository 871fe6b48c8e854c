"""Provenance back into requests: what was asked for, so that it can be asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.io.artifacts import Provenance
from zoo.io.request import Request


@dataclass(frozen=True)
class Changes:
    """What a replay does differently. `seed` is that of the first sample; the others keep their distance."""

    seed: int | None = None
    guidance: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.seed is not None or self.guidance is not None or bool(self.options)


@dataclass(frozen=True)
class Replay:
    """Samples of one file that are drawn together: `made` tells how they were made, in order."""

    made: tuple[Provenance, ...]
    request: Request

    @property
    def first(self) -> Provenance:
        """The first sample's provenance; reference, sampler, dtype and device are those of all."""
        return self.made[0]


def replays(
    provenances: Sequence[Provenance], changes: Changes | None = None, batch_size: int | None = None
) -> list[Replay]:
    """The requests that draw these samples again, in order; as few as possible."""
    changes = changes or Changes()
    shift = 0 if changes.seed is None else changes.seed - provenances[0].seed
    groups: list[list[Provenance]] = []
    for provenance in provenances:
        if groups and _continues(groups[-1], provenance):
            groups[-1].append(provenance)
        else:
            groups.append([provenance])
    return [Replay(tuple(group), _request(group, changes, shift, batch_size)) for group in groups]


def _continues(group: list[Provenance], next_one: Provenance) -> bool:
    last = group[-1]
    same = ("reference", "weights", "sampler", "options", "size", "dtype", "device")
    return (
        all(getattr(last, name) == getattr(next_one, name) for name in same)
        and next_one.seed == last.seed + 1
        and _kind(next_one) == _kind(last)
        and (next_one.negative is None) == (last.negative is None)
    )


def _kind(provenance: Provenance) -> str:
    if provenance.prompt is not None:
        return "prompt"
    if provenance.class_id is not None:
        return "class"
    # Part prompts alone go with the empty prompt.
    return "prompt" if provenance.part_prompts else "none"


def _request(group: list[Provenance], changes: Changes, shift: int, batch_size: int | None) -> Request:
    first, kind = group[0], _kind(group[0])
    options = dict(first.options)
    if changes.guidance is not None:
        options["guidance"] = changes.guidance
    options.update({name.replace("-", "_"): value for name, value in changes.options.items()})
    return Request(
        prompts=[p.prompt or "" for p in group] if kind == "prompt" else (),
        classes=[p.class_id for p in group if p.class_id is not None] if kind == "class" else (),
        negatives=[p.negative for p in group if p.negative is not None],
        part_prompts=() if kind == "none" else [p.part_prompts for p in group],
        num=len(group) if kind == "none" else 1,
        size=first.size,
        seed=first.seed + shift,
        sampler=first.sampler,
        options=options,
        batch_size=batch_size,
    )
