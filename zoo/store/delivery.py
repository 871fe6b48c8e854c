"""Carrying out a pull: every missing file here, checked and in its place, and then the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cards import Card, File, Variant
from zoo.errors import ChecksumError, LicenceError, NetworkError, NotFound, WeightsError, ZooError
from zoo.store import trust
from zoo.store.download.parts import discard
from zoo.store.holdings import is_there
from zoo.store.layout import home
from zoo.store.locks import content_locks, store_lock
from zoo.store.manifest import Manifest, Stored, write_manifest
from zoo.store.obtaining import Obtained, obtain
from zoo.store.placing import place
from zoo.store.planning import Job, Planner, Settings
from zoo.store.progress import Silent, Watcher
from zoo.store.shards import is_sharded
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.session import Session

#: How often files that another process removes meanwhile are fetched anew.
MOST_REMOVALS = 5


class _Quietly(Silent):
    """A watcher of what is fetched before the files are planned: it hears of trouble alone."""

    def __init__(self, watcher: Watcher) -> None:
        self.said = watcher.said  # type: ignore[method-assign]


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
            jobs = self._jobs(stored)
            if attempt == 0:  # A watcher is told of its files once.
                self.watcher.planned([job.planned for job in jobs])
                for component, error in self.planner.absent.items():
                    self.watcher.said(self._left_out(component, error))
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

    def _left_out(self, component: str, error: ZooError) -> str:
        """What a pull without a component has to tell: which it is, what it is for, and why."""
        summary = ""
        with contextlib.suppress(ZooError):  # Such as for a plugin that is not here; nothing of it is needed.
            summary = self.session.component(self.card, self.variant, component).summary
        what = f"its {component} ({summary})" if summary else f"its {component}"
        return (
            f"{self.reference} is pulled without {what}: {error.message}. "
            f"All that does not ask for it works; zoo pull {self.reference} looks for it again"
        )

    def _jobs(self, stored: Mapping[str, Stored]) -> list[Job]:
        """What to fetch. Where the card names an index, it is fetched now: it tells of the other files."""
        jobs = self.planner.jobs(stored)
        indices = {}
        for job in jobs:
            if job.is_index:
                with content_locks([job.lock_name], self._tell_waiting):
                    got = self._obtain(job, _Quietly(self.watcher))
                if is_sharded(job.file, got.offer.source):  # Not so where a mirror has it all in one file.
                    indices[job.file.role] = got
        return self.planner.with_shards(jobs, indices) if indices else jobs

    def _tell_waiting(self) -> None:
        self.watcher.said(f"a file of {self.reference} is being pulled for another model; waiting for it")

    def _carry_out(self, jobs: list[Job], stored: dict[str, Stored]) -> Manifest | None:
        """Every job's file into its place, and the manifest; None where a file is gone by then."""
        with content_locks([job.lock_name for job in jobs], self._tell_waiting):
            obtained = [job.shards.index for job in jobs if job.shards]
            for job in jobs:
                obtained.append(self._obtain(job))
                self._store(job, obtained[-1], stored)
            self._believe(jobs, stored)
            manifest = self._written(stored)
            if manifest is not None:
                _drop_converted(obtained, manifest)
            return manifest

    def _obtain(self, job: Job, watcher: Watcher | None = None) -> Obtained:
        """The file from the first source that has it; later ones are mirrors."""
        watcher = watcher or self.watcher
        if job.in_store is not None and not job.in_store.is_file():
            self._ask_next(job)  # It was removed since it was planned, when nobody had to be asked.
        while True:
            try:
                return obtain(job.need, job.offer, self.settings.policy, watcher, self._fetch_by_plugin)
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

    def _store(self, job: Job, got: Obtained, stored: dict[str, Stored]) -> None:
        """The file into its place; one of several when all are here, and then all as one."""
        converted = job.file.format == "pytorch"
        self.watcher.working(job.file.role, "converting" if converted else "storing")
        if job.shards is None:
            stored[job.file.role] = place(job.file, got, self._convert, self.settings.keep_original)
            return
        job.shards.got[job.file.role] = got
        if job.shards.complete:
            with job.shards.whole() as whole:
                stored[job.shards.file.role] = place(job.shards.file, whole, self._convert, False)

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
            shards = job.shards
            if shards is not None:
                got = shards.got[job.file.role]
                self._record(job.file, got.sha256, got.size, got.offer.revision)
            whole = job.file if shards is None else shards.file
            file = stored[whole.role]
            if file.digest_from != "card":
                size = file.original.size if file.original else file.size
                self._record(whole, file.downloaded_sha256, size, file.revision)

    def _record(self, file: File, sha256: str, size: int, revision: str | None) -> None:
        if self.settings.accept_change:
            trust.forget(file.source[0])
        trust.record(file.source[0], sha256, size, revision)

    def _written(self, stored: Mapping[str, Stored]) -> Manifest | None:
        """The manifest, on disk; None where a file is gone by now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        roles = [file.role for file in self.variant.files]
        absent = self.planner.absent_roles
        files = tuple(stored[role] for role in roles if role not in absent or role in stored)
        missing = tuple(role for role in roles if role in absent and role not in stored)
        manifest = Manifest(self.card.method, self.variant.name, now, __version__, files, missing)
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
