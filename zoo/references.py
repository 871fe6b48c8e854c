"""References: how a set of weights is named.

    reference = method [":" variant] ["@" revision]
    method, variant = [a-z0-9][a-z0-9._-]{0,63}     folded to lower case
    revision = [A-Za-z0-9][A-Za-z0-9._-]{0,63}

A bare method means the default variant that its card names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from zoo.errors import InvalidReference

_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_REFERENCE = re.compile(
    rf"(?P<method>{_NAME})(?::(?P<variant>{_NAME}))?(?:@(?P<revision>[a-z0-9][a-z0-9._-]{{0,63}}))?",
    re.IGNORECASE | re.ASCII,
)
_NAME_ONLY = re.compile(_NAME)

#: A file of one of these is never meant as a method's name, although the grammar allows it.
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Reference:
    """A parsed reference; `variant` and `revision` are None where the text does not give them."""

    method: str
    variant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        variant = f":{self.variant}" if self.variant else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.method}{variant}{revision}"


def is_name(text: str) -> bool:
    """Whether `text` may name a method or a variant."""
    return _NAME_ONLY.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Parse `method[:variant][@revision]`; raises `InvalidReference`."""
    match = _REFERENCE.fullmatch(text.strip())
    is_weights = text.lower().endswith(_WEIGHTS_SUFFIXES) and os.path.isfile(text)
    if match is not None and not is_weights:
        variant = match["variant"]
        return Reference(match["method"].lower(), variant.lower() if variant else None, match["revision"])
    # Unlike `Path.exists`, this answers for a text that is too long for a path too.
    if os.path.exists(text):
        raise InvalidReference(
            f"'{text}' is a path, expected a reference such as tarflow:shapes",
            f"To use your own weights: zoo sample METHOD:VARIANT --weights {text}",
        )
    raise InvalidReference(
        f"'{text}' is not a reference, expected method[:variant][@revision] such as tarflow:shapes",
        "zoo list shows every reference.",
    )
