"""Small documents that the store keeps for good: which terms were accepted, which content was believed.

They are read strictly and written in one step. A damaged one is an error and is left as it is: what it says
cannot be made again, so only its owner may decide to give it up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from zoo.errors import OutputNotWritable, ZooError
from zoo.store.publishing import write_json

SCHEMA = 1

Entries = TypeVar("Entries")


def read_record(path: Path, key: str, holds: str, parse: Callable[[Any], Entries]) -> Entries | None:
    """What stands under `key`, as `parse` makes it; None where nothing was recorded yet.

    `holds` says in words what would be lost. Raises `ZooError` for a file that cannot be read or whose
    content `parse` refuses (KeyError, TypeError or ValueError).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ZooError(
            f"{path}: cannot be read: {(error.strerror or str(error)).lower()}",
            f"It holds {holds}. Check its permissions.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, holds, str(error)) from error
    try:
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, expected {SCHEMA}")
        return parse(document[key])
    except KeyError as error:
        raise _damaged(path, holds, f"{error.args[0]!r} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _damaged(path, holds, str(error)) from error


def write_record(path: Path, key: str, entries: Any) -> None:
    """Write a record in one step, under the store's lock; raises `OutputNotWritable`."""
    try:
        write_json(path, {"schema": SCHEMA, key: entries})
    except OSError as error:
        raise OutputNotWritable(
            f"{path}: cannot be written: {(error.strerror or str(error)).lower()}",
            "Set ZOO_HOME to a folder that you may write to and that has room.",
        ) from error


def now() -> str:
    """The time in UTC, to the second, as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def text(value: object) -> str:
    """`value` if it is a text; raises `TypeError`."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _damaged(path: Path, holds: str, problem: str) -> ZooError:
    import shlex

    aside = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.damaged')}"
    return ZooError(
        f"{path}: is damaged: {problem}",
        f"It holds {holds} and was left as it is. Repair it, or give it up:\n{aside}",
    )
