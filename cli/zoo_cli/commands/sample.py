"""`zoo sample`: draw samples from a model and write them to files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.errors import ExitCode, InvalidInput
from zoo.io.kinds import inline_text
from zoo_cli.arguments import reference_argument
from zoo_cli.inline_texts import StreamedText, print_text, streams, text_progress
from zoo_cli.memory_report import tell_plan
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Count,
    Seed,
    batch_option,
    condition_options,
    device_options,
    image_option,
    load_model,
    negative_option,
    part_prompt_option,
    picture_of,
    sampler_options,
    show_warnings,
    task_option,
    uninterrupted,
    where,
)
from zoo_cli.sample_report import (
    class_of,
    condition,
    decoding_entry,
    images_entry,
    item_condition,
    keep_decodings,
    samples,
    tell_parts,
)

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact, Image, Provenance
    from zoo.io.inputs import InputImage
    from zoo.io.previews import Previews
    from zoo.io.request import Request
    from zoo.runtime.memory import MemoryNeed
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.reports import Decoding
    from zoo.session import Session
    from zoo_cli.destination import Destination
    from zoo_cli.running import Counted


@click.command("sample")
@reference_argument(required=False)
@task_option
@condition_options
@image_option(
    "A picture to describe or to change; repeatable. ROLE=FILE for models that read several, each in a role."
)
@negative_option
@part_prompt_option
@click.option(
    "--prompts",
    "prompts_file",
    metavar="FILE",
    help="A prompt in each line, or JSON objects with settings of their own; - reads standard input. "
    "Repeated, the command draws only what is missing.",
)
@click.option(
    "--distinct-seeds",
    is_flag=True,
    help="With --prompts: count seeds on from line to line, rather than begin each line with --seed.",
)
@click.option("-n", "--num", type=Count(), default=1, help="Samples of each prompt or class.")
@click.option("--seed", type=Seed(), default=0, help="Seed of the first sample (default 0), or 'random'.")
@sampler_options
@batch_option
@click.option(
    "-o", "--out", "place", metavar="PATH", help="A file for one sample (by its suffix), else a folder."
)
@click.option("--format", metavar="NAME", help="png, webp or jpeg for pictures, else one of what is made.")
@click.option(
    "--grid", is_flag=True, help="Also write one contact sheet; with a picture as --out, only the sheet."
)
@click.option(
    "--preview-every",
    type=Count(),
    metavar="STEPS",
    help="Show how each picture comes along, in NAME.preview.png beside it. Never changes a picture.",
)
@click.option("--keep-previews", is_flag=True, help="Keep all previews, as NAME.preview-STEP.png.")
@click.option("--no-metadata", is_flag=True, help="Leave out of the files how they were made.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@device_options
@output_options
def command(reference: str | None, out: Output, **given: Any) -> int:
    """Draw samples from a model.

    REF is method[:variant], such as tarflow:shapes; without it, the configured model or the built-in one. The
    same command gives the same samples. Prints the path of each as soon as it is written. Texts are printed
    themselves, unless --out says where they go; a single one while it is made.

    \b
    zoo sample --prompt "a red circle"
    zoo sample tarflow:shapes --class "blue ring" -n 4 --seed 7 -o rings/
    zoo sample --prompts prompts.txt -o pictures/
    """
    _check_together(given)
    return _sample(reference, out, given)


def _check_together(given: dict[str, Any]) -> None:
    """Refuse options that do not go together."""
    single = {"prompts": "--prompt", "classes": "--class", "part_prompts": "--layer-prompt"}
    single |= {"grid": "--grid", "overwrite": "--overwrite"}
    wrong = next((option for name, option in single.items() if given[name]), None)
    if given["prompts_file"] and wrong:
        reason = {
            "--grid": "each sample gets a file of its own",
            "--overwrite": "finished samples are never replaced",
        }
        text = reason.get(wrong, "the file says what is drawn")
        raise click.UsageError(f"--prompts does not go with {wrong}: {text}.")
    if given["distinct_seeds"] and not given["prompts_file"]:
        raise click.UsageError("--distinct-seeds is for --prompts: other samples have distinct seeds anyway.")
    if given["keep_previews"] and not given["preview_every"]:
        raise click.UsageError("--keep-previews keeps what --preview-every makes: give it a number of steps.")


def _sample(reference: str | None, out: Output, given: dict[str, Any]) -> int:
    # Imported here, so that --help stays quick.
    from zoo.defaults import default_reference
    from zoo.session import Session

    text = any(map(bool, (given["prompts"], given["negative"] is not None, given["prompts_file"])))
    pictures = bool(given["task"] or given["images"])
    session, name = Session(), reference or default_reference(text, bool(given["part_prompts"]), pictures)
    # A wrong name is told before torch is imported, which takes longer than everything else here.
    session.resolve(name)
    if given["prompts_file"]:
        from zoo_cli.prompt_run import sample_prompts

        return sample_prompts(session, name, _request(given), out, given)

    from zoo_cli.input_pictures import read_images

    return _sample_request(session, name, _request(given, read_images(given["images"])), out, given)


def _request(given: dict[str, Any], images: Mapping[str, Sequence[InputImage]] | None = None) -> Request:
    """What the options ask for."""
    from zoo.io.request import Request

    return Request(
        prompts=given["prompts"],
        classes=given["classes"],
        negatives=() if given["negative"] is None else given["negative"],
        part_prompts=given["part_prompts"],
        images=images or {},
        size=given["size"],
        num=given["num"],
        seed=given["seed"],
        steps=given["steps"],
        guidance=given["guidance"],
        task=given["task"],
        sampler=given["sampler"],
        options=dict(given["options"]),
        batch_size=given["batch_size"],
    )


def _sample_request(session: Session, name: str, request: Request, out: Output, given: dict[str, Any]) -> int:
    from zoo.runtime.prepare import prepare
    from zoo_cli.destination import destination

    prepared = prepare(session, name, request)
    target = destination(
        given["place"],
        given["format"],
        pictures=request.total,
        makes=prepared.makes,
        grid=given["grid"],
        overwrite=given["overwrite"],
        metadata=not given["no_metadata"],
    )
    if given["preview_every"] and given["grid"] and target.file is not None:
        raise InvalidInput(
            f"previews lie beside single pictures, and only the sheet {target.file} was asked for",
            "Give a folder as --out, or leave out --preview-every.",
        )
    need = tell_plan(session, name, [request], out, given)
    loaded, load_seconds = load_model(session, name, out, given, prepared.sampler.name)
    run = Run(loaded, request, target, out, given["grid"], given["preview_every"], given["keep_previews"])
    started = time.perf_counter()
    try:
        run.draw()
    except KeyboardInterrupt:
        run.interrupted = True
    run.write_sheet()
    seconds = time.perf_counter() - started
    show_warnings(session, out)
    return _report(run, need, seconds, load_seconds)


@dataclass
class Run:
    """One sampling run: what is written, and what was written so far."""

    loaded: LoadedModel
    request: Request
    target: Destination
    out: Output
    grid: bool
    preview_every: int | None = None
    keep_previews: bool = False
    outputs: list[dict[str, Any]] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    decodings: list[Decoding] = field(default_factory=list)
    sheet: Path | None = None
    interrupted: bool = False

    @property
    def singles(self) -> bool:
        """Whether each picture gets a file of its own."""
        return not (self.grid and self.target.file is not None)

    def draw(self) -> None:
        """Draw every sample and write it as soon as its batch is finished."""
        from zoo.runtime.reports import collecting

        total, size = self.request.total, self.loaded.batch_size(self.request)
        threads = self.loaded.threads_for(size)
        self.out.detail(f"drawing {total} in batches of {size}; threads: {threads}")
        tell_parts(self.loaded.plan(self.request)[:: self.request.num], self.out)
        previews = self._previews(self.preview_every) if self.preview_every else None
        streaming = streams(self.out, self.target.printed, total)
        with (
            text_progress(
                self.out, self.loaded.reference, total, size, previews, streams=streaming
            ) as progress,
            collecting() as findings,
        ):
            for artifact in self.loaded.sample(self.request, progress.on_step):
                self._keep(artifact, progress)
                if previews is not None:
                    previews.finished(len(self.outputs) - 1)
                progress.finished(len(self.outputs))
                keep_decodings(findings, self.decodings, self.out)

        if previews is not None and not previews.written:
            self.out.warning("there were no previews: the sampler had no estimate to show in between")

    def _previews(self, every: int) -> Previews:
        from zoo.io.previews import Previews

        items, variant = self.loaded.plan(self.request), self.loaded.variant

        def place(index: int) -> Path:
            item = items[index]
            what = item_condition(item, variant)
            return self.target.place_for(self.target.name_for(self.loaded.reference, what, item.seed))

        return Previews(every, self.keep_previews, place, self.out.warning)

    def _keep(self, artifact: Artifact, progress: Counted) -> None:
        made = artifact.provenance
        assert made is not None
        path, text = None, inline_text(artifact)
        # A file that lies there is also counted.
        with uninterrupted():
            if self.singles and not self.target.printed:
                path = self.target.save(artifact, self.loaded.reference, condition(made), made.seed)
            if self.grid:
                self.images.append(picture_of(artifact))
            self.outputs.append(self._entry(artifact, made, path, text))
        if path is not None:
            self._tell(path)
        elif text is not None and self.target.printed:
            self._show(text, progress)

    def _entry(
        self, artifact: Artifact, made: Provenance, path: Path | None, text: str | None
    ) -> dict[str, Any]:
        """What --json tells of a sample."""
        where_and_what = {"path": None if path is None else str(path), "kind": artifact.kind}
        asked = {"prompt": made.prompt, "part_prompts": list(made.part_prompts), "class": class_of(made)}
        said = {} if text is None else {"text": text}
        return {**where_and_what, **said, "seed": made.seed, **asked, **images_entry(made.images)}

    def _show(self, text: str, progress: Counted) -> None:
        if isinstance(progress, StreamedText):
            progress.complete(text)
        elif self.out.mode != "json":
            print_text(text)

    def write_sheet(self) -> None:
        """Write the contact sheet of what is finished; a sample without a file of its own lies in it."""
        if not self.grid or not self.images:
            return
        from zoo.io.grid import grid

        made = [image.provenance for image in self.images]
        asked = {condition(p) for p in made if p is not None}
        what = asked.pop() if len(asked) == 1 else None
        sheet = self.target.save_grid(grid(self.images), self.loaded.reference, what, self.request.seed)
        self._tell(sheet)
        self.sheet = sheet
        for entry in self.outputs:
            if not self.target.printed:
                entry["path"] = entry["path"] or str(sheet)

    def _tell(self, path: Path) -> None:
        # Both modes print bare paths; at once, so that a pipe can work on the first while the second is
        # drawn.
        if self.out.mode != "json":
            print(path)
            sys.stdout.flush()


def _report(run: Run, need: MemoryNeed, seconds: float, load_seconds: float) -> int:
    from zoo.runtime.devices import dtype_name

    loaded, made = run.loaded, len(run.outputs)
    document = {
        "reference": loaded.reference,
        "sampler": loaded.sampler_of(run.request).name,
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "seconds": round(seconds, 3),
        "load_seconds": round(load_seconds, 3),
        "memory": need.to_dict(),
        "outputs": run.outputs,
        "decoding": [decoding_entry(made) for made in run.decodings],
        "grid": None if run.sheet is None else str(run.sheet),
        "interrupted": run.interrupted,
    }
    for line in _summary(run, seconds):
        run.out.note(line)
    run.out.result(document, lambda: None)
    if run.interrupted:
        run.out.warning(f"interrupted: {made} of {samples(run.request.total)} were kept")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _summary(run: Run, seconds: float) -> Iterator[str]:
    made = len(run.outputs)
    seeds = f"seed {run.request.seed}" + (f" to {run.request.seed + made - 1}" if made > 1 else "")
    name, place = run.loaded.reference, where(run.loaded)
    yield f"{name}: {samples(made)} in {seconds:.2f} s on {place}, {seeds}"
