"""Planning a pull: which files are missing, who has each of them, and whether there is room for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.cards import Card, File, Variant
from zoo.errors import ChecksumError, LicenceError, NetworkError, NotFound, ZooError
from zoo.store import trust
from zoo.store.checkpoints.shard_index import SUFFIX
from zoo.store.download.parts import bytes_here
from zoo.store.download.patience import Policy
from zoo.store.holdings import kept_files, shipped_file
from zoo.store.layout import blob_path, blobs
from zoo.store.locate import address
from zoo.store.locks import content_name
from zoo.store.manifest import Stored
from zoo.store.obtaining import Need, Obtained, expected_digest
from zoo.store.progress import PlannedFile, Watcher
from zoo.store.room import Claim, check_room
from zoo.store.shards import Shards, is_sharded
from zoo.store.sources import Offer, find_offer, local_offer


@dataclass(frozen=True)
class Settings:
    """How a pull was asked for; `zoo.store.pull.pull` says what each of them means."""

    given: Mapping[str, Path]
    keep_original: bool
    accept_change: bool
    repair: frozenset[str]
    check_space: bool
    policy: Policy


@dataclass
class Job:
    """One file to get: what is needed, whose offer is taken, and the sources that nobody has asked yet.

    `errors` are those of the sources that were asked in vain. `in_store` is the blob with the very content,
    where the store held it when the job was planned: then the offer is nobody's, and nobody has to be asked.
    `shards` is set where the file is one of several that the card names by their index.
    """

    need: Need
    offer: Offer
    unasked: list[str] = field(default_factory=list)
    errors: list[ZooError] = field(default_factory=list)
    in_store: Path | None = None
    shards: Shards | None = None

    @property
    def file(self) -> File:
        """The file as the card describes it."""
        return self.need.file

    @property
    def role(self) -> str:
        """The role of the card's file that it is, or is one of several of."""
        return self.shards.file.role if self.shards else self.file.role

    @property
    def is_index(self) -> bool:
        """Whether it stands for the files that it names."""
        return is_sharded(self.file, self.offer.source)

    @property
    def lock_name(self) -> str:
        """The name under which its content is locked."""
        return content_name(self.offer.content_path(self._expected))

    @property
    def planned(self) -> PlannedFile:
        """What a watcher is told of it."""
        done = bytes_here(self.offer.part_path(self._expected)) if self.offer.target else 0
        return PlannedFile(self.file.role, self.offer.address, self.offer.size, done)

    @property
    def _expected(self) -> str | None:
        return expected_digest(self.need, self.offer)[0]


class Planner:
    """Plans the pull of one variant, under the variant's lock."""

    def __init__(self, card: Card, variant: Variant, settings: Settings, watcher: Watcher) -> None:
        self.card, self.variant = card, variant
        self.settings, self.watcher = settings, watcher
        self.reference = f"{card.method}:{variant.name}"
        #: Optional components that no source gives all files of, each with what was said of one.
        self.absent: dict[str, ZooError] = {}
        self._optional = variant.optional_files

    def kept(self) -> dict[str, Stored]:
        """Files of an earlier pull that nobody asked to get anew, by role."""
        if self.settings.accept_change:
            return {}
        again = {*self.settings.repair, *self.settings.given}
        kept = kept_files(self.card, self.variant)
        return {role: stored for role, stored in kept.items() if role not in again}

    def shipped(self, stored: Mapping[str, Stored]) -> dict[str, Stored]:
        """The files beside the card that neither are stored nor were given by hand, by role."""
        shipped = {}
        for file in self._missing(stored):
            local = file.local(self.card.folder)
            if local is not None and file.role not in self.settings.given:
                shipped[file.role] = shipped_file(file, local)
        return shipped

    def jobs(self, stored: Mapping[str, Stored]) -> list[Job]:
        """One job for each file that is not stored.

        An optional component of which a file is nowhere to be had is left out, and then in `absent`. Raises
        the error of a file's first source where none of its sources answers, and `DoesNotFit` where the
        files together need more room than there is.
        """
        self.absent = {}
        jobs = [job for file in self._missing(stored) for job in self._jobs_for(file, file.role)]
        return self._checked(jobs)

    def _jobs_for(self, file: File, role: str) -> list[Job]:
        """The job for a file of the card's `role`; none for a component that is left out by now."""
        component = self._optional.get(role)
        if component is None:
            return [self._job(file)]
        return [] if component in self.absent else self._optional_job(file, component)

    def _optional_job(self, file: File, component: str) -> list[Job]:
        """The job for a file of an optional component; none where no source gives the file."""
        errors: list[ZooError] = []
        try:
            return [self._job(file, errors)]
        except (NotFound, LicenceError) as error:
            # A server that cannot be reached now may have the file, and what was fetched by hand for the
            # component would be of no use without it.
            by_hand = any(self._optional.get(role) == component for role in self.settings.given)
            if by_hand or any(isinstance(other, NetworkError) for other in errors):
                raise
            self.absent[component] = error
            return []

    def _checked(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs without those of components that are left out; `DoesNotFit` where there is no room."""
        kept = [job for job in jobs if self._optional.get(job.role) not in self.absent]
        if self.settings.check_space:
            check_room([claim for job in kept for claim in self._claims(job)], self.reference)
        return kept

    @property
    def absent_roles(self) -> frozenset[str]:
        """The roles of the files of absent components."""
        return frozenset(role for role, component in self._optional.items() if component in self.absent)

    def with_shards(self, jobs: Sequence[Job], indices: Mapping[str, Obtained]) -> list[Job]:
        """The jobs with those of the files that the obtained indices, by role, name in the indices' place.

        Raises `WeightsError` for an index that is none, and what `jobs` raises.
        """
        planned: list[Job] = []
        for job in jobs:
            if job.file.role not in indices:
                planned.append(job)
                continue
            shards = Shards.read(job.file, indices[job.file.role])
            named = [found for file in shards.files for found in self._jobs_for(file, job.file.role)]
            planned += [replace(found, shards=shards) for found in named]
        return self._checked(planned)

    def ask_next(self, need: Need, unasked: list[str], errors: list[ZooError], aloud: bool = False) -> Offer:
        """The offer of the first unasked source that answers; `errors` receives what the others said.

        `aloud` tells the watcher of each source that is asked because another failed.
        """
        first, settings = need.first_pull, self.settings
        while unasked:
            source = unasked.pop(0)
            if aloud and errors:
                self.watcher.said(f"{errors[-1].message}; trying {source}")
            revision = first.revision if first and source == need.file.source[0] else None
            try:
                return find_offer(
                    need.file, source, revision, settings.policy, self.watcher.said, settings.accept_change
                )
            except (NetworkError, NotFound, LicenceError) as error:
                errors.append(error)
        raise self._in_vain(errors, need.file)

    def _missing(self, stored: Mapping[str, Stored]) -> list[File]:
        return [file for file in self.variant.files if file.role not in stored]

    def _job(self, file: File, errors: list[ZooError] | None = None) -> Job:
        """The job for a file; `errors` receives those of the sources that were asked in vain."""
        errors = [] if errors is None else errors
        first = None if self.settings.accept_change else trust.first_pull(file.source[0])
        need = Need(self.reference, file, first)
        if file.role in self.settings.given:
            path = self.settings.given[file.role]
            return Job(need, local_offer(path.absolute().as_uri(), path))
        unasked = list(file.source)
        blob = _blob_of(need)
        if blob is not None:
            return Job(need, Offer(unasked[0], unasked[0], size=blob.stat().st_size), unasked, in_store=blob)
        return Job(need, self.ask_next(need, unasked, errors), unasked, errors)

    def _claims(self, job: Job) -> Iterator[Claim]:
        """The room that a file takes on its way and in its place."""
        planned = job.planned
        if planned.size is None:
            return
        if job.offer.local is None:
            yield Claim(job.offer.part_path(None).parent, planned.size - planned.done)
        copied = job.offer.local is not None and job.file.role in self.settings.given
        if copied or job.file.format == "pytorch":
            yield Claim(blobs(), planned.size)

    def _in_vain(self, errors: list[ZooError], file: File) -> ZooError:
        """The first error, with what the others say and how to do without the network."""
        error = errors[0]
        lines = [error.hint] if error.hint else []
        lines += [f"Mirror: {other.message}" for other in errors[1:]]
        if not isinstance(error, ChecksumError):
            lines += self._by_hand(file)
        error.hint = "\n".join(lines)
        return error

    def _by_hand(self, file: File) -> list[str]:
        """How to do without the network."""
        if file in self.variant.files:
            role = f"{file.role}=" if len(self.variant.files) > 1 else ""
            more = ", with the files that it names" if is_sharded(file, file.source[0]) else ""
            return [
                f"By hand: download {address(file)}{more}",
                f"then: zoo pull {self.reference} --from {role}FILE",
            ]
        return [f"By hand: download it and its fellows beside their {SUFFIX[1:]}, and give --from that file"]


def _blob_of(need: Need) -> Path | None:
    """The blob with the needed content, where the digest is known before anybody is asked."""
    if need.known_sha256 is None:
        return None
    blob = blob_path(need.known_sha256)
    return blob if blob.is_file() and need.file.size in (None, blob.stat().st_size) else None
