"""Writing a file in one step: complete or not at all, and never over another by accident."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from zoo.errors import OutputExists, OutputNotWritable


def write_file(path: str | PathLike[str], data: bytes, overwrite: bool = False) -> Path:
    """Write `data` to `path`, creating missing parent folders, and return the path.

    The bytes go to a temporary file in the same folder, which then takes the name in one step. Without
    `overwrite` an existing file is kept, even one that another process makes meanwhile: OutputExists. A
    folder or device in that place, a parent that is a file, no permission and a full disk are
    OutputNotWritable. With `overwrite` a symbolic link is replaced, not the file it leads to.
    """
    with new_file(path, overwrite) as temporary:
        temporary.write_bytes(data)
    return Path(path)


@contextmanager
def new_file(path: str | PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file to write, which becomes `path` when the block ends without an error.

    For files too large to be held in memory; errors are those of `write_file`.
    """
    target = Path(path)
    try:
        _refuse_special(target)
        if target.exists() and not overwrite:
            # Known before the work is done; what appears meanwhile is found when the file is published.
            raise _exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".zoo-{secrets.token_hex(8)}.part")
        try:
            open(temporary, "xb").close()
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            # A writer that replaces the file may narrow its permissions, as safetensors does.
            temporary.chmod(mode)
            _publish(temporary, target, overwrite)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputNotWritable(
            f"cannot write {target}: {_reason(target, error)}",
            hint="Choose a folder that you may write to and that has room.",
        ) from error


def publish_new(temporary: Path, target: Path) -> None:
    """Give a complete file or folder on the same file system its name in one step, unless it is taken.

    `target` is missing or complete at every moment. Raises OutputExists, and OutputNotWritable.
    """
    try:
        if temporary.is_dir() or not _linked(temporary, target):
            if os.path.lexists(target):
                raise _exists(target)
            os.rename(temporary, target)
    except OSError as error:
        raise OutputNotWritable(
            f"cannot write {target}: {_reason(target, error)}",
            hint="Choose a folder that you may write to and that has room.",
        ) from error


def _linked(temporary: Path, target: Path) -> bool:
    """Move a file by a hard link, which fails if the name is taken; False where there are none."""
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:
        return False
    temporary.unlink()
    return True


def _refuse_special(target: Path) -> None:
    # os.replace would put a file in the place of /dev/null where the user has the right to.
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "not a regular file"
        raise OutputNotWritable(f"cannot write {target}: it is {what}", hint="Give the path of a file.")


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
    else:
        _publish_new(temporary, target)


def _publish_new(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:
        # FAT, many network and FUSE file systems have no hard links.
        _reserve_and_replace(temporary, target)


def _reserve_and_replace(temporary: Path, target: Path) -> None:
    """Take the name with an empty file, which fails if it is taken, and then replace that file of ours."""
    try:
        open(target, "xb").close()
    except FileExistsError as error:
        raise _exists(target) from error
    try:
        os.replace(temporary, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _exists(target: Path) -> OutputExists:
    return OutputExists(f"{target} exists already", hint="Choose another path, or ask for overwriting.")


def _reason(target: Path, error: OSError) -> str:
    for parent in target.parents:
        # Not parent.is_file(), which raises where a folder may not be searched.
        if os.path.isfile(parent):
            return f"{parent} is a file, not a folder"
    return (error.strerror or str(error)).lower()
