"""Reading artifacts back from their files, of the kinds of the core and of those that plugins bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.errors import InvalidInput, PluginError
from zoo.io.kinds import artifact_class
from zoo.registry import resolve

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact, Image

READERS: Mapping[str, str] = {
    "image": "zoo.io.reading:read_picture",
    "layers": "zoo.io.layers:read_layers",
    "text": "zoo.io.text:read_text",
}
"""The function that reads the files of each kind of the core. A class of a plugin has a class method
`read(path)`, which raises InvalidInput for what is not of its kind, or cannot be read back."""


def read_picture(path: str | PathLike[str]) -> Image:
    """Return the picture in a file, without its provenance; raises InvalidInput as `read_image` does."""
    from zoo.io.artifacts import Image
    from zoo.io.images import read_image

    return Image(read_image(path))


def read_artifact(path: str | PathLike[str], makes: type[Artifact]) -> Artifact:
    """Return what lies at `path`, a file or a folder, as an artifact of the class `makes`.

    Raises InvalidInput for what is missing or not of that kind, and PluginError for a class that has no
    reader.
    """
    reader = _reader(makes)
    if reader is None:
        raise PluginError(
            f"artifacts of the kind '{makes.kind}' cannot be read back: {makes.__qualname__} has no class "
            "method read(path)"
        )
    return reader(path)


def read_unknown(path: Path, made: Iterable[str]) -> Artifact | None:
    """What lies at `path`, read by the first class of a plugin that has its suffix and understands it.

    made: kinds that samplers say they make. Classes that cannot be imported are passed over.
    """
    for kind in dict.fromkeys(kind for kind in made if kind not in READERS):
        with suppress(PluginError, InvalidInput):
            makes = artifact_class(kind)
            reader = _reader(makes)
            if reader is not None and _suffixed(path, makes) is not None:
                return reader(path)
    return None


def format_of(path: Path, makes: type[Artifact]) -> str:
    """The name of the format that an artifact of the class `makes` lies in.

    That of a picture is told by its content, whatever the name says; that of other kinds by the suffix. Where
    that tells nothing, it is the default of the kind.
    """
    from zoo.io.artifacts import Image

    if not issubclass(makes, Image):
        return _suffixed(path, makes) or next(iter(makes.formats))
    import PIL.Image

    with PIL.Image.open(path) as picture:
        name = str(picture.format).lower()
    return name if name in makes.formats else next(iter(makes.formats))


def _suffixed(path: Path, makes: type[Artifact]) -> str | None:
    """The format that a path has the suffix of; a folder has the empty one, and no file has."""
    suffix = "" if path.is_dir() else path.suffix.lower() or None
    return next((name for name, suffixes in makes.formats.items() if suffix in suffixes), None)


def _reader(makes: type[Artifact]) -> Callable[[str | PathLike[str]], Artifact] | None:
    found: Any = getattr(makes, "read", None)
    if found is None and makes.kind in READERS:
        found = resolve(READERS[makes.kind], "zoo")
    return cast("Callable[[str | PathLike[str]], Artifact] | None", found)
