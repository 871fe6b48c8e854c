"""The Hugging Face cache on this machine: what lies where, and finding a file there.

    models--<organisation>--<name>/
        blobs/<etag>                 contents; the etag is a sha256, or git's sha1 for small files
        blobs/<etag>.zoo-part        a content on its way here (its journal beside it), ours alone
        blobs/<etag>.bad             a content that was not what its name promises, kept for inspection
        snapshots/<commit>/<path>    a relative link to a blob; the file itself where there are no links
        refs/<revision>              the commit that a branch or tag had when it was last asked for

The layout is that of huggingface_hub, whose files are found here, and which finds what is put here. Nothing
here imports it or asks a server.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zoo.store.hub.address import COMMIT, DEFAULT_REVISION, HubAddress

PART_SUFFIX = ".zoo-part"
BAD_SUFFIX = ".bad"

TRUE = ("1", "true", "yes", "on")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class CachedFile:
    """A file that lies in the cache: `blob` is the entry of the repository's blobs that `pointer` links to.

    `size` is in bytes. `sha256` and `git_sha1` are what the blob's name promises of its content: at most one
    of them, and nobody has checked.
    """

    address: HubAddress
    pointer: Path
    blob: Path
    commit: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it: `size` in bytes, at most one digest, and where it belongs in the cache.

    `headers` may hold a token: they are for the origin of `url` alone, not for where it redirects to.
    `revision` is what was asked for; `only_xet` that the file cannot be had over plain HTTP.
    """

    address: HubAddress
    revision: str
    commit: str
    size: int | None
    etag: str
    sha256: str | None
    git_sha1: str | None
    url: str
    headers: Mapping[str, str] = field(repr=False, hash=False)
    blob: Path
    pointer: Path
    only_xet: bool

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache."""
        return self.blob.parent.parent


def is_on(switch: str) -> bool:
    """Whether an environment variable is set to a word for yes."""
    return os.environ.get(switch, "").lower() in TRUE


def cache_folder() -> Path:
    """The cache of huggingface_hub: `$HF_HUB_CACHE`, else `hub` in `$HF_HOME`, else the usual place."""
    usual = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache")), "huggingface")
    below_home = os.path.join(_expanded(os.environ.get("HF_HOME", usual)), "hub")
    older_name = os.environ.get("HUGGINGFACE_HUB_CACHE", below_home)
    return Path(os.path.abspath(_expanded(os.environ.get("HF_HUB_CACHE", older_name))))


def repository_folder(address: HubAddress) -> Path:
    """The folder of a repository in the cache."""
    return cache_folder() / f"models--{address.repository.replace('/', '--')}"


def digests(name: str) -> tuple[str | None, str | None]:
    """The sha256 and git's sha1 that the name of a blob promises: at most one of them."""
    return (name if _SHA256.fullmatch(name) else None, name if _SHA1.fullmatch(name) else None)


def find_cached(address: HubAddress, revision: str | None = None) -> CachedFile | None:
    """The file if it lies in the cache, at `revision` or at the address's own. Asks nobody."""
    folder = repository_folder(address)
    try:
        commit = _commit(folder, address.at(revision).revision or DEFAULT_REVISION)
        if commit is None:
            return None
        pointer = folder / "snapshots" / commit / address.path
        status = pointer.stat()
        blob = link_target(pointer) or pointer
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    # Only the first link counts: a blob may itself link into a store whose names are digests of another kind.
    named = os.path.realpath(blob.parent) == os.path.realpath(folder / "blobs")
    sha256, git_sha1 = digests(blob.name) if named else (None, None)
    return CachedFile(address, pointer, blob, commit, status.st_size, sha256, git_sha1)


def part_path(file: HubFile) -> Path:
    """Where the bytes of a file gather before they are complete: beside its blob, on the same file system."""
    return file.blob.with_name(file.blob.name + PART_SUFFIX)


def leftovers() -> list[Path]:
    """What unfinished and refused downloads of ours left in the cache: parts, their journals, bad blobs."""
    try:
        folders = sorted(cache_folder().glob("models--*/blobs"))
        return [path for folder in folders for path in sorted(folder.iterdir()) if is_leftover(path.name)]
    except OSError:
        return []


def link_target(path: Path) -> Path | None:
    """Where a link leads to in one step; None for what is not a link."""
    if not path.is_symlink():
        return None
    return Path(os.path.normpath(path.parent / os.readlink(path)))


def is_linked(repository: Path, blob: Path) -> bool:
    """Whether any snapshot links to a blob."""
    blobs = os.path.realpath(blob.parent)
    for folder, _, names in os.walk(repository / "snapshots"):
        for name in names:
            target = link_target(Path(folder, name))
            if target and target.name == blob.name and os.path.realpath(target.parent) == blobs:
                return True
    return False


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def _commit(folder: Path, revision: str) -> str | None:
    if COMMIT.fullmatch(revision):
        return revision
    try:
        text = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if COMMIT.fullmatch(text) else None


def is_leftover(name: str) -> bool:
    """Whether a file of this name among the blobs is none: an unfinished or a refused one."""
    return PART_SUFFIX in name or name.endswith(BAD_SUFFIX)
