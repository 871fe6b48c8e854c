"""`zoo sample --prompts`: every sample of a prompt file, in a folder, going on where the last run ended.

What is printed and gets no file, such as a text where no --out is given, is drawn every time.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ExitCode, InvalidInput
from zoo.io.finished import MANIFEST, STAGING, FinishedSamples, claimed
from zoo.io.kinds import inline_text
from zoo.io.previews import Previews, preview_path
from zoo.io.prompt_files import PromptFile, parse_prompts, read_prompt_file
from zoo_cli.destination import Destination, destination
from zoo_cli.inline_texts import StreamedText, TextsInOrder, streams, text_progress
from zoo_cli.input_pictures import PictureFiles, single_paths
from zoo_cli.memory_report import tell_plan
from zoo_cli.prompt_jobs import Job, group_request, groups, memory_request, read_jobs, weights_identity
from zoo_cli.running import (
    Counted,
    load_model,
    show_warnings,
    uninterrupted,
    where,
)
from zoo_cli.sample_report import (
    class_name,
    decoding_entry,
    images_entry,
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
    from zoo.runtime.memory import MemoryNeed
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.reports import Decoding
    from zoo.session import Session
    from zoo_cli.output import Output

STANDARD_INPUT = "-"


def sample_prompts(session: Session, name: str, defaults: Request, out: Output, given: dict[str, Any]) -> int:
    """Draw what is not finished yet; `defaults` holds what a line leaves open. Returns the exit code."""
    file, pictures = _read(given["prompts_file"]), PictureFiles()
    images = single_paths(given["images"], "for all lines of a prompt file")
    jobs = read_jobs(session, name, file, defaults, given["distinct_seeds"], images, pictures)
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
    keeps = not all(target.printed for target in targets.values())
    with claimed(folder) if keeps else nullcontext():
        finished = FinishedSamples(folder) if keeps else None
        run = PromptRun(full_name, variant, folder, targets, out, defaults.seed, pictures, finished)
        run.choose(jobs, common)
        started = time.perf_counter()
        if run.pending:
            run.memory = tell_plan(session, name, run.memory_requests(defaults.batch_size), out, given)
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
    pictures: PictureFiles
    finished: FinishedSamples | None
    loaded: LoadedModel | None = None
    load_seconds: float = 0.0
    memory: MemoryNeed | None = None
    pending: list[tuple[Job, str]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    decodings: list[Decoding] = field(default_factory=list)
    interrupted: bool = False

    def choose(self, jobs: Sequence[Job], common: dict[str, Any]) -> None:
        """Find out which jobs are finished; the others become `pending`, with their digests."""
        digests = [job.digest({**common, "format": self._target(job).format}) for job in jobs]
        places = [None if self._target(job).printed else self.finished for job in jobs]
        claims: list[Entry | None] = [
            None if place is None else place.claim_exact(digest, job.line, job.index)
            for job, digest, place in zip(jobs, digests, places, strict=True)
        ]
        for job, digest, place, claim in zip(jobs, digests, places, claims, strict=True):
            entry = place.claim(digest) if claim is None and place is not None else claim
            if entry is None:
                self.pending.append((job, digest))
            else:
                self.skipped.append(self._entry(job, self.folder / entry.name, entry.facts.get("kind")))

    def memory_requests(self, batch_size: int | None) -> list[Request]:
        """Requests that take as much memory as those that draw what is pending."""
        return [memory_request(part, batch_size) for part in groups([job for job, _ in self.pending])]

    def draw(self, batch_size: int | None, preview_every: int | None, keep_previews: bool) -> None:
        """Draw what is pending, samples of equal settings together, and write each as soon as it is there."""
        assert self.loaded is not None
        digests = {(job.line, job.index): digest for job, digest in self.pending}
        parts = groups([job for job, _ in self.pending])
        self.loaded.expect(text for job, _ in self.pending for text in job.item.texts)
        order = [job for part in parts for job in part]
        previews = None
        if preview_every and self.finished is not None:
            previews = self._previews(order, preview_every, keep_previews)
        total = len(self.skipped) + len(order)
        streaming = streams(self.out, self._target(order[0]).printed, total)
        with text_progress(self.out, self.reference, total, 1, previews, streams=streaming) as progress:
            progress.finished(len(self.skipped))
            try:
                for part in parts:
                    # Made now: the pictures of all parts may be too many to hold.
                    request = group_request(part, batch_size, self.pictures)
                    self._draw_group(part, request, digests, progress, previews)
            finally:
                self._texts.close()
        if preview_every and (previews is None or not previews.written):
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
                self._keep(job, digests[job.line, job.index], artifact, progress)
                progress.finished(len(self.skipped) + len(self.outputs))
                keep_decodings(findings, self.decodings, self.out)

    def _previews(self, order: Sequence[Job], every: int, keep: bool) -> Previews:
        def place(index: int) -> Path:
            job = order[index - len(self.skipped)]
            return self._target(job).place_for(self._name(job))

        return Previews(every, keep, place, self.out.warning, scratch=self.folder / STAGING)

    def _keep(self, job: Job, digest: str, artifact: Artifact, progress: Counted) -> None:
        text = inline_text(artifact)
        if text is not None and self._target(job).printed:
            self.outputs.append(self._entry(job, None, artifact.kind, text))
            self._show(job, text, progress)
            return
        with uninterrupted():
            path = self._publish(job, digest, artifact)
            self.outputs.append(self._entry(job, path, artifact.kind, text))
        if self.out.mode != "json":
            print(path, flush=True)

    def _publish(self, job: Job, digest: str, artifact: Artifact) -> Path:
        """Write a sample into the folder, with its line in the manifest."""
        name, target = self._name(job), self._target(job)
        assert self.finished is not None
        # A process that was killed may have left one there.
        preview_path(target.place_for(name)).unlink(missing_ok=True)
        facts = {**self._condition(job), "kind": artifact.kind, "reference": self.reference}

        def write(path: Path) -> Path:
            return artifact.save(path, format=target.format, metadata=target.metadata)

        return self.finished.publish(name, write, digest, facts)

    def _show(self, job: Job, text: str, progress: Counted) -> None:
        if isinstance(progress, StreamedText):
            progress.complete(text)
        elif self.out.mode != "json":
            self._texts.finished((job.line, job.index), text)

    @cached_property
    def _texts(self) -> TextsInOrder:
        """The samples that are printed, in the order of the prompt file."""
        return TextsInOrder((job.line, job.index) for job, _ in self.pending if self._target(job).printed)

    def _target(self, job: Job) -> Destination:
        return self.targets[job.settings.makes]

    def _name(self, job: Job) -> str:
        what = item_condition(job.item, self.variant, [str(image.path) for image in job.pictures.values()])
        return self._target(job).name_for(f"line{job.line:05d}-{self.reference}", what, job.item.seed)

    def _entry(
        self, job: Job, path: Path | None, kind: str | None, text: str | None = None
    ) -> dict[str, Any]:
        said = {} if text is None else {"text": text}
        return {"path": None if path is None else str(path), "kind": kind, **said, **self._condition(job)}

    def _condition(self, job: Job) -> dict[str, Any]:
        item = job.item
        name = class_name(item.class_id, self.variant)
        images = {
            role: {"sha256": image.digest, "path": str(image.path)} for role, image in job.pictures.items()
        }
        return {
            "line": job.line,
            "index": job.index,
            "seed": item.seed,
            "prompt": item.prompt,
            "class": item.class_id if name is None else name,
            "negative": item.negative,
            "part_prompts": list(item.part_prompts),
            **images_entry(images),
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
        "memory": None if run.memory is None else run.memory.to_dict(),
        "prompts": source,
        "seed": run.seed,
        "manifest": None if run.finished is None else str(run.finished.path),
        "outputs": sorted(run.outputs, key=lambda entry: (entry["line"], entry["index"])),
        "skipped": run.skipped,
        "decoding": [decoding_entry(made) for made in run.decodings],
        "grid": None,
        "interrupted": run.interrupted,
    }
    out.note(_summary(run, source, seconds))
    out.result(document, lambda: None)
    if run.interrupted:
        again = "" if run.finished is None else "; the same command draws what is missing"
        out.warning(f"interrupted: {samples(left)} of {source} are left{again}")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _summary(run: PromptRun, source: str, seconds: float) -> str:
    there = f"{samples(len(run.skipped))} of {source} lay there already"
    if run.loaded is None:
        return f"{run.reference}: all {there}"
    made = f"{run.reference}: {samples(len(run.outputs))} in {seconds:.2f} s on {where(run.loaded)}"
    return f"{made}, seed {run.seed}; " + (there if run.skipped else f"from {source}")
