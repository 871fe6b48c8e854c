"""Tables of tensor names: the authors' on the left, ours on the right, readable in both directions.

`{i}` and `{j}` stand for whole numbers, `{rest}` for any ending. A name that no row matches is left as it is,
so that the check against the architecture reports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")
KeyMap = Sequence[tuple[str, str]]

_HOLES = {"i": r"(?P<i>\d+)", "j": r"(?P<j>\d+)", "rest": r"(?P<rest>.+)"}


def to_ours(values: Mapping[str, Value], table: KeyMap) -> dict[str, Value]:
    """Rename from the authors' names to ours."""
    return _renamed(values, [(theirs, ours) for theirs, ours in table])


def to_theirs(values: Mapping[str, Value], table: KeyMap) -> dict[str, Value]:
    """Rename from our names to the authors'."""
    return _renamed(values, [(ours, theirs) for theirs, ours in table])


def _renamed(values: Mapping[str, Value], pairs: KeyMap) -> dict[str, Value]:
    rules = [(_pattern(source), target) for source, target in pairs]
    result: dict[str, Value] = {}
    for name, value in values.items():
        renamed = _rename(name, rules)
        if renamed in result:
            raise ValueError(f"two tensors are called {renamed}")
        result[renamed] = value
    return result


def _rename(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        match = pattern.fullmatch(name)
        if match is not None:
            return target.format(**match.groupdict())
    return name


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(_HOLES[p] if index % 2 else re.escape(p) for index, p in enumerate(parts)))
