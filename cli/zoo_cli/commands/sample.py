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
    sampler_options,
    sampling_progress,
    show_warnings,
    uninterrupted,
    where,
)

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact, Image, Provenance
    from zoo.io.request import Request
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.reports import Decoding
    from zoo_cli.destination import Destination


@click.command("sample")
@reference_argument(required=False)
@condition_options
@click.option("-n", "--num", type=Count(), default=1, help="Samples of each prompt or class.")
@click.option("--seed", type=Seed(), default=0, help="Seed of the first sample (default 0), or 'random'.")
@sampler_options
@batch_option
@click.option(
    "-o", "--out", "place", metavar="PATH", help="A file for one picture (by its suffix), else a folder."
)
@click.option("--format", metavar="NAME", help="png, webp or jpeg.")
@click.option(
    "--grid", is_flag=True, help="Also write one contact sheet; with a file as --out, write only the sheet."
)
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
    """
    # Imported here, so that --help stays quick.
    from zoo.io.request import Request

    request = Request(
        prompts=given["prompts"],
        classes=given["classes"],
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


def _sample(reference: str | None, request: Request, out: Output, given: dict[str, Any]) -> int:
    from zoo.defaults import default_reference
    from zoo.session import Session

    session, name = Session(), reference or default_reference()
    # A wrong name is told before torch is imported, which takes longer than everything else here.
    session.resolve(name)

    from zoo.runtime.prepare import prepare
    from zoo_cli.destination import destination

    prepare(session, name, request)
    target = destination(
        given["place"],
        given["format"],
        pictures=request.total,
        grid=given["grid"],
        overwrite=given["overwrite"],
        metadata=not given["no_metadata"],
    )
    loaded, load_seconds = load_model(session, name, out, given, request.sampler)
    run = Run(loaded, request, target, out, grid=given["grid"])
    started = time.perf_counter()
    try:
        run.draw()
    except KeyboardInterrupt:
        run.interrupted = True
    run.write_sheet()
    seconds = time.perf_counter() - started
    show_warnings(session, out)
    return _report(run, seconds, load_seconds)


@dataclass
class Run:
    """One sampling run: what is written, and what was written so far."""

    loaded: LoadedModel
    request: Request
    target: Destination
    out: Output
    grid: bool
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
        with (
            sampling_progress(self.out, self.loaded.reference, total, size) as progress,
            collecting() as findings,
        ):
            for artifact in self.loaded.sample(self.request, progress.on_step):
                self._keep(artifact)
                progress.finished(len(self.outputs))
                self._tell_decodings(findings)

    def _tell_decodings(self, findings: list[object]) -> None:
        from zoo.runtime.reports import Decoding

        for finding in findings:
            if isinstance(finding, Decoding):
                self.decodings.append(finding)
                self.out.detail(_decoding_text(finding))
        findings.clear()

    def _keep(self, artifact: Artifact) -> None:
        made = artifact.provenance
        assert made is not None
        path = None
        # A file that lies there is also counted.
        with uninterrupted():
            if self.singles:
                path = self.target.save(artifact, self.loaded.reference, _what(made), made.seed)
            if self.grid:
                self.images.append(_image(artifact))
            entry = {"path": None if path is None else str(path), "kind": artifact.kind, "seed": made.seed}
            self.outputs.append({**entry, "prompt": made.prompt, "class": _class(made)})
        if path is not None:
            self._tell(path)

    def write_sheet(self) -> None:
        """Write the contact sheet of what is finished; a sample without a file of its own lies in it."""
        if not self.grid or not self.images:
            return
        from zoo.io.grid import grid

        made = [image.provenance for image in self.images]
        asked = {_what(p) for p in made if p is not None}
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


def _decoding_text(made: Decoding) -> str:
    graphs = ", CUDA graphs" if made.graphs else ""
    text = f"decoding: {made.decode}, {made.layout} {made.dtype} weights, {made.rows} rows{graphs}"
    if made.residual is None:
        return f"{text}, {made.passes} passes"
    gave_way = f", {made.gave_way} of {len(made.blocks)} blocks finished token by token"
    return (
        f"{text}, {made.passes} passes for {made.tokens} tokens, "
        f"error estimate {made.residual:.1e}{gave_way if made.gave_way else ''}"
    )


def _decoding_entry(made: Decoding) -> dict[str, Any]:
    from dataclasses import asdict

    totals = {"passes": made.passes, "tokens": made.tokens, "residual": made.residual}
    return {**asdict(made), **totals}


def _image(artifact: Artifact) -> Image:
    from zoo.io.artifacts import Image

    if not isinstance(artifact, Image):
        raise InvalidInput(
            f"a contact sheet holds images, and this sampler made: {artifact.kind}", "Leave out --grid."
        )
    return artifact


def _class(made: Provenance) -> str | int | None:
    return made.class_name if made.class_name is not None else made.class_id


def _what(made: Provenance) -> str | None:
    if made.prompt is not None:
        return made.prompt
    if made.class_name is not None:
        return made.class_name
    return None if made.class_id is None else f"class {made.class_id}"


def _report(run: Run, seconds: float, load_seconds: float) -> int:
    from zoo.runtime.devices import dtype_name

    loaded, made = run.loaded, len(run.outputs)
    document = {
        "reference": loaded.reference,
        "sampler": loaded.sampler(run.request.sampler).name,
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "seconds": round(seconds, 3),
        "load_seconds": round(load_seconds, 3),
        "outputs": run.outputs,
        "decoding": [_decoding_entry(made) for made in run.decodings],
        "grid": None if run.sheet is None else str(run.sheet),
        "interrupted": run.interrupted,
    }
    for line in _summary(run, seconds):
        run.out.note(line)
    run.out.result(document, lambda: None)
    if run.interrupted:
        run.out.warning(
            f"interrupted: {made} of {run.request.total} {_pictures(run.request.total)} were kept"
        )
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _summary(run: Run, seconds: float) -> Iterator[str]:
    made = len(run.outputs)
    seeds = f"seed {run.request.seed}" + (f" to {run.request.seed + made - 1}" if made > 1 else "")
    name, place = run.loaded.reference, where(run.loaded)
    yield f"{name}: {made} {_pictures(made)} in {seconds:.2f} s on {place}, {seeds}"


def _pictures(count: int) -> str:
    return "sample" if count == 1 else "samples"
