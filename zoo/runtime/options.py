"""Sampler options: a dataclass per sampler, filled from the card, the request and the command line."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from zoo.errors import InvalidInput, did_you_mean


def build_options(kind: Any, sampler: str, *layers: Mapping[str, Any]) -> Any:
    """An instance of the options dataclass `kind`; later layers win. Texts are read as the field's type.

    Raises `InvalidInput` for an option the sampler does not have, or a value of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            name = key.replace("-", "_")
            if name not in names:
                hint = did_you_mean(name, names) or f"It has: {', '.join(names) or 'none'}"
                raise InvalidInput(f"sampler '{sampler}' has no option '{key}'", hint)
            merged[name] = _read(hints[name], value, name)
    try:
        return kind(**merged)
    except ValueError as error:
        raise InvalidInput(f"sampler '{sampler}': {error}") from error


def changed_options(options: Any) -> dict[str, Any]:
    """The fields of an options dataclass that are not at their defaults, in order."""
    values = {field: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {field.name: value for field, value in values.items() if value != field.default}


def _read(hint: Any, value: Any, name: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        return _read(next(h for h in inner if h is not type(None)), value, name)
    if origin is Literal:
        found = next((choice for choice in inner if value == choice or value == str(choice)), None)
        if found is not None:
            return found
        raise InvalidInput(f"option {name} is {value!r}, expected one of: {', '.join(map(str, inner))}")
    if origin is tuple:
        return _tuple(inner, value, name)
    reader = _READERS.get(hint)
    try:
        return reader(value) if reader else value
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"option {name} is {value!r}, expected {_NAMES.get(hint, hint)}") from None


def _tuple(inner: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise InvalidInput(f"option {name} is {value!r}, expected values with commas between them")
    kinds = [inner[0]] * len(parts) if inner[-1:] == (Ellipsis,) else list(inner)
    if len(kinds) != len(parts):
        raise InvalidInput(f"option {name} is {value!r}, expected {len(kinds)} values")
    return tuple(_read(kind, part, name) for kind, part in zip(kinds, parts, strict=True))


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ValueError(value)


def _int(value: Any) -> int:
    if isinstance(value, (bool, float)) and int(value) != value:
        raise ValueError(value)
    return int(value)


def _float(value: Any) -> float:
    # A file's metadata is JSON, which has neither infinity nor "not a number".
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


_READERS: dict[Any, Any] = {bool: _bool, int: _int, float: _float, str: str}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
