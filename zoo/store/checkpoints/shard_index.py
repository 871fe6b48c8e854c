"""Checkpoints in several files, as transformers writes them: an index tells which tensor is where.

    {"metadata": {...}, "weight_map": {"layers.0.weight": "model-00001-of-00002.safetensors", ...}}

The files lie beside the index, whose name ends in `.index.json`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError
from zoo.store.checkpoints.formats import cannot_be_read

SUFFIX = ".index.json"

#: What an index may take: ten thousand tensors need less than two megabytes.
LARGEST_INDEX = 32 * 2**20

MOST_FILES = 1000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_HINT = "Get it again, or join the files yourself: zoo convert --help"


def is_index(name: str) -> bool:
    """Whether a file of this name, or at the end of this path, is an index."""
    return name.endswith(SUFFIX)


def shard_names(path: Path) -> tuple[str, ...]:
    """The names of the files that an index tells of, in the order of its tensors.

    They are plain names, of files beside the index. Raises `WeightsError` for a file that is no index.
    """
    try:
        if path.stat().st_size > LARGEST_INDEX:
            raise _no_index(path, f"it is larger than {LARGEST_INDEX} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except UnicodeDecodeError as error:
        raise _no_index(path, "it is not text") from error
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The decoder's message would quote the text, which is not ours to print.
        raise _no_index(path, "it is not JSON") from error
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not places:
        raise _no_index(path, "it has no table weight_map")
    names = tuple(dict.fromkeys(places.values())) if _are_names(list(places.values())) else ()
    if not names:
        raise _no_index(path, "its weight_map names something else than files beside it")
    if len(names) > MOST_FILES:
        raise _no_index(path, f"it names {len(names)} files, expected at most {MOST_FILES}")
    return names


def _are_names(values: list[Any]) -> bool:
    # An index in an index would never end, and a name with a slash would lead elsewhere.
    return all(isinstance(v, str) and _NAME.fullmatch(v) and not is_index(v) for v in values)


def _no_index(path: Path, problem: str) -> WeightsError:
    return WeightsError(f"{path}: is not the index of a checkpoint in several files: {problem}", _HINT)
