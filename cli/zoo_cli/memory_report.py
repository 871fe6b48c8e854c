"""What a run will take of the memory, told before it takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.io.request import Request
    from zoo.runtime.memory import MemoryNeed, PartNeed, StageNeed
    from zoo.session import Session
    from zoo_cli.output import Output

#: Bytes of memory that a user wants to know of before they are taken.
_WORTH_TELLING = 2**30

_TITLES = {"before": "before the model runs", "with": "while it runs", "after": "behind it"}


def tell_plan(
    session: Session, reference: str, requests: Sequence[Request], out: Output, given: Mapping[str, Any]
) -> MemoryNeed:
    """Plan requests before anything is loaded, as a command's options say, and tell the heaviest's need.

    Raises `DoesNotFit`.
    """
    from zoo.runtime.memory_plan import plan_memory
    from zoo.settings import load_settings

    settings = load_settings()
    need = plan_memory(
        session,
        reference,
        requests,
        given["device"] or settings.get("device"),
        given["dtype"] or settings.get("dtype"),
        Path(given["weights"]) if given["weights"] is not None else None,
        previews=bool(given.get("preview_every")),
    )
    tell_need(need, out)
    return need


def tell_need(need: MemoryNeed, out: Output) -> None:
    """Say what a run takes: always for large models, else only in detail."""
    for line in plan_lines(need, out.verbose):
        (out.note if need.taken >= _WORTH_TELLING else out.detail)(line)


def plan_lines(need: MemoryNeed, whole: bool = False) -> list[str]:
    """A memory plan in words: one line for a model alone, one more for each stage of one with components.

    whole: also tell of components that take little.
    """
    from zoo.quantities import human_bytes

    told = [part for part in need.parts if whole or max(part.weights, part.working) >= _WORTH_TELLING]
    weights = f"weights {human_bytes(need.weights)}, working memory {human_bytes(need.working)}"
    first = (
        f"memory on {need.device}: about {human_bytes(need.peak)} at most"
        f"{'' if told else f' ({weights})'}, free {human_bytes(need.free)}"
    )
    if need.several:
        first += f"; {need.batch_size} {'samples' if need.batch_size > 1 else 'sample'} at once"
    return [first, *(_stage_line(stage, need, told) for stage in need.stages if told)]


def _stage_line(stage: StageNeed, need: MemoryNeed, told: Sequence[PartNeed]) -> str:
    from zoo.quantities import human_bytes

    entries = [_entry("model", stage.held["model"], need.dtype)] if stage.held["model"] else []
    entries += [
        _entry(part.role, part.weights, part.dtype) + _leaving(part, need)
        for part in told
        if part.role in stage.held
    ]
    few = sum(size for role, size in stage.held.items() if role not in {"model", *(p.role for p in told)})
    entries += [f"other components {human_bytes(few)}"] if few else []
    line = ", ".join([*entries, f"working memory {human_bytes(stage.working)}"])
    droppable = f"; of it {human_bytes(stage.resting)} only as long as there is room" if stage.resting else ""
    total = human_bytes(sum(stage.held.values()) + stage.working)
    return f"  {_TITLES[stage.stage]} {total}: {line}{droppable}"


def _entry(role: str, size: int, dtype: str) -> str:
    from zoo.quantities import human_bytes

    return f"{role} {human_bytes(size)}" + (f" in {dtype}" if dtype else "")


def _leaving(part: PartNeed, need: MemoryNeed) -> str:
    if part.stays:
        return ""
    if part.stage == "before":
        return " (gone before the model runs)"
    return " (made anew for each batch)" if need.several else ""
