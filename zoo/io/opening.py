"""Opening a picture file, with every way to fail turned into one clear error."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import PIL.Image

from zoo.errors import InvalidInput

BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)
"""What Pillow raises for broken content: each of its readers has its own habit."""


@contextmanager
def open_picture(path: str | PathLike[str], formats: Sequence[str]) -> Iterator[PIL.Image.Image]:
    """Yield the file at `path` as a Pillow image with its pixels decoded.

    formats: Pillow's names of the formats to try; by content, the suffix does not matter. Raises InvalidInput
    when there is no such file, it cannot be read, it is no picture in these formats, or it is damaged.
    """
    source = Path(path)
    with _open_header(source, formats) as picture:
        try:
            picture.load()
        except BROKEN as error:
            raise _damaged(source, error) from error
        yield picture


def _open_header(source: Path, formats: Sequence[str]) -> PIL.Image.Image:
    try:
        return PIL.Image.open(source, formats=list(formats))
    except FileNotFoundError as error:
        raise InvalidInput(f"{source} does not exist", hint="Check the path.") from error
    except IsADirectoryError as error:
        raise InvalidInput(f"{source} is a folder", hint="Give the path of a picture file.") from error
    except PIL.Image.DecompressionBombError as error:
        raise InvalidInput(f"{source} is too large: {error}", hint="Use a smaller picture.") from error
    except PIL.UnidentifiedImageError as error:
        hint = f"Formats: {', '.join(formats).lower()}."
        raise InvalidInput(f"{source} is not a picture in a known format", hint=hint) from error
    except BROKEN as error:
        # Only the operating system's errors have a number; Pillow's own OSErrors are about the content.
        if isinstance(error, OSError) and error.errno is not None:
            raise InvalidInput(f"cannot read {source}: {error.strerror}", hint="Check the file.") from error
        raise _damaged(source, error) from error


def _damaged(source: Path, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{source} is damaged: {error}", hint="It may be cut short; copy or download it again."
    )
