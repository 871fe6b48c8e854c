"""Files of layered images: which format a path has, and what goes into every one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import InvalidInput
from zoo.io.kinds import chosen_format
from zoo.io.layer_folder import folder_document, read_folder, write_folder
from zoo.io.layer_png import without_texts
from zoo.io.layers import Layer, LayeredImage
from zoo.io.metadata import stored_provenance
from zoo.io.openraster import openraster_document, read_openraster, write_openraster
from zoo.io.photoshop import photoshop_document, read_photoshop, write_photoshop

_STARTS = {b"PK\x03\x04": "ora", b"PK\x05\x06": "ora", b"8BPS": "psd"}

_WRITERS: dict[str, Callable[[LayeredImage, Path, bool], Path]] = {
    "ora": write_openraster,
    "folder": write_folder,
    "psd": write_photoshop,
}
_READERS: dict[str, Callable[[Path], LayeredImage]] = {
    "ora": read_openraster,
    "folder": read_folder,
    "psd": read_photoshop,
}
_DOCUMENTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ora": openraster_document,
    "folder": folder_document,
    "psd": photoshop_document,
}


def save_layers(
    image: LayeredImage,
    path: str | PathLike[str],
    format: str | None = None,
    metadata: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write `image` to `path` in one step and return the path.

    format: "ora", "folder" or "psd"; None takes it from the suffix of `path`, and a path without one is a
    folder.
    metadata: False leaves no trace of how the picture was made: no provenance, "background", "layer 1", ...
    instead of the layers' names, which may be prompts, and no texts in the PNG files that layers were read
    from. Else these files are written again byte for byte, and only layers without a name get such a one.

    Layers are 8-bit RGBA with straight alpha; the composite beside them is RGB, with white where they do not
    cover. The same layers and provenance make the same bytes. Raises InvalidInput for an unknown format or
    what the format cannot hold, ZooError for values that are not finite, PluginError when PSD is asked for
    and psd-tools is missing, OutputExists for an existing file or folder unless `overwrite`, and
    OutputNotWritable when the folder or the disk refuses.
    """
    name = chosen_format(LayeredImage.formats, path, format, "layered image")
    return _WRITERS[name](_prepared(image, metadata), Path(path), overwrite)


def load_layers(path: str | PathLike[str]) -> LayeredImage:
    """Read an OpenRaster file, a folder of layers or a PSD file; by content, the suffix does not matter.

    Files of other programs are read too: groups are taken apart, and grey, RGB and palette pictures become
    RGBA. `encoded` of a layer holds the PNG file that it was read from, if it was one. Raises InvalidInput
    when there is no such file, it is none of these or damaged, its provenance is damaged, or plain layers
    cannot represent it; PluginError for a PSD file when psd-tools is missing.
    """
    source = Path(path)
    format = layered_format(source)
    if format is None:
        raise InvalidInput(
            f"{source} is not a layered image",
            hint="Expected an OpenRaster file (.ora), a folder with layers.json, or a PSD file.",
        )
    return dataclasses.replace(_READERS[format](source), provenance=stored_provenance(source))


def layered_format(path: Path) -> str | None:
    """Return the format that the file or folder at `path` seems to have, None if it has none of ours.

    Raises InvalidInput when it is missing or cannot be read.
    """
    if path.is_dir():
        return "folder"
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist", hint="Check the path.") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", hint="Check the file.") from error
    return _STARTS.get(start)


def layered_document(path: Path, format: str) -> dict[str, Any]:
    """Return the metadata document of a layered file; it has no key "zoo" where there is no provenance."""
    return _DOCUMENTS[format](path)


def _prepared(image: LayeredImage, metadata: bool) -> LayeredImage:
    layers = tuple(_prepared_layer(index, layer, metadata) for index, layer in enumerate(image.layers))
    provenance = image.provenance if metadata else None
    return dataclasses.replace(image, layers=layers, provenance=provenance)


def _prepared_layer(index: int, layer: Layer, metadata: bool) -> Layer:
    generic = f"layer {index}" if index else "background"
    if metadata:
        return dataclasses.replace(layer, name=layer.name or generic)
    encoded = None if layer.encoded is None else without_texts(layer.encoded)
    return dataclasses.replace(layer, name=generic, encoded=encoded)
