"""Which mapping of a checkpoint's content holds its tensors, and what it holds beside them."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError
from zoo.store.checkpoints.archives import shown
from zoo.store.checkpoints.pickle_machine import Inert, Name, Table
from zoo.store.checkpoints.tensor_records import TensorRecord

NOTHING_RUNS = "Only tensors are read; code that a file names is never run."
STATE_DICT_WANTED = "Ask its authors for a state dict, which torch.save(model.state_dict(), FILE) writes."

_DEEPEST = 6  #: levels that are looked through to say where the tensors are


def tensor_entries(content: Any, path: Path, entry: str | None = None) -> dict[str, TensorRecord]:
    """The tensors of `content` by name: those of `entry`, by default "state_dict" where it holds tensors.

    Without such an entry they are its own, or those of the one entry that holds tensors. Raises
    `WeightsError`, with `path` in its text, when there are none, several, deeper ones only, or one that is
    made by an unknown function.
    """
    if not isinstance(content, Table):
        raise _error(path, f"is not a state dict, expected a mapping from names to tensors, {_got(content)}")
    holders = _holders(content)
    if entry is not None and entry not in holders:
        known = ", ".join(shown(name) for name in sorted(holders)[:8]) or "none"
        raise _error(path, f"has no entry {shown(entry)} with tensors; entries that hold some: {known}")
    chosen = entry or "state_dict"
    if chosen in holders:
        return _tensors_of(holders[chosen], path)
    if _holds_tensors(content):
        return _tensors_of(content, path)
    if len(holders) > 1:
        names = ", ".join(shown(name) for name in sorted(holders)[:8])
        raise _error(path, f"is not one state dict: several of its entries hold tensors: {names}")
    for inner in holders.values():
        return _tensors_of(inner, path)
    where = _deeper(content)
    if where:
        raise _error(path, f"is not a state dict: its tensors are nested too deep, in {where}")
    raise _error(path, "is not a state dict: it holds no tensors")


def _is_of_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or something unknown that would be made of tensors."""
    return isinstance(value, TensorRecord) or (isinstance(value, Inert) and value.of_tensors)


def refused(path: Path, name: str, problem: str) -> WeightsError:
    """The error for one tensor that cannot be read."""
    return _error(path, f"cannot be read: tensor {shown(name)} {problem}")


def _maker_text(maker: Name | None) -> str:
    """The dotted name of what would have made an object."""
    return shown(f"{maker.module[:80]}.{maker.name}") if maker else "something unknown"


def _holds_tensors(table: Table) -> bool:
    return any(_is_of_tensors(value) for _, value in table)


def _holders(table: Table) -> dict[str, Table]:
    """The entries that are mappings with tensors. One that stands there a million times is looked at once."""
    known: dict[int, bool] = {}
    holders = {}
    for name, value in _last(table).items():
        if isinstance(value, Table):
            if id(value) not in known:
                known[id(value)] = _holds_tensors(value)
            if known[id(value)]:
                holders[name] = value
    return holders


def _last(table: Table) -> dict[str, Any]:
    """Entries with names that are texts; of equal names the last counts, as in every mapping."""
    return {name: value for name, value in table if isinstance(name, str)}


def _tensors_of(table: Table, path: Path) -> dict[str, TensorRecord]:
    if any(_is_of_tensors(value) and not isinstance(name, str) for name, value in table):
        raise _error(path, "is not a state dict: not all names of its tensors are texts")
    tensors: dict[str, TensorRecord] = {}
    for name, value in _last(table).items():
        if isinstance(value, Inert) and value.of_tensors:
            raise refused(path, name, f"is made by {_maker_text(value.maker)}, expected a plain dense tensor")
        if isinstance(value, TensorRecord):
            tensors[_checked_name(name, path)] = value
    return tensors


def _checked_name(name: str, path: Path) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise refused(path, name, "has a name that is not valid text") from None
    return name


def _deeper(table: Table) -> str | None:
    """Where the first tensors are, as names with slashes between; without recursion, each mapping once."""
    waiting: deque[tuple[Table, tuple[str, ...]]] = deque([(table, ())])
    seen = {id(table)}
    while waiting:
        table, way = waiting.popleft()
        if _holds_tensors(table):
            return "/".join(way)
        for name, value in table if len(way) < _DEEPEST else ():
            if isinstance(value, Table) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((value, (*way, shown(name if isinstance(name, str) else "?", 30))))
    return None


def _got(content: Any) -> str:
    if isinstance(content, Inert | Name):
        return f"got an object of {_maker_text(content if isinstance(content, Name) else content.maker)}"
    return f"got {'a tensor' if _is_of_tensors(content) else type(content).__name__}"


def _error(path: Path, problem: str) -> WeightsError:
    return WeightsError(f"{path}: {problem}", f"{STATE_DICT_WANTED}\n{NOTHING_RUNS}")
