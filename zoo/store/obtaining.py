"""Getting one file from one offer, complete and with the content that was promised.

What is promised: the digest in the card; else the one in the hub's metadata; else, from the second pull on,
that of the first. A file with other content is fetched once more on one connection, because some proxies mix
up ranges, and is then kept beside the store's files and refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from zoo.cards import File
from zoo.errors import ChecksumError, PluginError, ZooError
from zoo.quantities import human_bytes
from zoo.store.download.parts import Part, bytes_here, discard, journal_path
from zoo.store.download.patience import Policy
from zoo.store.download.transfer import SizeDiffers, Wanted, transfer
from zoo.store.download.web import Rejected, Trouble
from zoo.store.hashing import file_sha256, git_sha1
from zoo.store.hub import client as hub
from zoo.store.layout import blob_path, parts
from zoo.store.manifest import DigestFrom
from zoo.store.progress import Watcher
from zoo.store.sources import Offer, asked_hub_offer, named, network_error, refused, scheme_of
from zoo.store.trust import FirstPull

#: Fetches an address of a plugin's scheme into a file; False where no plugin knows the scheme.
PluginFetch = Callable[[str, Path, Callable[[int, int | None], None]], bool]


@dataclass(frozen=True)
class Need:
    """A file of a card that has to come here; `first_pull` is what was believed of it before."""

    reference: str
    file: File
    first_pull: FirstPull | None

    @property
    def known_sha256(self) -> str | None:
        """The digest that is known before anybody is asked."""
        return self.file.sha256 or (self.first_pull.sha256 if self.first_pull else None)


@dataclass(frozen=True)
class Obtained:
    """A complete file with the promised content.

    `place`: "part" is ours to move, "stored" lies where it belongs, "foreign" belongs to the user.
    """

    offer: Offer
    path: Path
    sha256: str
    size: int
    digest_from: DigestFrom
    place: Literal["part", "stored", "foreign"]


def expected_digest(need: Need, offer: Offer) -> tuple[str | None, DigestFrom]:
    """What the file's sha256 has to be, and who says so; raises `ChecksumError` where two disagree."""
    first = need.first_pull.sha256 if need.first_pull else None
    known = need.known_sha256
    if known is not None and offer.sha256 is not None and known != offer.sha256:
        who = "the card" if need.file.sha256 else "the first pull"
        raise ChecksumError(
            f"{offer.address}: {who} says sha256 {known}, the hub says {offer.sha256}",
            _way_out(need),
        )
    if need.file.sha256 is not None:
        return need.file.sha256, "card"
    if offer.sha256 is not None:
        return offer.sha256, "hub"
    return first, "first pull"


def obtain(need: Need, offer: Offer, policy: Policy, watcher: Watcher, fetch: PluginFetch) -> Obtained:
    """The file of `offer`; whatever has arrived stays, and is not fetched again.

    Raises `ChecksumError`, `NetworkError`, `NotFound`, `LicenceError`, `PluginError` or `DoesNotFit`.
    """
    expected, digest_from = expected_digest(need, offer)
    given = offer.local is not None and scheme_of(offer.source) != "hf"
    here = None if given else _already_here(need, offer, expected, digest_from, watcher)
    if here is not None:
        return here
    getting = _Getting(need, offer, expected, digest_from, policy, watcher)
    if offer.hub is not None:
        return _from_hub(getting, offer.hub)
    if offer.target is not None:
        return getting.from_server()
    if offer.local is None:
        return getting.from_plugin(fetch)
    if scheme_of(offer.source) != "hf":
        return getting.from_disk(offer.local, "foreign")
    try:
        return getting.from_disk(offer.local, "stored")
    except ChecksumError as error:
        # Another program brought it into the cache, without a look at its content.
        watcher.said(f"{error.message}: downloading it anew")
        return obtain(need, asked_hub_offer(offer.source, offer.revision), policy, watcher, fetch)


def _from_hub(getting: _Getting, file: hub.HubFile) -> Obtained:
    """A file of the hub: its content may lie in the cache already, under the name of another commit."""
    if file.blob.is_file():
        with contextlib.suppress(ChecksumError):
            got = getting.from_disk(file.blob, "stored")
            return replace(got, path=hub.link_file(file))
    if file.only_xet:
        return getting.from_disk(hub.download_with_xet(file, getting.advanced), "stored")
    return getting.from_server()


def _already_here(
    need: Need, offer: Offer, expected: str | None, digest_from: DigestFrom, watcher: Watcher
) -> Obtained | None:
    """A blob with the expected content, or a file that was refused once and is the right one by now."""
    if expected is None:
        return None
    blob, refused_before = blob_path(expected), bad_path(expected)
    if blob.is_file() and need.file.size in (None, blob.stat().st_size):
        return Obtained(offer, blob, expected, blob.stat().st_size, digest_from, "stored")
    if refused_before.is_file():
        watcher.working(need.file.role, "checking")
        if file_sha256(refused_before) == expected:
            size = refused_before.stat().st_size
            return Obtained(offer, refused_before, expected, size, digest_from, "part")
    return None


def bad_path(sha256: str) -> Path:
    """Where a refused file with this content is kept."""
    return parts() / f"sha256-{sha256}.bad"


class _Getting:
    """One file on its way from one offer."""

    def __init__(
        self,
        need: Need,
        offer: Offer,
        expected: str | None,
        digest_from: DigestFrom,
        policy: Policy,
        watcher: Watcher,
    ) -> None:
        self.need, self.offer = need, offer
        self.expected, self.digest_from = expected, digest_from
        self.policy, self.watcher = policy, watcher

    def advanced(self, done: int, total: int | None) -> None:
        """Tell how far the file is."""
        self.watcher.advanced(self.need.file.role, done, self.offer.size if total is None else total)

    def from_disk(self, path: Path, place: Literal["stored", "foreign"]) -> Obtained:
        """A file that lies on this machine: only its content is checked."""
        self.watcher.working(self.need.file.role, "checking")
        size = path.stat().st_size
        sha256 = file_sha256(path, lambda done: self.advanced(done, size))
        if not self._is_right(path, sha256, size):
            raise self._wrong(sha256, size, f"{path} is left as it is.")
        return self._obtained(path, sha256, size, place)

    def from_server(self) -> Obtained:
        """Download, check, and once more on one connection if the content is wrong."""
        path = self.offer.part_path(self.expected)
        try:
            sha256, size, right = self._downloaded(path, self.policy)
            if not right:
                self.watcher.said("the content is not what was promised: once more, on one connection")
                discard(path)
                sha256, size, right = self._downloaded(path, replace(self.policy, connections=1))
        except SizeDiffers as error:
            raise ChecksumError(f"{self.offer.address}: {error.reason}", _way_out(self.need)) from error
        except Trouble as trouble:
            raise self._interrupted(trouble, path) from trouble
        except Rejected as rejected:
            assert self.offer.target is not None
            raise refused(rejected, self.offer.target.url) from rejected
        if not right:
            raise self._wrong(sha256, size, f"The file was kept: {self._put_aside(path, sha256)}")
        return self._obtained(path, sha256, size, "part")

    def from_plugin(self, fetch: PluginFetch) -> Obtained:
        """Let a plugin fetch the file; it may go on with what it left in the part before."""
        path = self.offer.part_path(self.expected)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not fetch(self.offer.source, path, self.advanced):
            raise PluginError(
                f"no plugin fetches {scheme_of(self.offer.source)}:// addresses: {self.offer.source}",
                "zoo plugins lists what is installed.",
            )
        if not path.is_file():
            raise PluginError(f"{self.offer.source}: the plugin that fetched it left no file")
        self.watcher.working(self.need.file.role, "checking")
        sha256, size = file_sha256(path), path.stat().st_size
        if not self._is_right(path, sha256, size):
            raise self._wrong(sha256, size, f"The file was kept: {self._put_aside(path, sha256)}")
        return self._obtained(path, sha256, size, "part")

    def _downloaded(self, path: Path, policy: Policy) -> tuple[str, int, bool]:
        assert self.offer.target is not None
        known = self.expected is not None or self.offer.git_sha1 is not None
        wanted = Wanted(self.offer.target, self.need.file.size, digest_known=known)
        said = named(self.offer.target.url, self.watcher.said)
        with Part(path, self.offer.identity(self.expected)) as part:
            sha256, size = transfer(wanted, part, policy, self.advanced, said)
            self.watcher.working(self.need.file.role, "checking")
            if not part.seal(size):
                # Where locks exclude nobody, another pull may have moved the part to its place.
                raise Trouble("another process took the part away")
        return sha256, size, self._is_right(path, sha256, size)

    def _is_right(self, path: Path, sha256: str, size: int) -> bool:
        if self.need.file.size not in (None, size):
            return False
        if self.expected is not None:
            return sha256 == self.expected
        return self.offer.git_sha1 is None or git_sha1(path) == self.offer.git_sha1

    def _obtained(
        self, path: Path, sha256: str, size: int, place: Literal["part", "stored", "foreign"]
    ) -> Obtained:
        vouched: DigestFrom = "hub" if self.expected is None and self.offer.git_sha1 else self.digest_from
        return Obtained(self.offer, path, sha256, size, vouched, place)

    def _wrong(self, sha256: str, size: int, kept: str) -> ChecksumError:
        promised = {
            "card": "the card promises",
            "hub": "the hub promises",
            "first pull": "it had when it was first pulled",
        }[self.digest_from]
        if self.expected is not None and sha256 != self.expected:
            text = (
                f"{self.offer.address} is not what {promised}: expected sha256 {self.expected}, got {sha256}"
            )
        elif self.need.file.size not in (None, size):
            text = f"{self.offer.address}: expected {self.need.file.size} bytes, got {size}"
        else:
            text = f"{self.offer.address}: expected git sha1 {self.offer.git_sha1}, the content has another"
        return ChecksumError(text, f"{kept}\n{_way_out(self.need)}")

    def _put_aside(self, path: Path, sha256: str) -> Path:
        aside = bad_path(sha256) if self.offer.hub is None else path.with_name(f"{path.name}.bad")
        journal_path(path).unlink(missing_ok=True)
        os.replace(path, aside)
        return aside

    def _interrupted(self, trouble: Trouble, path: Path) -> ZooError:
        assert self.offer.target is not None
        error = network_error(trouble, self.offer.target.url)
        kept = bytes_here(path)
        if kept:
            error.hint = f"{human_bytes(kept)} are kept: zoo pull {self.need.reference} goes on from there."
        return error


def _way_out(need: Need) -> str:
    if need.file.sha256 is None and need.first_pull is not None:
        return (
            f"If the authors replaced the file on purpose: zoo pull {need.reference} --accept-change\n"
            f"To use a file of your own: zoo sample {need.reference} --weights FILE"
        )
    return f"Its card may be out of date, or the file damaged. zoo show {need.reference} shows both."
