"""`zoo bench`: measure loading, sampling speed and memory on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Count,
    condition_options,
    device_options,
    load_model,
    sampler_options,
    show_warnings,
    where,
)

if TYPE_CHECKING:
    from zoo.runtime.benchmark import BatchTiming


class Sizes(click.ParamType):  # type: ignore[type-arg]
    """Batch sizes with commas between them."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
            self.fail(f"'{value}' is not a list of batch sizes such as 1,4,16.", param, ctx)
        return tuple(int(part) for part in parts)


@click.command("bench")
@reference_argument()
@click.option("--batches", type=Sizes(), default="1,4,16", help="Batch sizes to measure (default 1,4,16).")
@click.option(
    "--repeat", type=Count(), default=3, help="Runs whose median counts (default 3), after a warm-up."
)
@condition_options
@sampler_options
@device_options
@output_options
def command(reference: str, out: Output, **given: Any) -> None:
    """Measure loading, sampling speed and memory.

    Every batch size runs once to warm up and then --repeat times; medians are shown. Memory is the process's
    largest resident size, or what was allocated on the CUDA device.

    \b
    zoo bench tarflow:shapes --batches 1,8,64 --json
    """
    from zoo.io.request import Request
    from zoo.session import Session

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

    from zoo.runtime.benchmark import measure_batches, peak_memory
    from zoo.runtime.devices import dtype_name
    from zoo.runtime.prepare import prepare

    prepare(session, reference, request)
    loaded, load_seconds = load_model(session, reference, out, given, given["sampler"])
    timings = []
    with out.progress(f"bench {loaded.reference}", total=len(given["batches"])) as move:
        for timing in measure_batches(loaded, request, given["batches"], given["repeat"]):
            timings.append(timing)
            move(len(timings))
    show_warnings(session, out)
    document = {
        "reference": loaded.reference,
        "sampler": loaded.sampler(request.sampler).name,
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "repeat": given["repeat"],
        "load_seconds": load_seconds,
        "peak_memory": peak_memory(loaded.device),
        "batches": [_entry(timing) for timing in timings],
    }
    heading = f"{loaded.reference} on {where(loaded)}"
    out.result(document, lambda: _print(heading, document, timings, out), _quiet(timings))


def _entry(timing: BatchTiming) -> dict[str, Any]:
    return {
        "batch_size": timing.batch_size,
        "threads": timing.threads,
        "seconds": timing.seconds,
        "seconds_per_sample": timing.seconds_per_sample,
        "samples_per_second": timing.samples_per_second,
        "tokens_per_second": timing.tokens_per_second,
        "runs": list(timing.runs),
    }


def _quiet(timings: list[BatchTiming]) -> list[object]:
    return [timing.seconds_per_sample for timing in timings if timing.seconds is not None]


def _print(heading: str, document: dict[str, Any], timings: list[BatchTiming], out: Output) -> None:
    from zoo.quantities import human_bytes

    out.line(heading)
    out.line(f"load {document['load_seconds']:.3f} s, peak memory {human_bytes(document['peak_memory'])}")
    tokens = any(timing.tokens is not None for timing in timings)
    columns = ("batch>", "threads>", "seconds>", "seconds per sample>", "samples per second>")
    out.table(
        columns + (("tokens per second>",) if tokens else ()),
        [_cells(timing, tokens) for timing in timings],
    )


def _cells(timing: BatchTiming, tokens: bool) -> list[str]:
    cells = [
        str(timing.batch_size),
        str(timing.threads),
        "does not fit" if timing.seconds is None else f"{timing.seconds:.3f}",
        _number(timing.seconds_per_sample, 4),
        _number(timing.samples_per_second, 2),
    ]
    return [*cells, _number(timing.tokens_per_second, 0)] if tokens else cells


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
