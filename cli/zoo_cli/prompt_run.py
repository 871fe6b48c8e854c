"""`zoo sample --prompts`: every sample of a prompt file, in a folder, going on where the last run ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ExitCode, InvalidInput
from zoo.io.finished import MANIFEST, STAGING, FinishedSamples, claimed
from zoo.io.previews import Previews, preview_path
from zoo.io.prompt_files import PromptFile, parse_prompts, read_prompt_file
from zoo_cli.destination import Destination, destination
from zoo_cli.prompt_jobs import Job, group_request, groups, read_jobs, weights_identity
from zoo_cli.running import (
    Counted,
    load_model,
    sampling_progress,
    show_warnings,
    tell_memory,
    uninterrupted,
    where,
)
from zoo_cli.sample_report import (
    class_name,
    decoding_entry,
    item_condition,
    keep_decodings,
    samples,
    tell_parts,
)

if TYPE_CHECKING:
    from zoo.cards import Variant
    from zoo.io.artifacts import Artifact
    from zoo.io.finished import Entry
    from zoo.io.request import Request
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.reports import Decoding
    from zoo.session import Session
    from zoo_cli.output import Output

STANDARD_INPUT = "-"


def sample_prompts(session: Session, name: str, defaults: Request, out: Output, given: dict[str, Any]) -> int:
    """Draw what is not finished yet; `defaults` holds what a line leaves open. Returns the exit code."""
    file = _read(given["prompts_file"])
    jobs = read_jobs(session, name, file, defaults, given["distinct_seeds"])
    targets = _targets(jobs, given)
    folder = next(iter(targets.values())).folder
    _check_not_the_manifest(given["prompts_file"], folder)
    card, variant = session.resolve(name)
    full_name = f"{card.method}:{variant.name}"
    common = {
        "reference": full_name,
        "weights": weights_identity(card, variant, given["weights"]),
        "metadata": not given["no_metadata"],
    }
    with claimed(folder):
        run = PromptRun(full_name, variant, folder, targets, out, defaults.seed)
        run.choose(jobs, common)
        started = time.perf_counter()
        if run.pending:
            run.loaded, run.load_seconds = load_model(
                session, name, out, given, run.pending[0][0].settings.sampler
            )
            started = time.perf_counter()
            try:
                run.draw(defaults.batch_size, given["preview_every"], given["keep_previews"])
            except KeyboardInterrupt:
                run.interrupted = True
        seconds = time.perf_counter() - started
    show_warnings(session, out)
    return _report(run, file.name, seconds)


def _read(source: str) -> PromptFile:
    if source == STANDARD_INPUT:
        return parse_prompts(sys.stdin.buffer.read(), "standard input")
    return read_prompt_file(Path(source).expanduser())


def _targets(jobs: Sequence[Job], given: dict[str, Any]) -> dict[type[Artifact], Destination]:
    """Where the samples go, by their class: lines with samplers of their own may make several kinds."""
    counts = Counter(job.settings.makes for job in jobs)
    return {
        makes: destination(
            given["place"],
            given["format"],
            pictures=count,
            makes=makes,
            metadata=not given["no_metadata"],
            folder_only=True,
        )
        for makes, count in counts.items()
    }


def _check_not_the_manifest(source: str, folder: Path) -> None:
    manifest = folder / MANIFEST
    if source != STANDARD_INPUT and manifest.exists() and manifest.samefile(Path(source).expanduser()):
        raise InvalidInput(
            f"{source} is the place of the folder's manifest", "Choose another folder with --out."
        )


@dataclass
class PromptRun:
    """What is to be drawn, and what was done so far."""

    reference: str
    variant: Variant
    folder: Path
    targets: Mapping[type[Artifact], Destination]
    out: Output
    seed: int
    loaded: LoadedModel | None = None
    load_seconds: float = 0.0
    pending: list[tuple[Job, str]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    decodings: list[Decoding] = field(default_factory=list)
    interrupted: bool = False

    def choose(self, jobs: Sequence[Job], common: dict[str, Any]) -> None:
        """Find out which jobs are finished; the others become `pending`, with their digests."""
        self.finished = FinishedSamples(self.folder)
        digests = [job.digest({**common, "format": self._target(job).format}) for job in jobs]
        claims: list[Entry | None] = [
            self.finished.claim_exact(digest, job.line, job.index)
            for job, digest in zip(jobs, digests, strict=True)
        ]
        for job, digest, claim in zip(jobs, digests, claims, strict=True):
            entry = claim or self.finished.claim(digest)
            if entry is None:
                self.pending.append((job, digest))
            else:
                kind = entry.facts.get("kind")
                self.skipped.append(self._entry(job, self.folder / entry.name, kind))

    def draw(self, batch_size: int | None, preview_every: int | None, keep_previews: bool) -> None:
        """Draw what is pending, samples of equal settings together, and write each as soon as it is there."""
        assert self.loaded is not None
        digests = {(job.line, job.index): digest for job, digest in self.pending}
        parts = groups([job for job, _ in self.pending])
        requests = [group_request(part, batch_size) for part in parts]
        for request in requests:
            self.loaded.plan(request)
        tell_memory(self.loaded, requests[0], self.out)
        self.loaded.expect(text for job, _ in self.pending for text in job.item.texts)
        order = [job for part in parts for job in part]
        previews = self._previews(order, preview_every, keep_previews) if preview_every else None
        total = len(self.skipped) + len(order)
        with sampling_progress(self.out, self.reference, total, 1, previews) as progress:
            progress.finished(len(self.skipped))
            for part, request in zip(parts, requests, strict=True):
                self._draw_group(part, request, digests, progress, previews)
        if previews is not None and not previews.written:
            self.out.warning("there were no previews: the sampler had no estimate to show in between")

    def _draw_group(
        self,
        part: Sequence[Job],
        request: Request,
        digests: dict[tuple[int, int], str],
        progress: Counted,
        previews: Previews | None,
    ) -> None:
        from zoo.runtime.reports import collecting

        assert self.loaded is not None
        size = self.loaded.batch_size(request)
        self.out.detail(
            f"drawing {len(part)} of {self.reference} with sampler {request.sampler} in batches of {size}"
        )
        tell_parts([job.item for job in part], self.out)
        progress.group(len(part), size)
        with collecting() as findings:
            for job, artifact in zip(part, self.loaded.sample(request, progress.on_step), strict=True):
                if previews is not None:
                    previews.finished(len(self.skipped) + len(self.outputs))
                self._keep(job, digests[job.line, job.index], artifact)
                progress.finished(len(self.skipped) + len(self.outputs))
                keep_decodings(findings, self.decodings, self.out)

    def _previews(self, order: Sequence[Job], every: int, keep: bool) -> Previews:
        def place(index: int) -> Path:
            job = order[index - len(self.skipped)]
            return self._target(job).place_for(self._name(job))

        return Previews(every, keep, place, self.out.warning, scratch=self.folder / STAGING)

    def _keep(self, job: Job, digest: str, artifact: Artifact) -> None:
        name, target = self._name(job), self._target(job)
        # A process that was killed may have left one there.
        preview_path(target.place_for(name)).unlink(missing_ok=True)
        facts = {**self._condition(job), "kind": artifact.kind, "reference": self.reference}

        def write(path: Path) -> Path:
            return artifact.save(path, format=target.format, metadata=target.metadata)

        with uninterrupted():
            path = self.finished.publish(name, write, digest, facts)
            self.outputs.append(self._entry(job, path, artifact.kind))
        if self.out.mode != "json":
            print(path, flush=True)

    def _target(self, job: Job) -> Destination:
        return self.targets[job.settings.makes]

    def _name(self, job: Job) -> str:
        what = item_condition(job.item, self.variant)
        return self._target(job).name_for(f"line{job.line:05d}-{self.reference}", what, job.item.seed)

    def _entry(self, job: Job, path: Path, kind: str | None) -> dict[str, Any]:
        return {"path": str(path), "kind": kind, **self._condition(job)}

    def _condition(self, job: Job) -> dict[str, Any]:
        item = job.item
        name = class_name(item.class_id, self.variant)
        return {
            "line": job.line,
            "index": job.index,
            "seed": item.seed,
            "prompt": item.prompt,
            "class": item.class_id if name is None else name,
            "negative": item.negative,
            "part_prompts": list(item.part_prompts),
            "sampler": job.settings.sampler,
        }


def _report(run: PromptRun, source: str, seconds: float) -> int:
    from zoo.runtime.devices import dtype_name

    loaded, out = run.loaded, run.out
    left = len(run.pending) - len(run.outputs)
    names = {entry["sampler"] for entry in [*run.outputs, *run.skipped]}
    document = {
        "reference": run.reference,
        "sampler": names.pop() if len(names) == 1 else None,
        "device": None if loaded is None else str(loaded.device),
        "dtype": None if loaded is None else dtype_name(loaded.dtype),
        "seconds": round(seconds, 3),
        "load_seconds": round(run.load_seconds, 3),
        "prompts": source,
        "seed": run.seed,
        "manifest": str(run.finished.path),
        "outputs": sorted(run.outputs, key=lambda entry: (entry["line"], entry["index"])),
        "skipped": run.skipped,
        "decoding": [decoding_entry(made) for made in run.decodings],
        "grid": None,
        "interrupted": run.interrupted,
    }
    out.note(_summary(run, source, seconds))
    out.result(document, lambda: None)
    if run.interrupted:
        out.warning(
            f"interrupted: {samples(left)} of {source} are left; the same command draws what is missing"
        )
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _summary(run: PromptRun, source: str, seconds: float) -> str:
    there = f"{samples(len(run.skipped))} of {source} lay there already"
    if run.loaded is None:
        return f"{run.reference}: all {there}"
    made = f"{run.reference}: {samples(len(run.outputs))} in {seconds:.2f} s on {where(run.loaded)}"
    return f"{made}, seed {run.seed}; " + (there if run.skipped else f"from {source}")
