"""What runs when the user names no model."""

from __future__ import annotations

from zoo.settings import load_settings

#: The built-in model behind `zoo sample --prompt`.
BUILTIN_DEFAULT = "tarflow:shapes"


def default_reference() -> str:
    """The configured model, else the built-in default."""
    return load_settings().get("model") or BUILTIN_DEFAULT
