"""OpenRaster files (.ora): a zip file with one PNG file a layer, which GIMP, Krita and MyPaint open.

Written as the file layout and layer stack specifications at openraster.org ask for, and read as far as a
picture of plain layers can represent what they allow.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.files import write_file
from zoo.io.layer_groups import Group, only_normal_blending
from zoo.io.layer_png import LayerDecoder, layer_png
from zoo.io.layers import Layer, LayeredImage
from zoo.io.metadata import readable_json
from zoo.io.plain_xml import parse_xml, printable
from zoo.io.writers import encode, to_pillow

MOST_BYTES = 2**30
"""So much all members of a file may hold when unpacked, in bytes."""

_LONGEST_TEXT = 2**24

#: The latest draft of the layer stack specification that has a number.
_VERSION = "0.0.5"
_MIMETYPE = "image/openraster"
_STACK = "stack.xml"
_METADATA = "zoo.json"
_THUMBNAIL_SIDE = 256
_NORMAL = "svg:src-over"

#: The earliest date that a zip file can hold: the same picture makes the same file on every day.
_DATE = (1980, 1, 1, 0, 0, 0)

#: What the zip reader raises for broken content, RuntimeError for what is encrypted.
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


def write_openraster(image: LayeredImage, path: Path, overwrite: bool) -> Path:
    """Write `image` with the names and PNG files of its layers as they are; errors of `write_file`."""
    composite = image.composite()
    document = composite.metadata()
    sources = [f"data/layer{index}.png" for index in range(len(image.layers))]
    members = {"mimetype": _MIMETYPE.encode(), _STACK: _stack_xml(image, sources)}
    members |= {source: layer_png(layer) for source, layer in zip(sources, image.layers, strict=True)}
    members["mergedimage.png"] = encode(to_pillow(composite.to_bytes8()), "png", document)
    members["Thumbnails/thumbnail.png"] = _thumbnail(composite)
    if document is not None:
        members[_METADATA] = readable_json(document).encode()
    return write_file(path, _zipped(members), overwrite=overwrite)


def read_openraster(path: Path) -> LayeredImage:
    """Read the layers of the file, without its provenance.

    Groups are taken apart. Raises InvalidInput for a damaged file, for one that lacks what it should have,
    for one with more than MOST_BYTES or MOST_PIXELS, and for what plain layers cannot represent.
    """
    with _Archive(path) as archive:
        root = parse_xml(archive.text(_STACK), f"{_STACK} in {path}")
        stack = root.find("stack")
        if root.tag != "image" or stack is None:
            raise InvalidInput(
                f"{_STACK} in {path} holds no stack of layers", hint="Expected an image element with one."
            )
        size = (_whole(root, "h", "image"), _whole(root, "w", "image"))
        if min(size) < 1:
            raise InvalidInput(f"the canvas of {path} is {size[1]}x{size[0]}, expected at least 1x1")
        LayerDecoder().take(*size, f"the canvas of {path}")
        try:
            front_to_back = list(_Layers(archive).of(stack, Group()))
        except RecursionError as error:
            raise InvalidInput(
                f"the groups in {path} lie too deep in each other", hint="Take some of them apart."
            ) from error
    if not front_to_back:
        raise InvalidInput(f"{path} has no layers, expected at least one")
    return LayeredImage(size, tuple(reversed(front_to_back)))


def openraster_document(path: Path) -> dict[str, Any]:
    """Return the metadata document in the file, empty when it has none; ValueError when it is no JSON."""
    with _Archive(path) as archive:
        if _METADATA not in archive.names:
            return {}
        document = json.loads(archive.text(_METADATA))
    if not isinstance(document, dict):
        raise ValueError(f"{_METADATA} holds no mapping")
    return document


def _stack_xml(image: LayeredImage, sources: list[str]) -> bytes:
    height, width = image.size
    root = ElementTree.Element("image", version=_VERSION, w=str(width), h=str(height))
    stack = ElementTree.SubElement(root, "stack")
    # The first one of a stack is in front.
    for source, layer in reversed(list(zip(sources, image.layers, strict=True))):
        attributes = {
            "name": printable(layer.name),
            "src": source,
            "x": str(layer.x),
            "y": str(layer.y),
            "opacity": str(float(layer.opacity)),
            "visibility": "visible" if layer.visible else "hidden",
            "composite-op": _NORMAL,
        }
        ElementTree.SubElement(stack, "layer", attributes)
    ElementTree.indent(root)
    body: bytes = ElementTree.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + body + b"\n"


def _thumbnail(composite: Image) -> bytes:
    picture = to_pillow(composite.to_bytes8())
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return encode(picture, "png")


def _zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, _DATE)
            # Else they tell the operating system.
            member.create_system, member.external_attr = 3, 0o644 << 16
            # PNG files are compressed already, and the mimetype is found at a fixed place in the file.
            packed = name.endswith((".xml", ".json"))
            archive.writestr(member, content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    return data.getvalue()


class _Archive:
    """The members of a zip file, which may unpack to MOST_BYTES in all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise self._damaged(error) from error
        self.names = frozenset(self._zip.namelist())

    def __enter__(self) -> _Archive:
        total = sum(member.file_size for member in self._zip.infolist())
        if total > MOST_BYTES:
            self._zip.close()
            raise InvalidInput(
                f"{self.path} unpacks to {total} bytes, and at most {MOST_BYTES} are read",
                hint="Use a smaller picture.",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def text(self, name: str) -> bytes:
        """A member that describes the picture, which is short."""
        if name in self.names and self._zip.getinfo(name).file_size > _LONGEST_TEXT:
            raise InvalidInput(
                f"{name} in {self.path} is longer than {_LONGEST_TEXT} bytes", hint="It may be damaged."
            )
        return self.read(name)

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise InvalidInput(
                f"{self.path} has no {name}", hint="It may be no OpenRaster file, or one that is cut short."
            )
        member = self._zip.getinfo(name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidInput(
                f"{name} in {self.path} is packed in a way that OpenRaster does not allow",
                hint="Expected a member that is stored or deflated.",
            )
        try:
            # With the length given, no more is unpacked than the member declares.
            with self._zip.open(member) as file:
                return file.read(member.file_size)
        except _BROKEN as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InvalidInput:
        return InvalidInput(
            f"{self.path} is damaged: {error}", hint="It may be cut short; copy or download it again."
        )


class _Layers:
    """Takes the layers out of the stacks of a file."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._decoder = LayerDecoder()

    def of(self, stack: ElementTree.Element, around: Group) -> Iterator[Layer]:
        """The layers of a stack, front to back."""
        group = _group(stack, around)
        for item in stack:
            # Elements of a namespace are another program's own; they change nothing about the picture.
            if "}" in item.tag:
                continue
            if item.tag == "stack":
                yield from self.of(item, group)
            elif item.tag == "layer":
                yield self._layer(item, group)
            else:
                raise InvalidInput(
                    f"{self._archive.path} has a '{item.tag}' among its layers, "
                    "expected pictures and groups of them",
                    hint="Turn it into a picture in the program that made it.",
                )

    def _layer(self, item: ElementTree.Element, group: Group) -> Layer:
        name = item.get("name", "")
        _check_blending(item, name)
        source = item.get("src", "")
        if not source or source.startswith("/") or "\\" in source or ".." in PurePosixPath(source).parts:
            raise InvalidInput(
                f"layer '{name}' of {self._archive.path} lies at '{source}', expected a path inside the file",
                hint="Such as data/layer0.png.",
            )
        png = self._archive.read(source)
        return Layer(
            self._decoder.decode(png, f"{source} in {self._archive.path}"),
            name,
            group.x + _whole(item, "x", name, 0),
            group.y + _whole(item, "y", name, 0),
            group.visible and _visible(item),
            group.opacity * _opacity(item, name),
            png,
        )


def _group(stack: ElementTree.Element, around: Group) -> Group:
    name = stack.get("name", "")
    _check_blending(stack, name)
    layers = sum(1 for _ in stack.iter("layer"))
    x, y = _whole(stack, "x", name, 0), _whole(stack, "y", name, 0)
    return around.inner(name, layers, _visible(stack), _opacity(stack, name), x, y)


def _check_blending(item: ElementTree.Element, name: str) -> None:
    mode = item.get("composite-op", _NORMAL)
    only_normal_blending(name, mode, mode == _NORMAL)
    only_normal_blending(name, "alpha-preserve", item.get("alpha-preserve", "false") != "true")


def _visible(item: ElementTree.Element) -> bool:
    return item.get("visibility", "visible") != "hidden"


def _opacity(item: ElementTree.Element, name: str) -> float:
    text = item.get("opacity", "1")
    try:
        opacity = float(text)
    except ValueError:
        opacity = -1.0
    if not 0.0 <= opacity <= 1.0:
        raise InvalidInput(f"'{name}' has the opacity '{text}', expected a number from 0 to 1")
    return opacity


def _whole(item: ElementTree.Element, key: str, name: str, default: int | None = None) -> int:
    text = item.get(key)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError as error:
        raise InvalidInput(f"'{name}' has {text!r} as its {key}, expected a whole number") from error
