"""The kinds of artifacts by name, and their file formats: known without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InvalidInput, PluginError, did_you_mean

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact

KINDS: Mapping[str, str] = {
    "image": "zoo.io.artifacts:Image",
    "layers": "zoo.io.layers:LayeredImage",
    "text": "zoo.io.text:Text",
}
"""Where the class of each kind of the core is. A plugin names its own class as "package.module:Class"."""

#: What a class itself has; `provenance` may be a field without a default, which only its instances have.
_NAMES = ("kind", "formats", "picture", "save")


def artifact_class(makes: str) -> type[Artifact]:
    """Return the class of the artifacts that a sampler says it makes.

    makes: a key of KINDS, or "package.module:Class" of a plugin. Raises PluginError for anything else, and
    for what cannot be imported or is no artifact class.
    """
    target = KINDS.get(makes, makes)
    if ":" not in target:
        raise PluginError(
            f"'{makes}' is no kind of artifact", f"{did_you_mean(makes, KINDS)} {_known()}".lstrip()
        )
    # Imported here, because the registry reads cards, which those who only ask for a format do not need.
    from zoo.registry import resolve

    found = resolve(target, target.split(".")[0].split(":")[0])
    if not isinstance(found, type) or not all(hasattr(found, name) for name in _NAMES):
        lacking = [name for name in _NAMES if not hasattr(found, name)]
        what = f"lacks {', '.join(lacking)}" if isinstance(found, type) else "is no class"
        raise PluginError(f"{target} is no artifact class: it {what}", _known())
    return found


def chosen_format(
    formats: Mapping[str, tuple[str, ...]], path: str | PathLike[str], format: str | None, noun: str
) -> str:
    """Return the key of `formats` that `format` names, or else the suffix of `path`.

    formats: those of an artifact class; the suffix "" stands for a path without one. noun: what is written,
    such as "picture", for the error. Raises InvalidInput for what is in none of them.
    """
    asked = format if format is not None else Path(path).suffix
    wanted = asked.lower().removeprefix(".")
    names = {suffix.removeprefix("."): name for name, suffixes in formats.items() for suffix in suffixes}
    names.update({name: name for name in formats})
    if wanted in names:
        return names[wanted]
    known = f"Formats: {', '.join(formats)}."
    if not wanted:
        raise InvalidInput(f"{Path(path)} has no suffix that tells the {noun}'s format", hint=known)
    hint = f"{did_you_mean(wanted, filter(None, names))} {known}".lstrip()
    raise InvalidInput(f"unknown {noun} format '{asked}'", hint=hint)


def check_extra(kind: type[Artifact], format: str) -> None:
    """Raise PluginError that names the extra to install when a format needs a package that is missing.

    Called before the work whose result is to be written. A class tells it in `extras`: the format's name ->
    (module, extra of zoo); classes whose formats need nothing have no such attribute.
    """
    module, extra = getattr(kind, "extras", {}).get(format, (None, None))
    if module is not None and find_spec(module) is None:
        raise PluginError(
            f"a {format.upper()} file needs the package '{module.replace('_', '-')}', which is not installed",
            f'pip install "zoo[{extra}]"',
        )


def is_inline(makes: type[Artifact]) -> bool:
    """Whether artifacts of a class are shown where they are made, and are files only where one is asked for.

    A class tells it with `inline = True`; its artifacts then have an attribute `text`, which is shown.
    """
    return bool(getattr(makes, "inline", False))


def inline_text(artifact: Artifact) -> str | None:
    """What an inline artifact shows; None for any other. Raises PluginError for one without a text."""
    if not is_inline(type(artifact)):
        return None
    text = getattr(artifact, "text", None)
    if not isinstance(text, str):
        raise PluginError(f"{type(artifact).__qualname__} is inline and has no text: its `text` is {text!r}")
    return text


def _known() -> str:
    return f"Kinds: {', '.join(KINDS)}, or package.module:Class of a plugin."
