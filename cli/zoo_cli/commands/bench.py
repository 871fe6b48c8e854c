"""`zoo bench`: measure loading, sampling speed, memory, errors and the share of the roofline here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.bench_report import as_document, print_report, quiet_values
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Count,
    condition_options,
    device_options,
    load_model,
    sampler_options,
    show_warnings,
    whole_numbers,
)

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.io.plotting import Line
    from zoo.io.request import Request
    from zoo.runtime.benchmark import Report, Setup
    from zoo.session import Session

#: Runs of an entry where --repeat is not given, and the seconds that they may take together.
_REPEAT, _PATIENCE = 3, 10.0


class Sizes(click.ParamType):  # type: ignore[type-arg]
    """Batch sizes with commas between them."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sizes = whole_numbers(value)
        if sizes is None or not all(sizes):
            self.fail(f"'{value}' is not a list of batch sizes such as 1,4,16.", param, ctx)
        return sizes


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names with commas between them, each once."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        parts = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
        if not all(parts):
            self.fail(f"'{value}' is not a list of names with commas between them.", param, ctx)
        return parts


@click.command("bench")
@reference_argument()
@click.option("--batches", type=Sizes(), default="1,4,16", help="Batch sizes to measure (default 1,4,16).")
@click.option(
    "--repeat",
    type=Count(),
    help="Runs whose median counts, after a warm-up. By default 3, fewer where they would take longer than "
    "10 s together, at least 1.",
)
@click.option(
    "--dtypes",
    type=Names(),
    help="Number formats to measure; by default the model's, float32, and bfloat16 where the device computes "
    "in it.",
)
@click.option("--decode", type=Names(), help="Decode modes to measure; by default all that the sampler has.")
@click.option("--plot", metavar="FILE", help="Plot speed over batch size: .png, .svg or .pdf.")
@click.option("--overwrite", is_flag=True, help="Replace an existing plot.")
@condition_options
@sampler_options
@device_options
@output_options
def command(reference: str, out: Output, **given: Any) -> None:
    """Measure loading, sampling speed, memory and errors.

    Every dtype, decode mode and batch size runs once to warm up and then --repeat times; medians are shown.
    Memory is the process's largest resident size, or what was allocated on the CUDA device, with the first
    dtype.

    Errors are the largest difference of a pixel, in [0, 1], from the exact path with the same seeds: float32,
    decoded token by token, weights as they are stored. The roofline share compares with the time that the
    work takes at least on this machine, at the memory bandwidth and the matmul rate that are measured with
    it.

    \b
    zoo bench tarflow:shapes --batches 1,8,64 --json
    zoo bench tarflow:shapes --decode sequential --plot speed.png
    """
    from zoo.io.request import Request
    from zoo.session import Session

    _check_choices(given)
    session = Session()
    request = Request(
        prompts=given["prompts"],
        classes=given["classes"],
        size=given["size"],
        steps=given["steps"],
        guidance=given["guidance"],
        sampler=given["sampler"],
        options=dict(given["options"]),
    )
    session.resolve(reference)
    plot = None if given["plot"] is None else _plot_path(given["plot"], given["overwrite"])
    report = _measure(session, reference, _setup(session, reference, request, given), out, given)
    lines = [] if plot is None else _lines(report)
    document = {**as_document(report), "plot": str(plot) if lines else None}
    out.result(document, lambda: print_report(report, out), quiet_values(report))
    # After the figures: a disk that is full must not cost them.
    if plot is not None:
        _draw(report, lines, plot, given["overwrite"], out)


def _check_choices(given: dict[str, Any]) -> None:
    if given["dtype"] and given["dtypes"]:
        raise click.UsageError("--dtype chooses one number format and --dtypes several: give one of them.")
    if given["decode"] and any(name.strip() == "decode" for name, _ in given["options"]):
        raise click.UsageError("--decode and -O decode choose the same thing: give one of them.")


def _plot_path(text: str, overwrite: bool) -> Path:
    from zoo.errors import OutputNotWritable
    from zoo.io.plotting import check_plot
    from zoo_cli.destination import check_writable

    path = check_plot(text, overwrite)
    try:
        check_writable(path.parent)
    except OutputNotWritable as error:
        raise OutputNotWritable(error.message, "Choose another place with --plot.") from error
    return path


def _setup(session: Session, reference: str, request: Request, given: dict[str, Any]) -> Setup:
    from zoo.runtime.benchmark import Setup, decode_modes
    from zoo.runtime.devices import checked_dtype
    from zoo.runtime.prepare import prepare

    prepared = prepare(session, reference, request)
    dtypes = given["dtypes"] or ((given["dtype"],) if given["dtype"] else ())
    for name in dtypes:
        checked_dtype(name)
    return Setup(
        request=request,
        sizes=given["batches"],
        decodes=decode_modes(prepared, request, given["decode"] or ()),
        dtypes=dtypes,
        repeat=given["repeat"] or _REPEAT,
        patience=None if given["repeat"] else _PATIENCE,
    )


def _measure(session: Session, reference: str, setup: Setup, out: Output, given: dict[str, Any]) -> Report:
    from zoo.runtime.benchmark import bench

    def open_model(dtype: str | None) -> Any:
        return load_model(session, reference, out, {**given, "dtype": dtype}, given["sampler"])

    with out.progress(f"bench {reference}") as move:
        report = bench(open_model, setup, lambda done, total: move(done, total))
    show_warnings(session, out)
    out.warnings(report.notes)
    return report


def _lines(report: Report) -> list[Line]:
    """Samples per second over batch size, a line for each dtype and decode mode of which something fits."""
    from zoo.io.plotting import Line

    points: dict[str, list[tuple[float, float]]] = {}
    for timing in report.timings:
        if timing.samples_per_second is not None:
            label = f"{timing.dtype} {timing.decode}".strip()
            points.setdefault(label, []).append((timing.batch_size, timing.samples_per_second))
    return [Line(label, known) for label, known in points.items()]


def _draw(report: Report, lines: list[Line], path: Path, overwrite: bool, out: Output) -> None:
    from zoo.io.plotting import save_speed_plot

    if not lines:
        out.warning("nothing fits in memory: there is no plot")
        return
    save_speed_plot(lines, f"{report.reference} on {report.device}", path, overwrite)
    out.note(f"plot: {path}")
