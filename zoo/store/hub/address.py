"""Where the files of a Hugging Face hub are: `hf://organisation/repository/path[@revision]`, and the hub."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from zoo.errors import InvalidInput

SCHEME = "hf://"
DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"

COMMIT = re.compile(r"[0-9a-f]{40}")

# What the hub itself accepts. "--" is excluded because the cache writes it for the slash.
_NAME = re.compile(r"(?!.*(?:--|\.\.))(?!.*\.git$)[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"(?!.*\.\.)(?=.{1,200}$)[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_DRIVE = re.compile(r"[A-Za-z]:")

#: First segments that stand for other kinds of repositories, never for an organisation.
_OTHER_KINDS = ("datasets", "spaces", "models", "kernels", "buckets")

_HINT = "An address is hf://organisation/repository/path; @revision after it names a branch, tag or commit."


@dataclass(frozen=True)
class HubAddress:
    """A file in a model repository; `revision` None means the branch `main`. Raises `InvalidInput`.

    Every part may become part of a path on this machine: nothing in it leads out of a folder.
    """

    repository: str
    path: str
    revision: str | None = None

    def __post_init__(self) -> None:
        names = self.repository.split("/")
        if len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
            raise self._malformed("expected the names of an organisation and a repository")
        if names[0] in _OTHER_KINDS:
            raise self._malformed("expected a model repository")
        problem = _path_problem(self.path)
        if problem:
            raise self._malformed(problem)
        if self.revision is not None and not _REVISION.fullmatch(self.revision):
            raise self._malformed("expected the name of a branch or tag, or a commit, after the @")

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{SCHEME}{self.repository}/{self.path}{revision}"

    @property
    def page(self) -> str:
        """The repository's page, for a browser."""
        return f"{endpoint()}/{self.repository}"

    def at(self, revision: str | None) -> HubAddress:
        """The same file at another revision; itself for None."""
        return self if revision is None else dataclasses.replace(self, revision=revision)

    def url(self, revision: str | None = None) -> str:
        """What a browser opens to get the file, at `revision` or at the address's own."""
        chosen = self.at(revision).revision or DEFAULT_REVISION
        return f"{self.page}/resolve/{quote(chosen, safe='')}/{quote(self.path)}"

    def _malformed(self, problem: str) -> InvalidInput:
        return InvalidInput(f"{_shown(str(self))}: {problem}", _HINT)


def parse_hub(source: str) -> HubAddress:
    """The parts of `hf://organisation/repository/path[@revision]`; raises `InvalidInput`."""
    if not source.startswith(SCHEME):
        raise InvalidInput(f"{_shown(source)}: expected an address that begins with {SCHEME}", _HINT)
    place, at, revision = source.removeprefix(SCHEME).partition("@")
    segments = place.split("/", 2)
    if len(segments) < 3:
        raise InvalidInput(f"{_shown(source)}: names no file in a repository", _HINT)
    return HubAddress("/".join(segments[:2]), segments[2], revision if at else None)


def endpoint() -> str:
    """The hub's URL without a slash at its end: `$HF_ENDPOINT`, else the usual one. Raises `InvalidInput`."""
    given = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if given and not _may_be_asked(given):
        raise InvalidInput(
            f"HF_ENDPOINT is {_shown(given)!r}, expected https://host, or http:// on this machine",
            f"Correct it, or unset it to use {DEFAULT_ENDPOINT}; a token belongs into HF_TOKEN.",
        )
    return given or DEFAULT_ENDPOINT


def _may_be_asked(url: str) -> bool:
    """The downloader's own rule: what is sent goes over https, or stays on this machine."""
    if not re.fullmatch(r"https?://[!-~]+", url) or set(url) & set("?#@\\"):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    from zoo.store.download.web import is_loopback

    return is_loopback(host)


def _path_problem(path: str) -> str:
    """Why `path` cannot be the path of a file in a repository; "" if it can."""
    if not path.isprintable():
        return "its path holds a character that cannot be printed"
    if "\\" in path or "@" in path:
        return "its path holds a \\ or a second @"
    segments = path.split("/")
    if "" in segments:
        return "its path has an empty part"
    if "." in segments or ".." in segments:
        return "its path has a part that is . or .."
    if any(_DRIVE.match(segment) for segment in segments):
        return "its path has a part that names a drive"
    if len(path) > 1000 or any(len(segment.encode()) > 255 for segment in segments):
        return "its path is too long"
    return ""


def _shown(text: str) -> str:
    """`text` with what cannot be printed written as escapes."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text
    )
