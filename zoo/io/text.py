"""Texts as artifacts: what a model says about a picture, or answers to a text.

A JSON file holds {"text": text, "zoo": provenance or absent}. A plain text file (.txt) holds the text and a
line's end and nothing else: it does not tell how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from zoo.errors import InvalidInput
from zoo.io.artifacts import PROVENANCE_KEY, Image, Provenance
from zoo.io.files import write_file
from zoo.io.kinds import chosen_format
from zoo.io.metadata import readable_json, stored_provenance

TEXT_KEY = "text"
"""Under this key a JSON file holds the text itself."""

_PLAIN = ".txt"
_MOST_BYTES = 2**26


@dataclass(frozen=True)
class Text:
    """A text.

    text: characters as the model wrote them; lines end with newlines.
    provenance: how it was made; None for a text that no sample made.

    It is inline: shown where it is made, and a file only where one is asked for. Raises ValueError for what
    is no str.
    """

    text: str
    provenance: Provenance | None = None

    kind: ClassVar[str] = "text"
    formats: ClassVar[Mapping[str, tuple[str, ...]]] = {"json": (".json",), "txt": (_PLAIN,)}
    inline: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"a text is {self.text!r}, expected a str")

    def __str__(self) -> str:
        return self.text

    def picture(self) -> Image:
        """Return a picture of the beginning of the text, black on white, for contact sheets."""
        # Imported here because Pillow is only needed by those who look at a picture.
        from zoo.io.text_picture import text_pixels

        return Image(text_pixels(self.text), self.provenance)

    def metadata(self) -> dict[str, Any] | None:
        """Return the JSON document that goes into the file, or None when there is nothing to tell."""
        return None if self.provenance is None else {PROVENANCE_KEY: self.provenance.to_dict()}

    def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,
        metadata: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Write the text to `path` in one step, in UTF-8, and return the path.

        format: "json" or "txt"; None takes it from the suffix of `path`.
        metadata: whether the provenance goes into a JSON file; a .txt file never holds it.

        Raises InvalidInput for an unknown format, OutputExists for an existing file unless `overwrite`, and
        OutputNotWritable when the folder or the disk refuses.
        """
        name = chosen_format(self.formats, path, format, self.kind)
        if name == "txt":
            # A lone surrogate has no form in UTF-8; JSON has an escape for it.
            data = f"{self.text}\n".encode(errors="replace")
        else:
            document = {TEXT_KEY: self.text, **((self.metadata() or {}) if metadata else {})}
            data = f"{readable_json(document, indent=2)}\n".encode()
        return write_file(path, data, overwrite)


def read_text(path: str | PathLike[str]) -> Text:
    """Read a text from a JSON file with its provenance, or from a .txt file, which has none.

    Raises InvalidInput when there is no such file, it is not in UTF-8 or too long for a text, a file that is
    not called .txt is no JSON with a text, or its provenance is damaged.
    """
    source = Path(path)
    written = _written(source)
    if written is None:
        raise InvalidInput(f"{source} is no text in UTF-8", "Expected a .json or a .txt file that zoo wrote.")
    if source.suffix.lower() == _PLAIN:
        return Text(written.removesuffix("\n"))
    try:
        document = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{source} is not JSON: {error}", "Use an untouched copy of the file.") from error
    text = _text_in(document)
    if text is None:
        raise InvalidInput(f"{source} holds no text", f'Expected an object with the key "{TEXT_KEY}".')
    return Text(text, stored_provenance(source))


def text_document(path: Path) -> dict[str, Any] | None:
    """Return the document of the JSON file of a text; None for a file that is something else.

    Raises InvalidInput for a .txt file of plain text, which has no place for metadata, and ValueError for a
    .json file that is damaged.
    """
    plain, named = path.suffix.lower() == _PLAIN, path.suffix.lower() == ".json"
    if not plain and not _begins_an_object(path):
        return None
    written = _written(path)
    if written is None:
        return None
    if plain:
        raise InvalidInput(
            f"{path} is plain text, which does not tell how it was made",
            "A text in a JSON file does: zoo sample ... --out NAME.json.",
        )
    try:
        document = json.loads(written)
    except (ValueError, RecursionError):
        if named:
            raise
        return None
    if _text_in(document) is not None:
        return dict(document)
    if named:
        raise InvalidInput(f"{path} holds no text that zoo wrote", f'It has no key "{TEXT_KEY}".')
    return None


def _text_in(document: Any) -> str | None:
    text = document.get(TEXT_KEY) if isinstance(document, dict) else None
    return text if isinstance(text, str) else None


def _begins_an_object(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"{"


def _written(path: Path) -> str | None:
    """What stands in a file; None where it is not in UTF-8, or too long to be a text."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        return None if len(data) > _MOST_BYTES or b"\0" in data else data.decode()
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist", hint="Check the path.") from error
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} is a folder", hint="Give the path of a text file.") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", hint="Check the file.") from error
    except UnicodeDecodeError:
        return None
