"""`pull`: from a reference to a variant whose files lie on this machine, checked and ready to load.

The order is the guarantee: terms before the first byte, room for all files before the first byte, every file
complete and checked before it has a place, every place filled before the manifest that makes it count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cards import Card, File, Licence, Variant
from zoo.catalogue import load_catalogue, state_of
from zoo.errors import (
    ChecksumError,
    InvalidInput,
    LicenceError,
    NetworkError,
    NotFound,
    OutputNotWritable,
    WeightsError,
    ZooError,
)
from zoo.store.layout import blob_path, blobs, home
from zoo.store.licences import Terms, require
from zoo.store.locate import locate
from zoo.store.locks import content_locks, content_name, store_lock, variant_lock
from zoo.store.manifest import Manifest, Stored, read_manifest, write_manifest
from zoo.store.progress import PlannedFile, Silent, Watcher
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.session import Session
    from zoo.store.download.patience import Policy
    from zoo.store.obtaining import Need, Obtained
    from zoo.store.sources import Offer

#: How often files that another process removes meanwhile are fetched anew.
MOST_REMOVALS = 5


def pull(
    reference: str,
    *,
    given: Mapping[str, Path] | None = None,
    accept_licence: bool | Callable[[Terms], bool] = False,
    keep_original: bool = False,
    accept_change: bool = False,
    repair: Collection[str] = (),
    connections: int | None = None,
    check_space: bool = True,
    watcher: Watcher | None = None,
    session: Session | None = None,
    policy: Policy | None = None,
) -> Manifest:
    """Bring the weights of a variant here: `pull("tarflow:afhq256", accept_licence=True)`.

    What is here already is not asked for again: a variant that was pulled costs no request. `given` maps
    roles to files fetched by hand, which are checked and converted like any other. `accept_licence` answers
    for terms that have to be accepted: yes, no, or a function that is shown them. `keep_original` keeps a
    PyTorch checkpoint beside the safetensors file it is converted to. `accept_change` believes a file that
    differs from the one first pulled, where nobody publishes a digest. `repair` names roles to fetch again.

    An interrupted pull keeps what has arrived, and the same call goes on from there. Raises `NotFound`,
    `NotPulled` (nobody published the weights), `LicenceError`, `NetworkError`, `ChecksumError`,
    `DoesNotFit`, `WeightsError`, `PluginError` or `OutputNotWritable`.
    """
    card, variant = _resolve(reference, session)
    if state_of(card, variant) == "built-in":
        return _built_in(card, variant)
    if not variant.files:
        locate(card, variant)  # Raises, and says what can be done without weights.
    fresh = bool(given or repair or accept_change)
    current = None if fresh else _current(card, variant, watcher or Silent())
    if current is not None:
        return current
    from zoo.store.download.patience import Policy

    policy = policy or Policy()
    settings = _Settings(
        given=_checked_roles(card, variant, given or {}),
        keep_original=keep_original,
        accept_change=accept_change,
        repair=frozenset(repair),
        check_space=check_space,
        policy=policy if connections is None else replace(policy, connections=connections),
    )
    watcher = watcher or Silent()
    with _store_errors():
        if variant.licence is not None and not variant.licence.accept:
            watcher.said(_terms_in_short(card, variant, variant.licence))
        require(card, variant, accept_licence)
        with variant_lock(card.method, variant.name, lambda: watcher.said(_waiting(card, variant))):
            current = None if fresh else _current(card, variant, watcher)
            return current or _Pull(card, variant, settings, watcher, session).run()


@dataclass(frozen=True)
class _Settings:
    """How a pull was asked for."""

    given: Mapping[str, Path]
    keep_original: bool
    accept_change: bool
    repair: frozenset[str]
    check_space: bool
    policy: Policy


@dataclass
class _Job:
    """One file to bring: what is needed, who has it, and who else may."""

    need: Need
    offer: Offer
    others: list[str]
    first_source: str
    errors: list[ZooError]


class _Pull:
    """One pull, under the variant's lock."""

    def __init__(
        self, card: Card, variant: Variant, settings: _Settings, watcher: Watcher, session: Session | None
    ) -> None:
        self.card, self.variant = card, variant
        self.settings, self.watcher = settings, watcher
        self._session = session
        self.reference = f"{card.method}:{variant.name}"

    def run(self) -> Manifest:
        """Bring every file that is not here yet, and write the manifest."""
        stored = self._kept()
        files = [file for file in self.variant.files if file.role not in stored]
        for file in files:
            local = file.local(self.card.folder)
            if local is not None and file.role not in self.settings.given:
                stored[file.role] = _in_place(file, local)
        jobs = [self._job(file) for file in files if file.role not in stored]
        if self.settings.check_space:
            self._check_room(jobs)
        self.watcher.planned([self._planned(job) for job in jobs])
        names = [content_name(job.offer.content_path(self._expected(job))) for job in jobs]
        with content_locks(names, lambda: self.watcher.said(_waiting_for_content(self.reference))):
            manifest = self._bring(jobs, stored)
        for warning in self._session.warnings if self._session else ():
            self.watcher.said(warning)
        return manifest

    def _bring(self, jobs: list[_Job], stored: dict[str, Stored]) -> Manifest:
        """Every job's file into its place, and the manifest; again if another process took one away."""
        for _ in range(MOST_REMOVALS):
            obtained = []
            for job in jobs:
                file = stored.get(job.need.file.role)
                if file is None or not _is_there(file):
                    got = self._obtain(job)
                    obtained.append(got)
                    stored[job.need.file.role] = self._place(job, got)
            manifest = self._finish(jobs, stored)
            if manifest is not None:
                self._drop_converted(obtained, manifest)
                return manifest
            self.watcher.said(f"a file of {self.reference} was removed meanwhile: getting it again")
        raise WeightsError(f"files of {self.reference} are removed as often as they are pulled")

    def _kept(self) -> dict[str, Stored]:
        """Files of an earlier pull that still are what the card asks for."""
        try:
            manifest = read_manifest(self.card.method, self.variant.name)
        except WeightsError:
            manifest = None
        again = {*self.settings.repair, *self.settings.given}
        kept = {}
        for file in self.variant.files if manifest is not None else ():
            stored = manifest.file(file.role) if manifest is not None else None
            if stored is not None and file.role not in again and _is_current(stored, file):
                kept[file.role] = stored
        return {} if self.settings.accept_change else kept

    def _job(self, file: File) -> _Job:
        from zoo.store import trust
        from zoo.store.obtaining import Need
        from zoo.store.sources import find_offer, local_offer

        first = None if self.settings.accept_change else trust.first_pull(file.source[0])
        need = Need(self.reference, file, first)
        here = self._known_here(need)
        if here is not None:
            return _Job(need, here, [], file.source[0], [])
        if file.role in self.settings.given:
            path = self.settings.given[file.role]
            return _Job(need, local_offer(path.absolute().as_uri(), path), [], file.source[0], [])
        others, errors = list(file.source), list[ZooError]()
        while others:
            source = others.pop(0)
            revision = first.revision if first and source == file.source[0] else None
            try:
                newest = self.settings.accept_change
                offer = find_offer(file, source, revision, self.settings.policy, self.watcher.said, newest)
                return _Job(need, offer, others, file.source[0], errors)
            except (NetworkError, NotFound, LicenceError) as error:
                errors.append(error)
        raise self._by_hand(errors, file)

    def _known_here(self, need: Need) -> Offer | None:
        """An offer of nobody, where the store holds the very content already: then nobody is asked."""
        from zoo.store.sources import Offer

        digest, role = need.known_sha256, need.file.role
        if digest is None or role in self.settings.given or not blob_path(digest).is_file():
            return None
        source, size = need.file.source[0], blob_path(digest).stat().st_size
        return Offer(source, source, size=size) if need.file.size in (None, size) else None

    def _planned(self, job: _Job) -> PlannedFile:
        from zoo.store.download.parts import bytes_here

        done = bytes_here(job.offer.part_path(self._expected(job))) if job.offer.target else 0
        return PlannedFile(job.need.file.role, job.offer.address, job.offer.size, done)

    def _expected(self, job: _Job) -> str | None:
        from zoo.store.obtaining import expected_digest

        return expected_digest(job.need, job.offer)[0]

    def _check_room(self, jobs: list[_Job]) -> None:
        from zoo.store.room import Claim, check_room

        claims = []
        for job in jobs:
            planned, file = self._planned(job), job.need.file
            if planned.size is None:
                continue
            if job.offer.local is None:
                place = job.offer.part_path(None).parent
                claims.append(Claim(place, planned.size - planned.done))
            copied = job.offer.local is not None and file.role in self.settings.given
            if copied or file.format == "pytorch":
                claims.append(Claim(blobs(), planned.size))
        check_room(claims, self.reference)

    def _obtain(self, job: _Job) -> Obtained:
        """The file from the first source that has it; later ones are mirrors."""
        from zoo.store.obtaining import obtain
        from zoo.store.sources import find_offer

        policy = self.settings.policy
        while True:
            try:
                return obtain(job.need, job.offer, policy, self.watcher, self._fetch_by_plugin)
            except (NetworkError, NotFound, LicenceError, ChecksumError) as error:
                job.errors.append(error)
            while job.others:
                source = job.others.pop(0)
                self.watcher.said(f"{job.errors[-1].message}; trying {source}")
                try:
                    job.offer = find_offer(job.need.file, source, None, policy, self.watcher.said)
                    break
                except (NetworkError, NotFound, LicenceError) as error:
                    job.errors.append(error)
            else:
                raise self._by_hand(job.errors, job.need.file)

    def _by_hand(self, errors: list[ZooError], file: File) -> ZooError:
        """The first error, with what the others say and how to do without the network."""
        from zoo.store.locate import address

        error = errors[0]
        lines = [error.hint] if error.hint else []
        lines += [f"Mirror: {other.message}" for other in errors[1:]]
        if not isinstance(error, ChecksumError):
            role = f"{file.role}=" if len(self.variant.files) > 1 else ""
            lines.append(f"By hand: download {address(file)}")
            lines.append(f"then: zoo pull {self.reference} --from {role}FILE")
        error.hint = "\n".join(lines)
        return error

    def _fetch_by_plugin(self, source: str, path: Path, progress: Callable[[int, int | None], None]) -> bool:
        plugins = self.session.plugins
        plugins.load_all()
        answers = plugins.each("fetch", source=source, destination=path, progress=progress)
        return any(answer is not None for _, answer in answers)

    def _place(self, job: _Job, got: Obtained) -> Stored:
        from zoo.store.placing import place

        file = job.need.file
        self.watcher.working(file.role, "converting" if file.format == "pytorch" else "storing")
        return place(file, got, self._convert, self.settings.keep_original)

    def _convert(self, file: File, source: Path, destination: Path) -> tuple[str, int]:
        from zoo.store.conversion import convert_checkpoint

        return convert_checkpoint(self.session, self.card, self.variant, file, source, destination)

    @property
    def session(self) -> Session:
        """The session, made when a plugin is needed."""
        if self._session is None:
            from zoo.session import default_session

            self._session = default_session()
        return self._session

    def _finish(self, jobs: list[_Job], stored: Mapping[str, Stored]) -> Manifest | None:
        """Write the manifest; None where a file is gone by now."""
        from zoo.store import trust

        for job in jobs:
            file = stored[job.need.file.role]
            if file.digest_from != "card":
                if self.settings.accept_change:
                    trust.forget(job.first_source)
                size = file.original.size if file.original else file.size
                trust.record(job.first_source, file.downloaded_sha256, size, file.revision)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        files = tuple(stored[file.role] for file in self.variant.files)
        manifest = Manifest(self.card.method, self.variant.name, now, __version__, files)
        with store_lock():
            if not all(_is_there(file) for file in files):
                return None
            write_manifest(manifest)
        return manifest

    def _drop_converted(self, obtained: list[Obtained], manifest: Manifest) -> None:
        """Parts whose content lies converted in its place by now."""
        from zoo.store.download.parts import discard

        kept = {path for file in manifest.files for path in file.paths}
        for got in obtained:
            if got.place == "part" and got.path not in kept:
                discard(got.path)


def _resolve(reference: str, session: Session | None) -> tuple[Card, Variant]:
    """From the cards alone where they know the reference: a plugin is loaded only when they do not."""
    if session is not None:
        return session.resolve(reference)
    try:
        return load_catalogue().resolve(reference)
    except NotFound:
        from zoo.session import default_session

        return default_session().resolve(reference)


def _current(card: Card, variant: Variant, watcher: Watcher) -> Manifest | None:
    """The manifest, if everything that the card asks for is here. Reads no content."""
    try:
        manifest = read_manifest(card.method, variant.name)
    except WeightsError as error:
        watcher.said(f"{error.message}: it is pulled again")
        return None
    if manifest is None:
        return None
    for file in variant.files:
        stored = manifest.file(file.role)
        if stored is None or not _is_current(stored, file):
            return None
    return manifest


def _is_current(stored: Stored, file: File) -> bool:
    """Whether a stored file is the one of the card, and as long as it was."""
    if file.sha256 is not None and stored.downloaded_sha256 != file.sha256:
        return False
    if file.sha256 is None and stored.source not in file.source and not stored.source.startswith("file:"):
        return False
    try:
        return stored.path.stat().st_size == stored.size
    except OSError:
        return False


def _in_place(file: File, path: Path) -> Stored:
    """A file that ships beside the card: it stays there, and is not ours to remove."""
    from zoo.store.hashing import file_sha256

    if not path.is_file():
        raise WeightsError(f"{path}: the card's file is missing", "Reinstall the package that brings it.")
    digest = file_sha256(path)
    if file.sha256 not in (None, digest):
        raise ChecksumError(f"{path}: expected sha256 {file.sha256}, got {digest}", "Reinstall the package.")
    return Stored(
        file.role, path, digest, path.stat().st_size, file.format, "card", file.source[0], shared=True
    )


def _built_in(card: Card, variant: Variant) -> Manifest:
    """What a manifest would say of a variant that ships with a package."""
    files = []
    for file in variant.files:
        path = file.local(card.folder)
        if path is not None:
            files.append(_in_place(file, path))
    return Manifest(card.method, variant.name, "", __version__, tuple(files))


def _checked_roles(card: Card, variant: Variant, given: Mapping[str, Path]) -> Mapping[str, Path]:
    roles = [file.role for file in variant.files]
    unknown = [role for role in given if role not in roles]
    if unknown:
        raise InvalidInput(
            f"{card.method}:{variant.name} has no file of role '{unknown[0]}'",
            f"Its roles: {', '.join(roles)}",
        )
    return {role: Path(path) for role, path in given.items()}


def _terms_in_short(card: Card, variant: Variant, licence: Licence) -> str:
    return f"{card.method}:{variant.name}: licence {licence.weights} {licence.url or ''}".rstrip()


def _is_there(file: Stored) -> bool:
    return all(path.is_file() for path in file.paths)


def _waiting_for_content(reference: str) -> str:
    return f"a file of {reference} is being pulled for another model; waiting for it"


def _waiting(card: Card, variant: Variant) -> str:
    return f"{card.method}:{variant.name} is being pulled or removed by another process; waiting for it"


@contextmanager
def _store_errors() -> Iterator[None]:
    """A store that cannot be written is the user's to know, not a traceback."""
    try:
        yield
    except OSError as error:
        place = error.filename or home()
        raise OutputNotWritable(
            f"the store cannot be written: {place}: {(error.strerror or str(error)).lower()}",
            "Set ZOO_HOME to a folder that you may write to and that has room.",
        ) from error
