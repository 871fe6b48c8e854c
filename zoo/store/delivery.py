"""Carrying out a pull: every missing file here, checked and in its place, and then the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cards import Card, File, Variant
from zoo.errors import ChecksumError, LicenceError, NetworkError, NotFound, WeightsError
from zoo.store import trust
from zoo.store.download.parts import discard
from zoo.store.holdings import is_there
from zoo.store.layout import home
from zoo.store.locks import content_locks, store_lock
from zoo.store.manifest import Manifest, Stored, write_manifest
from zoo.store.obtaining import Obtained, obtain
from zoo.store.placing import place
from zoo.store.planning import Job, Planner, Settings
from zoo.store.progress import Watcher
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.session import Session

#: How often files that another process removes meanwhile are fetched anew.
MOST_REMOVALS = 5


class Delivery:
    """One pull, under the variant's lock."""

    def __init__(
        self, card: Card, variant: Variant, settings: Settings, watcher: Watcher, session: Session | None
    ) -> None:
        self.card, self.variant = card, variant
        self.settings, self.watcher = settings, watcher
        self.planner = Planner(card, variant, settings, watcher)
        self.reference = self.planner.reference
        self._session = session

    def run(self) -> Manifest:
        """Bring every file that is not here yet, and write the manifest."""
        stored = self.planner.kept()
        for attempt in range(MOST_REMOVALS):
            stored |= self.planner.shipped(stored)
            jobs = self.planner.jobs(stored)
            if attempt == 0:  # A watcher is told of its files once.
                self.watcher.planned([job.planned for job in jobs])
            manifest = self._carry_out(jobs, stored)
            if manifest is not None:
                for warning in self._session.warnings if self._session else ():
                    self.watcher.said(warning)
                return manifest
            self.watcher.said(f"a file of {self.reference} was removed meanwhile: getting it again")
            stored = {role: file for role, file in stored.items() if is_there(file)}
        raise WeightsError(
            f"files of {self.reference} were removed {MOST_REMOVALS} times while it was pulled",
            f"See what removes files below {home()}, then: zoo pull {self.reference}",
        )

    def _carry_out(self, jobs: list[Job], stored: dict[str, Stored]) -> Manifest | None:
        """Every job's file into its place, and the manifest; None where a file is gone by then."""
        waiting = f"a file of {self.reference} is being pulled for another model; waiting for it"
        with content_locks([job.lock_name for job in jobs], lambda: self.watcher.said(waiting)):
            obtained = []
            for job in jobs:
                obtained.append(self._obtain(job))
                stored[job.file.role] = self._place(job, obtained[-1])
            self._believe(jobs, stored)
            manifest = self._written(stored)
            if manifest is not None:
                _drop_converted(obtained, manifest)
            return manifest

    def _obtain(self, job: Job) -> Obtained:
        """The file from the first source that has it; later ones are mirrors."""
        if job.in_store is not None and not job.in_store.is_file():
            self._ask_next(job)  # It was removed since it was planned, when nobody had to be asked.
        while True:
            try:
                return obtain(job.need, job.offer, self.settings.policy, self.watcher, self._fetch_by_plugin)
            except (NetworkError, NotFound, LicenceError, ChecksumError) as error:
                job.errors.append(error)
            self._ask_next(job)

    def _ask_next(self, job: Job) -> None:
        job.offer = self.planner.ask_next(job.need, job.unasked, job.errors, aloud=True)

    def _fetch_by_plugin(self, source: str, path: Path, progress: Callable[[int, int | None], None]) -> bool:
        plugins = self.session.plugins
        plugins.load_all()
        answers = plugins.each("fetch", source=source, destination=path, progress=progress)
        return any(answer is not None for _, answer in answers)

    def _place(self, job: Job, got: Obtained) -> Stored:
        converted = job.file.format == "pytorch"
        self.watcher.working(job.file.role, "converting" if converted else "storing")
        return place(job.file, got, self._convert, self.settings.keep_original)

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

    def _believe(self, jobs: list[Job], stored: Mapping[str, Stored]) -> None:
        """Record what files without a published digest are, for later pulls to be held against."""
        for job in jobs:
            file, source = stored[job.file.role], job.file.source[0]
            if file.digest_from == "card":
                continue
            if self.settings.accept_change:
                trust.forget(source)
            size = file.original.size if file.original else file.size
            trust.record(source, file.downloaded_sha256, size, file.revision)

    def _written(self, stored: Mapping[str, Stored]) -> Manifest | None:
        """The manifest, on disk; None where a file is gone by now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        files = tuple(stored[file.role] for file in self.variant.files)
        manifest = Manifest(self.card.method, self.variant.name, now, __version__, files)
        with store_lock():
            if not all(is_there(file) for file in files):
                return None
            write_manifest(manifest)
        return manifest


def _drop_converted(obtained: Iterable[Obtained], manifest: Manifest) -> None:
    """Remove parts whose content lies converted in its place by now."""
    kept = {path for file in manifest.files for path in file.paths}
    for got in obtained:
        if got.place == "part" and got.path not in kept:
            discard(got.path)
