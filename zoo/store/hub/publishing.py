"""Putting a file into the Hugging Face cache, exactly as huggingface_hub would.

Content first, then the link to it, then the ref: a process that is killed anywhere in between leaves a cache
that the library accepts and that the next run completes.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import OutputNotWritable
from zoo.store.hub.cache import BAD_SUFFIX, PART_SUFFIX, HubFile, is_linked, is_on
from zoo.store.publishing import publish, sync_folder

#: What the system says on a file system that has no links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def publish_file(file: HubFile, part: Path) -> Path:
    """Put a complete and verified `part` in its place, with its link and ref; returns the link's path.

    `part` lies on the cache's file system. Another content in that place is kept as `<blob>.bad`.
    Raises `OutputNotWritable`.
    """
    with _writing(file):
        if file.blob.exists() and not _set_aside(file.blob, part, _bad(file)):
            part.unlink()
        else:
            publish(part, file.blob)
    return link_file(file)


def link_file(file: HubFile) -> Path:
    """Make the link and the ref of a file whose content lies in the cache already; returns the link's path.

    Raises `OutputNotWritable`, also when there is no such content.
    """
    with _writing(file):
        changed = _place(file)
        try:
            _write_ref(file)
        except OSError:
            # Somebody else's cache may be read, though not kept up to date.
            if changed:
                raise
    return file.pointer


@contextlib.contextmanager
def _writing(file: HubFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_writable(file.folder, error) from error


def not_writable(path: Path, error: OSError) -> OutputNotWritable:
    """What is told when the system refuses a change of the cache."""
    reason = (error.strerror or str(error)).lower()
    return OutputNotWritable(
        f"the Hugging Face cache cannot be written: {error.filename or path}: {reason}",
        "Set HF_HUB_CACHE to a folder that you may write to.",
    )


def _bad(file: HubFile) -> Path:
    return file.blob.with_name(file.blob.name + BAD_SUFFIX)


def _set_aside(old: Path, new: Path, bad: Path) -> bool:
    """Keep `old` as `bad` because `new` takes its place; False if both have the same content."""
    filecmp.clear_cache()
    if filecmp.cmp(old, new, shallow=False):
        return False
    bad.unlink(missing_ok=True)
    try:
        # A second name, so that there is no moment without the first.
        os.link(old, bad, follow_symlinks=False)
    except (OSError, NotImplementedError):
        os.replace(old, bad)
    return True


def _place(file: HubFile) -> bool:
    """Make the link to the blob, or put the file itself there; False if all is as it should be."""
    blob, pointer = file.blob, file.pointer
    target = os.path.relpath(blob, pointer.parent)
    if pointer.is_symlink() and os.readlink(pointer) == target and blob.exists():
        return False
    if not blob.exists() and pointer.is_file() and not pointer.is_symlink():
        return False
    blob.stat()
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if pointer.is_file() and not pointer.is_symlink():
        _set_aside(pointer, blob, _bad(file))
    if not _make_link(target, pointer, blob.parent):
        _place_itself(file)
    return True


def _make_link(target: str, pointer: Path, scratch: Path) -> bool:
    """Make `pointer` a link, in one step; False where links are not supported or not wanted."""
    if is_on("HF_HUB_DISABLE_SYMLINKS"):
        return False
    # Not in the snapshot: what a killed process leaves there would count as a file of the repository.
    temporary = _temporary(scratch)
    try:
        os.symlink(target, temporary)
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    try:
        os.replace(temporary, pointer)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(pointer.parent)
    return True


def _place_itself(file: HubFile) -> None:
    """Put the content where the link would be; a copy of it if links to it exist, of other days."""
    if not is_linked(file.folder, file.blob):
        publish(file.blob, file.pointer)
        return
    temporary = _temporary(file.blob.parent)
    try:
        shutil.copyfile(file.blob, temporary)
        publish(temporary, file.pointer)
    finally:
        temporary.unlink(missing_ok=True)


def _write_ref(file: HubFile) -> None:
    if file.revision == file.commit:
        return
    path = file.folder / "refs" / file.revision
    try:
        if path.read_text(encoding="ascii") == file.commit:
            return
    except (FileNotFoundError, ValueError):
        pass
    # Not in the folder of refs, where a killed process would leave a ref to nothing.
    temporary = _temporary(file.blob.parent)
    try:
        temporary.write_text(file.commit, encoding="ascii")
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f".{secrets.token_hex(6)}{PART_SUFFIX}"
