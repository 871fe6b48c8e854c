"""Provenance inside files: how it is put into pictures, and how it is read back from files of every kind.

A file holds one JSON document: {"zoo": provenance}, or {"zoo_grid": [provenance, ...]} for a contact sheet.
PNG has one iTXt text per key of it (UTF-8); WebP and JPEG have the whole of it in the EXIF UserComment. Where
layered images and texts have it is said in the module of each format.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import PIL.Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from zoo.errors import InvalidInput
from zoo.io.artifacts import PROVENANCE_KEY, Provenance
from zoo.io.grid import GRID_KEY
from zoo.io.opening import BROKEN, open_picture

_FORMATS = ("PNG", "WEBP", "JPEG")
_KEYS = (PROVENANCE_KEY, GRID_KEY)

# EXIF 2.3, UserComment: the first eight bytes name the character code. Its "UNICODE" leaves the byte order
# open and readers disagree about it, so the JSON is written in ASCII with escapes.
_ASCII_PREFIX = b"ASCII\0\0\0"
_DOCUMENT_STARTS = tuple(f'{{"{key}":' for key in _KEYS)


def png_metadata(document: dict[str, Any]) -> PngInfo:
    """Return the PNG text chunks of a metadata document."""
    texts = PngInfo()
    for key, value in document.items():
        texts.add_itxt(key, readable_json(value))
    return texts


def exif_metadata(document: dict[str, Any]) -> bytes:
    """Return the EXIF block of a metadata document."""
    exif = PIL.Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.UserComment] = _ASCII_PREFIX + json.dumps(document).encode("ascii")
    return exif.tobytes()


def read_provenance(path: str | PathLike[str]) -> Provenance:
    """Return how the one sample in the file at `path` was made.

    It is a PNG, WebP or JPEG picture, an OpenRaster file, a folder of layers, a PSD file, or the JSON file of
    a text. Raises InvalidInput when the file is missing, is none of these, has no zoo metadata or damaged
    metadata, or is a grid of several samples (see `read_provenances`).
    """
    key, entries = _read_entries(Path(path))
    if key == GRID_KEY:
        raise InvalidInput(
            f"{Path(path)} is a grid of {len(entries)} samples, not a single one",
            hint="Replay works on the single pictures; read_provenances lists all samples of a grid.",
        )
    return entries[0]


def read_provenances(path: str | PathLike[str]) -> list[Provenance]:
    """Return how every sample in the file was made: one, or those of a grid in row-major order.

    Raises InvalidInput as `read_provenance` does, except for grids.
    """
    return _read_entries(Path(path))[1]


def stored_provenance(path: str | PathLike[str]) -> Provenance | None:
    """Return how the one sample in the file was made, or None when the file does not tell.

    Raises InvalidInput as `read_provenance` does, except for a file without metadata or of several samples.
    """
    key, entries = _stored_entries(Path(path))
    return entries[0] if key == PROVENANCE_KEY else None


def readable_json(value: Any, indent: int | None = None) -> str:
    """Return JSON text that UTF-8 can hold, with letters of all languages as they are where possible."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A prompt of undecodable command-line bytes holds lone surrogates, which UTF-8 refuses.
        return json.dumps(value, indent=indent)
    return text


def _read_entries(path: Path) -> tuple[str, list[Provenance]]:
    key, entries = _stored_entries(path)
    if not entries:
        raise InvalidInput(
            f"{path} has no zoo metadata",
            hint="It was not made by zoo, was written without metadata, or another program removed it.",
        )
    return key, entries


def _stored_entries(path: Path) -> tuple[str, list[Provenance]]:
    """The key under which the file holds samples, and these; none where it has no metadata."""
    # Imported here, because what writes layered files writes pictures into them, with the functions above.
    from zoo.io.layer_files import layered_document, layered_format

    format = layered_format(path)
    try:
        document = _other_document(path) if format is None else layered_document(path, format)
        for key in _KEYS:
            if key in document:
                return key, _entries(key, document[key])
    except (*BROKEN, RecursionError) as error:
        raise InvalidInput(
            f"the zoo metadata in {path} is damaged: {error}",
            hint="Another program may have changed it; use an untouched copy of the file.",
        ) from error
    return "", []


def _other_document(path: Path) -> dict[str, Any]:
    """The document of a file that is not layered: of a text, else of a picture."""
    from zoo.io.text import text_document

    document = text_document(path)
    return _picture_document(path) if document is None else document


def _picture_document(path: Path) -> dict[str, Any]:
    with open_picture(path, _FORMATS) as picture:
        return _png_document(picture) if picture.format == "PNG" else _exif_document(picture)


def _png_document(picture: PIL.Image.Image) -> dict[str, Any]:
    # With the pixels loaded, `info` also has the texts that other programs moved behind them.
    return {key: json.loads(picture.info[key]) for key in _KEYS if key in picture.info}


def _exif_document(picture: PIL.Image.Image) -> dict[str, Any]:
    comment = picture.getexif().get_ifd(IFD.Exif).get(Base.UserComment)
    if not isinstance(comment, bytes) or not comment.startswith(_ASCII_PREFIX):
        return {}
    text = comment.removeprefix(_ASCII_PREFIX).decode("ascii", errors="replace")
    # Cameras and other programs write plain words here: only what begins as ours can be damaged.
    return json.loads(text) if text.startswith(_DOCUMENT_STARTS) else {}


def _entries(key: str, value: Any) -> list[Provenance]:
    if key == PROVENANCE_KEY:
        return [Provenance.from_dict(value)]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} is not a list of samples")
    return [Provenance.from_dict(entry) for entry in value]
