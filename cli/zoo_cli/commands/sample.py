"""`zoo sample`: draw samples from a model and write them to files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.errors import ExitCode, InvalidInput
from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Count,
    Seed,
    batch_option,
    condition_options,
    device_options,
    load_model,
    negative_option,
    part_prompt_option,
    picture_of,
    sampler_options,
    sampling_progress,
    show_warnings,
    tell_memory,
    uninterrupted,
    where,
)
from zoo_cli.sample_report import (
    class_of,
    condition,
    decoding_entry,
    item_condition,
    keep_decodings,
    samples,
    tell_parts,
)

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact, Image
    from zoo.io.previews import Previews
    from zoo.io.request import Request
    from zoo.runtime.memory import MemoryNeed
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.reports import Decoding
    from zoo_cli.destination import Destination


@click.command("sample")
@reference_argument(required=False)
@condition_options
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
    same command gives the same pictures. Prints the path of each picture as soon as it is written.

    \b
    zoo sample --prompt "a red circle"
    zoo sample tarflow:shapes --class "blue ring" -n 4 --seed 7 -o rings/
    zoo sample --prompts prompts.txt -o pictures/
    """
    _check_together(given)
    # Imported here, so that --help stays quick.
    from zoo.io.request import Request

    request = Request(
        prompts=given["prompts"],
        classes=given["classes"],
        negatives=() if given["negative"] is None else given["negative"],
        part_prompts=given["part_prompts"],
        size=given["size"],
        num=given["num"],
        seed=given["seed"],
        steps=given["steps"],
        guidance=given["guidance"],
        sampler=given["sampler"],
        options=dict(given["options"]),
        batch_size=given["batch_size"],
    )
    return _sample(reference, request, out, given)


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


def _sample(reference: str | None, request: Request, out: Output, given: dict[str, Any]) -> int:
    from zoo.defaults import default_reference
    from zoo.session import Session

    text = any(map(bool, (request.prompts, request.negatives, given["prompts_file"])))
    session, name = Session(), reference or default_reference(text, bool(request.part_prompts))
    # A wrong name is told before torch is imported, which takes longer than everything else here.
    session.resolve(name)
    if given["prompts_file"]:
        from zoo_cli.prompt_run import sample_prompts

        return sample_prompts(session, name, request, out, given)

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
    loaded, load_seconds = load_model(session, name, out, given, request.sampler)
    need = tell_memory(loaded, request, out)
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
        with (
            sampling_progress(self.out, self.loaded.reference, total, size, previews) as progress,
            collecting() as findings,
        ):
            for artifact in self.loaded.sample(self.request, progress.on_step):
                self._keep(artifact)
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

    def _keep(self, artifact: Artifact) -> None:
        made = artifact.provenance
        assert made is not None
        path = None
        # A file that lies there is also counted.
        with uninterrupted():
            if self.singles:
                path = self.target.save(artifact, self.loaded.reference, condition(made), made.seed)
            if self.grid:
                self.images.append(picture_of(artifact))
            where_and_what = {"path": None if path is None else str(path), "kind": artifact.kind}
            parts = list(made.part_prompts)
            asked = {"prompt": made.prompt, "part_prompts": parts, "class": class_of(made)}
            self.outputs.append({**where_and_what, "seed": made.seed, **asked})
        if path is not None:
            self._tell(path)

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
        "sampler": loaded.sampler(run.request.sampler).name,
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "seconds": round(seconds, 3),
        "load_seconds": round(load_seconds, 3),
        "memory": {"peak": need.peak, "weights": need.weights, "working": need.working},
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
