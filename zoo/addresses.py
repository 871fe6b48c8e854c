"""The forms that a card may give the address of a file.

source = hf://organisation/repository/path[@revision]
       | https://host/path           http:// only on this machine: nobody vouches for what it brings
       | file:///path
       | scheme://...                for plugins; scheme = [a-z][a-z0-9+.-]*
       | path                        relative to the card, and not out of its folder
"""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_BEGINS_LIKE_A_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_NO_FORM = (
    "is of no known form: expected https://..., hf://organisation/repository/path, file:///... or a path "
    "relative to the card"
)


def source_problem(source: str) -> str | None:
    """Why `source` cannot be the address of a file, in a sentence; None if it can."""
    if _has_secret(source):
        # Not said back.
        return "an address with a user or a password, which belong into no card"
    problem = _problem(source)
    return None if problem is None else f"{source!r} {problem}"


def _problem(source: str) -> str | None:
    if not source.isprintable():
        return "holds a character that cannot be printed"
    if "\\" in source:
        return "holds a backslash"
    scheme, separator, rest = source.partition("://")
    if not separator:
        return _path_problem(source)
    if not _SCHEME.fullmatch(scheme):
        return _NO_FORM
    return _hub_problem(source) if scheme == "hf" else _url_problem(scheme, source, rest)


def _has_secret(source: str) -> bool:
    """Whether a password stands before the host; where users are tokens at best, also a user alone."""
    scheme, _, rest = source.partition("://")
    user, at, _ = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")
    return bool(at) and (":" in user or scheme.lower() in ("http", "https", "hf"))


def _path_problem(path: str) -> str | None:
    if path.startswith("/"):
        return "is an absolute path, expected one relative to the card, or file:///..."
    if _BEGINS_LIKE_A_SCHEME.match(path):
        return _NO_FORM
    depth = 0
    for segment in path.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(segment, 1)
        if depth < 0:
            return "leads out of the card's folder"
    if path.rsplit("/", 1)[-1] in ("", ".", ".."):
        return "is a folder, expected the path of a file"
    return None


def _hub_problem(source: str) -> str | None:
    from zoo.errors import InvalidInput
    from zoo.store.hub.address import parse_hub

    try:
        parse_hub(source)
    except InvalidInput as error:
        return f"is no address of the hub: {error.message.removeprefix(f'{source}: ')}"
    return None


def _url_problem(scheme: str, source: str, rest: str) -> str | None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(source)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return f"is no address: {error}"
    match scheme:
        case "file":
            return _file_problem(parts.netloc, parts.path)
        case "http" | "https":
            return _web_problem(scheme, host, source)
    return None if rest else "is only a scheme"


def _file_problem(host: str, path: str) -> str | None:
    if host not in ("", "localhost") or not path.startswith("/"):
        return "is of another machine, expected file:///absolute/path"
    if path.endswith("/"):
        return "is a folder, expected the path of a file"
    return None


def _web_problem(scheme: str, host: str, source: str) -> str | None:
    if not host or not source.isascii() or " " in source:
        return "is no address: expected a host, and %XX for spaces and what is not ASCII"
    if scheme == "http":
        from zoo.store.download.web import is_loopback

        if not is_loopback(host):
            return "is plain http, which nobody vouches for: expected https (http only on this machine)"
    return None
