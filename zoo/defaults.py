"""What runs when the user names no model."""

from __future__ import annotations

from zoo.settings import load_settings

#: The built-in model behind `zoo sample --prompt`.
BUILTIN_TEXT_DEFAULT = "mdm:shapes"

#: The built-in model behind `zoo sample --layer-prompt`.
BUILTIN_PARTS_DEFAULT = "layerdiff:shapes"

#: The built-in model behind `zoo sample --task` and `--image`.
BUILTIN_TASKS_DEFAULT = "illume:shapes"

#: The built-in model where no text is given.
BUILTIN_DEFAULT = "tarflow:shapes"


def default_reference(text: bool = False, parts: bool = False, pictures: bool = False) -> str:
    """The configured model, else the built-in default for what a request holds.

    pictures: it names a task or gives a picture. parts: it has part prompts. text: it has any text.
    """
    if configured := load_settings().get("model"):
        return configured
    if pictures:
        return BUILTIN_TASKS_DEFAULT
    if parts:
        return BUILTIN_PARTS_DEFAULT
    return BUILTIN_TEXT_DEFAULT if text else BUILTIN_DEFAULT
