"""Where samples are written: a file or a folder, checked before anything is computed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidInput, OutputExists, OutputNotWritable
from zoo.io.names import default_name, fresh_path
from zoo.io.writers import FORMATS, format_name

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact
    from zoo.io.grid import ImageGrid

#: Names with these suffixes mean a picture, in a format that is not written; as a folder's name they are a
#: slip.
_OTHER_PICTURES = {".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".ppm", ".pdf", ".svg", ".psd"}

#: A JPEG file holds 64 KiB of metadata, and a sample's provenance takes about half a KiB.
_MOST_IN_JPEG = 64


@dataclass(frozen=True)
class Destination:
    """A file for one picture, or a folder.

    `overwrite` allows to replace files; without `metadata` they do not tell how they were made.
    """

    folder: Path
    file: Path | None
    format: str
    overwrite: bool
    metadata: bool

    def save(self, artifact: Artifact, reference: str, what: str | None, seed: int) -> Path:
        """Write a sample and return its path."""
        return self._save(artifact, self.name_for(reference, what, seed))

    def name_for(self, reference: str, what: str | None, seed: int) -> str:
        """The name that a sample's file has where it is free."""
        return default_name(reference, what, seed, self._suffix)

    def place_for(self, name: str) -> Path:
        """Where a file of this name would be written now."""
        if self.file is not None:
            return self.file
        return self.folder / name if self.overwrite else fresh_path(self.folder, name)

    def save_grid(self, sheet: ImageGrid, reference: str, what: str | None, seed: int) -> Path:
        """Write a contact sheet and return its path."""
        words = f"{what} grid" if what else "grid"
        return self._save(sheet, default_name(reference, words, seed, self._suffix))

    @property
    def _suffix(self) -> str:
        return FORMATS[self.format].suffixes[0]

    def _save(self, artifact: Any, name: str) -> Path:
        saved: Path = artifact.save(
            self.place_for(name), format=self.format, metadata=self.metadata, overwrite=self.overwrite
        )
        return saved


def destination(
    out: str | None,
    format: str | None,
    *,
    pictures: int,
    grid: bool = False,
    overwrite: bool = False,
    metadata: bool = True,
    folder_only: bool = False,
) -> Destination:
    """Decide and check where `pictures` samples go; creates nothing.

    `out` is a file when it has a picture's suffix, else a folder; None is the configured folder or the
    current one. With `folder_only` a file is refused even for one picture. Raises `InvalidInput` for an
    unknown format or one file for several pictures, `OutputExists` for an existing file, `OutputNotWritable`
    for a place that cannot be written.
    """
    from zoo.settings import load_settings

    settings = load_settings()
    text = out or settings.get("out") or "."
    path = Path(text).expanduser()
    file = path if _names_a_file(text, path) else None
    wanted = format_name("", format) if format else None
    if file is not None and folder_only:
        raise InvalidInput(
            f"{file} is one file, expected a folder", f"Give a folder, such as --out {file.with_suffix('')}/."
        )
    if file is not None:
        _check_file(file, wanted, format, one=pictures == 1 or grid, overwrite=overwrite)
        name = format_name(file)
    else:
        name = wanted or format_name("", settings.get("format") or "png")
    if grid and name == "jpeg" and metadata and pictures > _MOST_IN_JPEG:
        raise InvalidInput(
            f"a JPEG contact sheet holds the metadata of at most {_MOST_IN_JPEG} samples, got {pictures}",
            "Write PNG or WebP, or use --no-metadata.",
        )
    folder = path if file is None else file.parent
    check_writable(folder)
    return Destination(folder, file, name, overwrite, metadata)


def _names_a_file(text: str, path: Path) -> bool:
    if text.endswith(("/", os.sep)) or path.is_dir():
        return False
    suffixes = {suffix for item in FORMATS.values() for suffix in item.suffixes}
    return path.suffix.lower() in suffixes | _OTHER_PICTURES


def _check_file(file: Path, wanted: str | None, format: str | None, one: bool, overwrite: bool) -> None:
    name = format_name(file)
    if wanted not in (None, name):
        raise InvalidInput(f"--format {format} does not go with the name {file}", "Leave one of them out.")
    if not one:
        raise InvalidInput(
            f"{file} is one file, but several pictures were asked for",
            f"Give a folder, such as --out {file.with_suffix('')}/, or --grid for one contact sheet.",
        )
    if os.path.lexists(file) and not overwrite:
        raise OutputExists(f"{file} exists already", "Choose another name, or use --overwrite.")


def check_writable(folder: Path) -> None:
    """Raise `OutputNotWritable` unless files can be made in the folder, or the folder itself can be made."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise OutputNotWritable(
            f"cannot write to {folder}: {there} is a file, not a folder", "Choose another --out."
        )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputNotWritable(
            f"cannot write to {folder}: {reason}", "Choose a folder that you may write to with --out."
        ) from error
