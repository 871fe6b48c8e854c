"""What a `HubServer` holds: repositories with commits and branches, accounts, and who may see what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

BLOCK = 1 << 20

#: Endings of files that a hub keeps outside of git unless it is told otherwise.
LARGE = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class HubBlob:
    """The content of a file. With `lfs` git holds a pointer to it, whose digest `git_sha1` is then."""

    content: bytes | Path
    size: int
    sha256: str
    git_sha1: str
    lfs: bool

    @property
    def etag(self) -> str:
        """What the hub names the content by."""
        return self.sha256 if self.lfs else self.git_sha1

    @classmethod
    def of(cls, content: bytes | Path, lfs: bool) -> HubBlob:
        """The blob of a content, which is read once for its digests."""
        digest = hashlib.sha256()
        if isinstance(content, bytes):
            size, pieces = len(content), iter([content])
        else:
            size, pieces = content.stat().st_size, _pieces(content)
        git = hashlib.sha1(b"blob %d\0" % size)
        for piece in pieces:
            digest.update(piece)
            if not lfs:
                git.update(piece)
        if lfs:
            pointer = pointer_text(digest.hexdigest(), size)
            git = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer)
        return cls(content, size, digest.hexdigest(), git.hexdigest(), lfs)


def pointer_text(sha256: str, size: int) -> bytes:
    """The file that git holds in the place of a large one."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _pieces(path: Path):
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            yield piece


class Refusal(NamedTuple):
    """An answer that is no: the status, and the hub's code and words for the reason."""

    status: int
    code: str | None
    message: str


BAD_TOKEN = Refusal(401, None, "Invalid credentials in Authorization header")
NO_REVISION = Refusal(404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY = Refusal(404, "EntryNotFound", "Entry not found")


def no_repository(token: str | None) -> Refusal:
    """A hub does not say to strangers whether a repository exists."""
    if token is None:
        return Refusal(401, "RepoNotFound", "Invalid username or password.")
    return Refusal(404, "RepoNotFound", "Repository not found")


@dataclass
class Repository:
    """A model repository. `private` and `gated` ones are open to the tokens in `granted` alone.

    `commits` maps each commit to its files, `refs` branches and tags to commits.
    """

    name: str
    private: bool = False
    gated: bool = False
    disabled: bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, HubBlob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(
        self, files: Mapping[str, bytes | Path], *, branch: str = "main", lfs: bool | None = None
    ) -> str:
        """Add files to a branch; returns the commit. `lfs` None: by their names, and for files on disk."""
        tree = dict(self.commits.get(self.refs.get(branch, ""), {}))
        for path, content in files.items():
            large = path.endswith(LARGE) or isinstance(content, Path) if lfs is None else lfs
            tree[path] = HubBlob.of(content, large)
        told = f"{self.name} {len(self.commits)} {sorted((p, b.etag) for p, b in tree.items())}"
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[commit] = tree
        self.refs[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit names, also in its first digits."""
        if revision in self.refs:
            return self.refs[revision]
        found = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return found[0] if len(found) == 1 else None

    def refusal(self, token: str | None, for_content: bool) -> Refusal | None:
        """Why a request is not answered; anybody may read what a gated repository holds, not its content."""
        if self.disabled:
            return Refusal(403, None, "Access to this resource is disabled.")
        if token in self.granted:
            return None
        if self.private:
            return no_repository(token)
        if not (self.gated and for_content):
            return None
        where = f"Access to model {self.name} is restricted"
        if token is None:
            return Refusal(
                401, "GatedRepo", f"{where}. You must have access to it and be authenticated to access it."
            )
        return Refusal(403, "GatedRepo", f"{where} and you are not in the authorized list.")
