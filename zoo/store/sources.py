"""Where a file can be had: one offer for each source of a card, whatever its scheme.

An offer is what is known before the first byte: who serves the file, how large it is, and which digest it
should have. `https://` and `hf://` are asked for that; `file://` is looked at; other schemes are for plugins.
"""

from __future__ import annotations

import hashlib
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo.cards import File
from zoo.errors import InvalidInput, LicenceError, NetworkError, NotFound, ZooError
from zoo.store.download.patience import Patience, Policy
from zoo.store.download.web import Answer, Rejected, Target, Trouble, check_url, printable, request
from zoo.store.hub import client as hub
from zoo.store.layout import blob_path, parts

#: Answers to HEAD that say nothing of what GET would get.
NO_HEAD = (400, 403, 405, 501)


@dataclass(frozen=True)
class Offer:
    """A file as one source has it; what the source does not say is None.

    `source` is the text of the card, `address` what a person can open. Of `target` (a server), `local` (a
    file on this machine) and neither (a plugin fetches it) one holds; `hub` comes with a file of the hub.
    """

    source: str
    address: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    revision: str | None = None
    target: Target | None = None
    local: Path | None = None
    hub: hub.HubFile | None = None

    def part_path(self, expected: str | None) -> Path:
        """Where its bytes are gathered: by content where that is known, else by address."""
        if self.hub is not None:
            return hub.part_path(self.hub)
        identity = self.identity(expected)
        if expected is None:
            identity = "url-" + hashlib.sha256(identity.encode()).hexdigest()[:32]
        return parts() / f"{identity}.part"

    def content_path(self, expected: str | None) -> Path:
        """What stands for its content in locks: where it will lie, if that is known before it is here."""
        if self.hub is not None:
            return self.hub.pointer
        if self.local is not None and scheme_of(self.source) == "hf":
            return self.local
        return self.part_path(None) if expected is None else blob_path(expected)

    def identity(self, expected: str | None) -> str:
        """Tells parts of different files apart."""
        if expected is not None:
            return f"sha256-{expected}"
        return self.source if self.revision is None else f"{self.source}@{self.revision}"


def scheme_of(source: str) -> str:
    """The scheme of a source; "" for a path beside the card."""
    scheme, separator, _ = source.partition("://")
    return scheme.lower() if separator else ""


def find_offer(
    file: File,
    source: str,
    revision: str | None,
    policy: Policy,
    said: Callable[[str], None],
    newest: bool = False,
) -> Offer:
    """What `source` has; `revision` pins a hub file whose source names none.

    Asks a server only for what the card does not say; with `newest` the hub, whatever its cache holds. Raises
    `NetworkError`, `NotFound`, `LicenceError` or `InvalidInput`.
    """
    match scheme_of(source):
        case "hf":
            return asked_hub_offer(source, revision) if newest else _hub_offer(source, revision)
        case "https" | "http":
            return _web_offer(file, source, policy, said)
        case "file":
            return local_offer(source, file_path(source))
        case _:
            return Offer(source, source, size=file.size)


def local_offer(source: str, path: Path) -> Offer:
    """A file that lies on this machine."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InvalidInput(f"{path}: {what}", "Expected the path of a weights file.")
    return Offer(source, str(path), size=path.stat().st_size, local=path)


def file_path(source: str) -> Path:
    """The path of a file:// address, which has to be on this machine."""
    address = urllib.parse.urlsplit(source)
    if address.netloc not in ("", "localhost"):
        raise InvalidInput(f"{source}: a file:// address of another machine", "Write file:///absolute/path.")
    return Path(urllib.parse.unquote(address.path))


def _hub_offer(source: str, revision: str | None) -> Offer:
    address = hub.parse_hub(source)
    cached = hub.find_cached(address, address.revision or revision)
    if cached is None:
        return asked_hub_offer(source, revision)
    return Offer(
        source,
        address.url(cached.commit),
        size=cached.size,
        sha256=cached.sha256,
        git_sha1=cached.git_sha1,
        revision=cached.commit,
        local=cached.pointer,
    )


def asked_hub_offer(source: str, revision: str | None) -> Offer:
    """What the hub itself says of a file, whatever lies in the cache."""
    address = hub.parse_hub(source)
    file = hub.describe_file(address, address.revision or revision)
    return Offer(
        source,
        address.url(file.commit),
        size=file.size,
        sha256=file.sha256,
        git_sha1=file.git_sha1,
        revision=file.commit,
        target=Target(file.url, file.headers),
        hub=file,
    )


def _web_offer(file: File, source: str, policy: Policy, said: Callable[[str], None]) -> Offer:
    try:
        check_url(source)
    except Rejected as rejected:
        raise InvalidInput(f"{printable(source)}: {rejected.reason}") from rejected
    if hub.offline() == "ZOO_OFFLINE":
        raise NetworkError(f"{printable(source)} is not asked for: ZOO_OFFLINE is set", "unset ZOO_OFFLINE")
    target = Target(source)
    size = file.size if file.size is not None else _asked_size(target, policy, named(source, said))
    return Offer(source, printable(source), size=size, target=target)


def named(url: str, said: Callable[[str], None]) -> Callable[[str], None]:
    """`said`, with the server's name before each text."""
    return lambda text: said(f"{urllib.parse.urlsplit(url).hostname}: {text}")


def _asked_size(target: Target, policy: Policy, said: Callable[[str], None]) -> int | None:
    """The size that the server states, None where it states none."""
    patience = Patience(policy, time.sleep, said)
    while True:
        try:
            with _head(target, patience.silence) as answer:
                return answer.total
        except Trouble as trouble:
            try:
                patience.after(trouble, progressed=False, arrived=False)
            except Trouble as last:
                raise network_error(last, target.url) from last
        except Rejected as rejected:
            raise refused(rejected, target.url) from rejected


def _head(target: Target, silence: float) -> Answer:
    try:
        return request(target, seconds=silence, method="HEAD")
    except Rejected as rejected:
        if rejected.status not in NO_HEAD:
            raise
    try:
        return request(target, (0, 1), seconds=silence)
    except Rejected as rejected:
        if rejected.status != 416:
            raise
        return request(target, seconds=silence)  # An empty file has no first byte.


def network_error(trouble: Trouble, url: str) -> ZooError:
    """A server that could not be reached, or that did not keep to its word, as the user's error."""
    return NetworkError(f"{printable(url)} could not be downloaded: {trouble.reason}")


def refused(rejected: Rejected, url: str) -> ZooError:
    """An answer that is no file, as the user's error: login missing, access denied, not there, or broken."""
    page = printable(url)
    if rejected.status == 401:
        return LicenceError(
            f"{page} needs a login", "Open it in a browser, log in and download the file there."
        )
    if rejected.status in (403, 451):
        return LicenceError(
            f"access to {page} is denied ({rejected.reason})",
            "Open it in a browser: terms may have to be accepted there, or the address has expired.",
        )
    if rejected.status in (404, 410):
        return NotFound(f"there is no file at {page}", "It may have moved: the method's page may know more.")
    return NetworkError(f"{page} could not be downloaded: {rejected.reason}")
