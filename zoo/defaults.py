"""What runs when the user names no model."""

from __future__ import annotations

from zoo.settings import load_settings

#: The built-in model behind `zoo sample --prompt`.
BUILTIN_TEXT_DEFAULT = "mdm:shapes"

#: The built-in model where no text is given.
BUILTIN_DEFAULT = "tarflow:shapes"


def default_reference(text: bool = False) -> str:
    """The configured model, else the built-in default for a request with a text, or without one."""
    return load_settings().get("model") or (BUILTIN_TEXT_DEFAULT if text else BUILTIN_DEFAULT)
