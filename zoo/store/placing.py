"""Putting a complete, checked file where it belongs; PyTorch checkpoints are converted on the way."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from zoo.cards import File
from zoo.errors import ChecksumError, WeightsError
from zoo.store.checkpoints.formats import check_safetensors, looks_like
from zoo.store.download.parts import journal_path
from zoo.store.hashing import file_sha256
from zoo.store.hub import client as hub
from zoo.store.layout import blob_path, blobs
from zoo.store.manifest import Original, Stored, all_manifests
from zoo.store.obtaining import Obtained, bad_path
from zoo.store.publishing import publish

#: Converts the checkpoint at the first path into safetensors at the second: (sha256, size).
Convert = Callable[[File, Path, Path], tuple[str, int]]


def place(file: File, got: Obtained, convert: Convert, keep_original: bool) -> Stored:
    """Store what was obtained for `file`. Raises `WeightsError` for content that is not what its format says.

    A part that was converted and shall not be kept stays where it is until the manifest is written.
    """
    if file.format == "pytorch":
        return _converted(file, got, convert, keep_original)
    if file.format == "safetensors" and got.digest_from == "first pull":
        # A login page, say; what somebody vouches for is what it is meant to be.
        _check_safetensors(got)
    path = _settled(got)
    return _stored(file, got, path, got.sha256, got.size, shared=_is_shared(got, path))


def _converted(file: File, got: Obtained, convert: Convert, keep_original: bool) -> Stored:
    blobs().mkdir(parents=True, exist_ok=True)
    temporary = blobs() / f".convert-{secrets.token_hex(8)}.part"
    try:
        sha256, size = convert(file, got.path, temporary)
        publish(temporary, blob_path(sha256))
    except WeightsError:
        _put_aside_unvouched(got)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    kept = None
    if keep_original and got.place != "foreign":
        kept = _settled(got)
    original = Original(got.sha256, got.size, kept, shared=kept is not None and _is_shared(got, kept))
    return _stored(file, got, blob_path(sha256), sha256, size, shared=False, original=original)


def _stored(
    file: File,
    got: Obtained,
    path: Path,
    sha256: str,
    size: int,
    shared: bool,
    original: Original | None = None,
) -> Stored:
    return Stored(
        role=file.role,
        path=path,
        sha256=sha256,
        size=size,
        format="safetensors" if file.format == "pytorch" else file.format,
        digest_from=got.digest_from,
        source=got.offer.source,
        revision=got.offer.revision,
        shared=shared,
        original=original,
    )


def _check_safetensors(got: Obtained) -> None:
    try:
        kind = looks_like(got.path)
        if kind != "safetensors":
            raise WeightsError(f"{got.offer.address}: expected a safetensors file, got {kind}")
        check_safetensors(got.path)
    except WeightsError:
        _put_aside_unvouched(got)
        raise


def _put_aside_unvouched(got: Obtained) -> None:
    """What nobody vouches for and turns out to be no weights file must not be taken for one the next time."""
    if got.place == "part" and got.digest_from == "first pull":
        with contextlib.suppress(OSError):
            os.replace(got.path, bad_path(got.sha256))
            journal_path(got.path).unlink(missing_ok=True)


def _settled(got: Obtained) -> Path:
    """The path of the file in its final place."""
    if got.place == "stored":
        return got.path
    if got.place == "foreign":
        return _copied(got)
    if got.offer.hub is not None:
        pointer = hub.publish_file(got.offer.hub, got.path)
    else:
        pointer = blob_path(got.sha256)
        publish(got.path, pointer)
    journal_path(got.path).unlink(missing_ok=True)
    return pointer


def _copied(got: Obtained) -> Path:
    blobs().mkdir(parents=True, exist_ok=True)
    temporary = blobs() / f".copy-{secrets.token_hex(8)}.part"
    try:
        shutil.copyfile(got.path, temporary)
        if file_sha256(temporary) != got.sha256:
            raise ChecksumError(f"{got.path} changed while it was copied", "Try again when it is complete.")
        publish(temporary, blob_path(got.sha256))
    finally:
        temporary.unlink(missing_ok=True)
    return blob_path(got.sha256)


def _is_shared(got: Obtained, path: Path) -> bool:
    """Whether the file lay in the Hugging Face cache before, and no pull of ours brought it there."""
    if got.place != "stored" or path.is_relative_to(blobs()):
        return False
    return not any(
        stored.path == path and not stored.shared for manifest in all_manifests() for stored in manifest.files
    )
