"""Where samples are written: a file or a folder, checked before anything is computed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InvalidInput, OutputExists, OutputNotWritable
from zoo.io.artifacts import Image
from zoo.io.kinds import KINDS, artifact_class, check_extra, chosen_format, is_inline
from zoo.io.names import default_name, fresh_path

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact
    from zoo.io.grid import ImageGrid

#: Names with these suffixes mean a picture, in a format that is not written; as a folder's name they are a
#: slip.
_OTHER_PICTURES = {".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".ppm", ".pdf", ".svg", ".psd", ".ora"}

#: A JPEG file holds 64 KiB of metadata, and a sample's provenance takes about half a KiB.
_MOST_IN_JPEG = 64


@dataclass(frozen=True)
class Destination:
    """A file for one sample or for a contact sheet, or a folder.

    Samples are of the class `makes` and written in its format `format`, sheets in the picture format
    `sheet_format`. `overwrite` allows to replace files; without `metadata` they do not tell how they were
    made. Samples that are `printed` are shown on stdout and get no file.
    """

    folder: Path
    file: Path | None
    makes: type[Artifact]
    format: str
    sheet_format: str
    overwrite: bool
    metadata: bool
    printed: bool = False

    def save(self, artifact: Artifact, reference: str, what: str | None, seed: int) -> Path:
        """Write a sample and return its path."""
        return self._save(artifact, self.name_for(reference, what, seed), self.format)

    def name_for(self, reference: str, what: str | None, seed: int) -> str:
        """The name that a sample's file, or its folder, has where it is free."""
        return default_name(reference, what, seed, self.makes.formats[self.format][0])

    def place_for(self, name: str) -> Path:
        """Where a file or a folder of this name would be written now."""
        if self.file is not None:
            return self.file
        return self.folder / name if self.overwrite else fresh_path(self.folder, name)

    def save_grid(self, sheet: ImageGrid, reference: str, what: str | None, seed: int) -> Path:
        """Write a contact sheet and return its path."""
        words = f"{what} grid" if what else "grid"
        name = default_name(reference, words, seed, Image.formats[self.sheet_format][0])
        return self._save(sheet, name, self.sheet_format)

    def _save(self, artifact: Artifact, name: str, format: str) -> Path:
        return artifact.save(
            self.place_for(name), format=format, metadata=self.metadata, overwrite=self.overwrite
        )


def destination(
    out: str | None,
    format: str | None,
    *,
    pictures: int,
    makes: type[Artifact] = Image,
    grid: bool = False,
    overwrite: bool = False,
    metadata: bool = True,
    folder_only: bool = False,
) -> Destination:
    """Decide and check where `pictures` samples of the class `makes` go; creates nothing.

    `out` is a file when it has a suffix of that class or of the core's, else a folder; None is the configured
    folder or the current one, and stdout for what is inline. With `grid` a picture's name is that of the
    contact sheet. With `folder_only` a file is refused even for one sample. Raises `InvalidInput` for a
    format or a suffix that is not of the class, a format of what gets no file, or one file for several
    samples, `OutputExists` for an existing file, `OutputNotWritable` for a place that cannot be written.
    """
    from zoo.settings import load_settings

    settings = load_settings()
    printed = out is None and is_inline(makes)
    if printed and format:
        raise InvalidInput(
            f"--format {format} is for files, and a {makes.kind} is printed where there is no --out",
            "Say where files go with --out, or leave out --format.",
        )
    text = out or settings.get("out") or "."
    path = Path(text).expanduser()
    file = path if _names_a_file(text, path, makes) else None
    wanted = chosen_format(makes.formats, "", format, _noun(makes)) if format else None
    if file is not None and folder_only:
        raise InvalidInput(
            f"{file} is one file, expected a folder", f"Give a folder, such as --out {file.with_suffix('')}/."
        )
    if file is not None:
        content = _content(file, makes, grid)
        name = chosen_format(content.formats, file, None, _noun(content))
        _check_format(file, wanted, format, name)
        _check_file(file, makes, one=pictures == 1 or grid, overwrite=overwrite)
    else:
        content, name = makes, wanted or _default_format(makes, settings.get("format"))
    # A sheet of pictures has their format; of any other kind it is a picture all the same.
    sheet = name if issubclass(content, Image) else next(iter(Image.formats))
    if grid and sheet == "jpeg" and metadata and pictures > _MOST_IN_JPEG:
        raise InvalidInput(
            f"a JPEG contact sheet holds the metadata of at most {_MOST_IN_JPEG} samples, got {pictures}",
            "Write PNG or WebP, or use --no-metadata.",
        )
    folder = path if file is None else file.parent
    if grid or not printed:
        check_writable(folder)
    single = name if content is makes else next(iter(makes.formats))
    if content is makes:
        check_extra(makes, single)
    return Destination(folder, file, makes, single, sheet, overwrite, metadata, printed)


def _noun(makes: type[Artifact]) -> str:
    return "picture" if issubclass(makes, Image) else makes.kind


def _suffixes(makes: type[Artifact]) -> set[str]:
    """Suffixes of files; a folder has none."""
    return {suffix for suffixes in makes.formats.values() for suffix in suffixes if suffix}


def _names_a_file(text: str, path: Path, makes: type[Artifact]) -> bool:
    if text.endswith(("/", os.sep)) or path.is_dir():
        return False
    suffix = path.suffix.lower()
    return suffix in _suffixes(makes) or _meant_by(suffix) is not None


def _meant_by(suffix: str) -> str | None:
    """What a file of this suffix holds, of all that the core makes; None for any other suffix."""
    if suffix in _OTHER_PICTURES:
        return "picture"
    return next((_noun(kind) for kind in map(artifact_class, KINDS) if suffix in _suffixes(kind)), None)


def _content(file: Path, makes: type[Artifact], grid: bool) -> type[Artifact]:
    """The class of what goes into a file of this name: a sample, or the contact sheet."""
    suffix = file.suffix.lower()
    own, of_a_picture = suffix in _suffixes(makes), suffix in _suffixes(Image)
    if issubclass(makes, Image):
        return makes
    if grid and (of_a_picture or not own):
        return Image
    if grid:
        raise InvalidInput(
            f"{file} does not name a picture, and a contact sheet is one",
            f"Name a picture, such as --out {file.with_suffix('.png')}, or give a folder.",
        )
    if own:
        return makes
    raise InvalidInput(
        f"{file} has the name of a {_meant_by(suffix)}, and what is made here is: {makes.kind}",
        f"Formats: {_listed(makes)}. With --grid, zoo sample writes a picture of it.",
    )


def _listed(makes: type[Artifact]) -> str:
    """ "ora (.ora), folder, psd (.psd)"."""
    listed = ((name, ", ".join(filter(None, suffixes))) for name, suffixes in makes.formats.items())
    return ", ".join(f"{name} ({suffixes})" if suffixes else name for name, suffixes in listed)


def _default_format(makes: type[Artifact], configured: str | None) -> str:
    """The configured format where the class has it, else the first of the class."""
    # The setting is about pictures: it is no mistake where something else is made.
    if configured is None or configured.lower() in _format_names(Image) - _format_names(makes):
        return next(iter(makes.formats))
    return chosen_format(makes.formats, "", configured, _noun(makes))


def _format_names(makes: type[Artifact]) -> set[str]:
    """Every word for a format that `--format` takes."""
    return {*makes.formats, *(suffix.removeprefix(".") for suffix in _suffixes(makes))}


def _check_format(file: Path, wanted: str | None, format: str | None, name: str) -> None:
    if wanted not in (None, name):
        raise InvalidInput(f"--format {format} does not go with the name {file}", "Leave one of them out.")


def _check_file(file: Path, makes: type[Artifact], one: bool, overwrite: bool) -> None:
    if not one:
        pictures = issubclass(makes, Image)
        raise InvalidInput(
            f"{file} is one file, but several {'pictures' if pictures else 'samples'} were asked for",
            f"Give a folder, such as --out {file.with_suffix('')}/, or --grid "
            f"{'' if pictures else 'and a picture as --out '}for one contact sheet.",
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
