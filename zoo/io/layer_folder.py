"""Layers in a folder: one PNG file a layer, the composite, and layers.json that tells how they lie.

layers.json: {"size": [width, height], "composite": "composite.png", "layers": [{"file": "layer-0.png",
"name": "background", "x": 0, "y": 0, "visible": true, "opacity": 1.0}, ... back to front],
"zoo": provenance or absent}.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import InvalidInput, OutputExists, OutputNotWritable
from zoo.io.files import publish_new
from zoo.io.layer_png import LayerDecoder, layer_png
from zoo.io.layers import Layer, LayeredImage
from zoo.io.metadata import readable_json
from zoo.io.writers import encode, to_pillow

LAYERS = "layers.json"
_COMPOSITE = "composite.png"
_LARGEST_PICTURE = 2**30
_LONGEST_LISTING = 2**24

#: Files that operating systems leave in every folder they show.
_LITTER = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))


def write_folder(image: LayeredImage, path: Path, overwrite: bool) -> Path:
    """Write the folder in one step, with the names and PNG files of the layers as they are.

    With `overwrite` a folder of layers is replaced, and kept when writing fails; any other folder, and one
    that holds further files, is OutputExists. Raises OutputNotWritable when the disk refuses.
    """
    files = _files(image)
    if not path.name:
        raise OutputNotWritable(f"cannot write '{path}': it has no name", hint="Give the name of a folder.")
    temporary = path.with_name(f".zoo-{secrets.token_hex(8)}.part")
    try:
        _check_free(path, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        if overwrite and os.path.lexists(path):
            _replace(temporary, path)
        else:
            publish_new(temporary, path)
    except OSError as error:
        raise OutputNotWritable(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}",
            hint="Choose a folder that you may write to and that has room.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def read_folder(path: Path) -> LayeredImage:
    """Read the layers of the folder, without its provenance.

    Raises InvalidInput when layers.json is missing or damaged, for a file that is missing, outside the folder
    or no PNG picture, and for more than MOST_PIXELS.
    """
    listing = _listing(path)
    decoder = LayerDecoder()
    try:
        width, height = _size(listing["size"])
        LayerDecoder().take(height, width, f"the canvas of {path}")
        layers = tuple(_layer(path, entry, decoder) for entry in listing["layers"])
        return LayeredImage((height, width), layers)
    except (ValueError, KeyError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidInput(
            f"{path / LAYERS} is damaged: {what}",
            hint="It tells the size, and file and place of every layer.",
        ) from error


def folder_document(path: Path) -> dict[str, Any]:
    """Return layers.json, whose key "zoo" is the provenance."""
    return _listing(path)


def _files(image: LayeredImage) -> dict[str, bytes]:
    composite = image.composite()
    document = composite.metadata() or {}
    names = [f"layer-{index}.png" for index in range(len(image.layers))]
    entries = [
        {
            "file": name,
            "name": layer.name,
            "x": layer.x,
            "y": layer.y,
            "visible": layer.visible,
            "opacity": float(layer.opacity),
        }
        for name, layer in zip(names, image.layers, strict=True)
    ]
    listing = {"size": [*reversed(image.size)], "composite": _COMPOSITE, "layers": entries, **document}
    files = {name: layer_png(layer) for name, layer in zip(names, image.layers, strict=True)}
    files[_COMPOSITE] = encode(to_pillow(composite.to_bytes8()), "png", document or None)
    files[LAYERS] = readable_json(listing, indent=2).encode() + b"\n"
    return files


def _check_free(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputExists(f"{path} exists already", hint="Choose another path, or ask for overwriting.")
    hint = "Choose another path, or move it away."
    if not path.is_dir():
        raise OutputExists(f"{path} exists and is not a folder of layers", hint=hint)
    try:
        listing = _listing(path)
        own = {LAYERS, listing["composite"], *(entry["file"] for entry in listing["layers"])}
    except (InvalidInput, TypeError, KeyError) as error:
        raise OutputExists(f"{path} exists and is not a folder of layers", hint=hint) from error
    others = sorted({entry.name for entry in path.iterdir()} - own - _LITTER)
    if others:
        raise OutputExists(f"{path} also holds {others[0]}, which overwriting would lose", hint=hint)


def _replace(temporary: Path, path: Path) -> None:
    old = path.with_name(f".zoo-{secrets.token_hex(8)}.old")
    os.rename(path, old)
    try:
        publish_new(temporary, path)
    except BaseException:
        os.rename(old, path)
        raise
    # A link is replaced, not the folder it leads to.
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def _listing(path: Path) -> dict[str, Any]:
    try:
        listing = json.loads(_content(path, LAYERS, _LONGEST_LISTING))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path / LAYERS} is damaged: {error}", hint="Expected a JSON document."
        ) from error
    if not isinstance(listing, dict) or not isinstance(listing.get("layers"), list) or "size" not in listing:
        raise InvalidInput(f"{path / LAYERS} lists no layers", hint='Expected the keys "size" and "layers".')
    return listing


def _size(size: Any) -> tuple[int, int]:
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        raise ValueError(f'"size" is {size!r}, expected two whole numbers, [width, height]')
    return size[0], size[1]


def _layer(path: Path, entry: Any, decoder: LayerDecoder) -> Layer:
    if not isinstance(entry, dict):
        raise ValueError(f'a layer is {entry!r}, expected an object with the key "file"')
    png = _content(path, entry["file"], _LARGEST_PICTURE)
    visible, name = entry.get("visible", True), entry.get("name", "")
    if not isinstance(visible, bool) or not isinstance(name, str):
        raise ValueError(f'"visible" is true or false and "name" a text, got {visible!r} and {name!r}')
    return Layer(
        decoder.decode(png, str(path / entry["file"])),
        name,
        entry.get("x", 0),
        entry.get("y", 0),
        visible,
        entry.get("opacity", 1.0),
        png,
    )


def _content(path: Path, name: object, most: int) -> bytes:
    if not isinstance(name, str) or not _inside(path, name):
        raise InvalidInput(
            f"{path / LAYERS} names the file {name!r}, expected one inside the folder",
            hint="Such as layer-0.png.",
        )
    source = path / name
    try:
        if not source.is_file():
            raise InvalidInput(
                f"{path} is a folder without {name}", hint="It may be no folder of layers, or incomplete."
            )
        if source.stat().st_size > most:
            raise InvalidInput(f"{source} is larger than {most} bytes", hint="Use a smaller picture.")
        return source.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {source}: {error.strerror}", hint="Check the file.") from error


def _inside(path: Path, name: str) -> bool:
    # Links are followed: one that leads out of the folder is outside it.
    plain = name and "\0" not in name and not PurePosixPath(name).is_absolute()
    return bool(plain) and (path / name).resolve().is_relative_to(path.resolve())
