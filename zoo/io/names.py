"""File names for outputs: short, safe on every system, and never those of existing files."""

from __future__ import annotations

import os
import re
import unicodedata
from itertools import count
from os import PathLike
from pathlib import Path

MAX_LENGTH = 80
"""Longest default name in characters, suffix included."""

_MAX_REFERENCE = 32


def default_name(reference: str, prompt_or_class: str | None, seed: int, suffix: str) -> str:
    """Return a name such as "tarflow-shapes-a-red-circle-seed0.png": ASCII, at most MAX_LENGTH long.

    What has no ASCII form is left out, and a long prompt ends at a whole word where it can. `suffix` is a
    short one, with or without its dot; a folder has the empty one.
    """
    ending = ".".join(part for part in (f"seed{seed}", suffix.removeprefix(".").lower()) if part)
    model = slug(reference, _MAX_REFERENCE)
    words = slug(prompt_or_class or "", MAX_LENGTH - len(ending) - len(model) - 2)
    return "-".join(part for part in (model, words, ending) if part)


def slug(text: str, max_length: int) -> str:
    """Return `text` as words of [a-z0-9] joined by "-", at most `max_length` long; it may be empty."""
    # casefold spells the sharp s out, and the decomposition leaves the accents to be dropped.
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    if len(joined) <= max_length:
        return joined
    whole_words = joined[: max_length + 1].rpartition("-")[0]
    return whole_words or joined[:max_length]


def fresh_path(folder: str | PathLike[str], name: str) -> Path:
    """Return the first of name, name-2, name-3, ... in `folder` that does not exist, with the suffix kept.

    Another process may take it meanwhile: what writes to it must still refuse to overwrite.
    """
    first = Path(folder, name)
    if not os.path.lexists(first):
        return first
    numbered = (first.with_name(f"{first.stem}-{number}{first.suffix}") for number in count(2))
    return next(path for path in numbered if not os.path.lexists(path))
