"""What `zoo bench` measured, as a table for people and as a document for machines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.runtime.benchmark import BatchTiming, Report
    from zoo_cli.output import Output


def as_document(report: Report) -> dict[str, Any]:
    """JSON values of a report. Seconds, bytes, GB/s (10^9 bytes) and GFLOP/s; errors of pixels in [0, 1]."""
    return {
        "reference": report.reference,
        "sampler": report.sampler,
        "device": report.device,
        "dtype": report.dtype,
        "repeat": report.repeat,
        "load_seconds": report.loads[report.dtype],
        "loads": [{"dtype": dtype, "seconds": seconds} for dtype, seconds in report.loads.items()],
        "peak_memory": report.peak_memory,
        "machine": _machine(report),
        "batches": [_entry(timing) for timing in report.timings],
    }


def _machine(report: Report) -> dict[str, Any]:
    return {
        "bandwidth": [
            {"threads": b.threads, "buffer_bytes": b.buffer, "gb_per_second": b.bytes_per_second / 1e9}
            for b in report.machine.bandwidths
        ],
        "matmul": [
            {"threads": r.threads, "dtype": r.dtype, "gflop_per_second": r.flops_per_second / 1e9}
            for r in report.machine.rates
        ],
    }


def _entry(timing: BatchTiming) -> dict[str, Any]:
    depth, error = timing.depth, timing.error
    return {
        "dtype": timing.dtype,
        "decode": timing.decode,
        "batch_size": timing.batch_size,
        "threads": timing.threads,
        "seconds": timing.seconds,
        "seconds_per_sample": timing.seconds_per_sample,
        "samples_per_second": timing.samples_per_second,
        "tokens_per_second": timing.tokens_per_second,
        "runs": list(timing.runs),
        "computed_in": depth.dtype if depth else timing.dtype,
        "layout": depth.layout if depth else None,
        "passes": depth.passes if depth else None,
        "tokens_per_pass": depth.tokens_per_pass if depth else None,
        "residual": depth.residual if depth else None,
        "error": error.largest if error else None,
        "error_rms": error.rms if error else None,
        "roofline_share": timing.share,
    }


def quiet_values(report: Report) -> list[object]:
    """Seconds per sample of everything that fits."""
    return [timing.seconds_per_sample for timing in report.timings if timing.seconds is not None]


def print_report(report: Report, out: Output) -> None:
    """The table, below what holds for all of it."""
    from zoo.quantities import human_bytes

    threads = sorted({timing.threads for timing in report.timings})
    told = f", {_threads_words(threads[0])}" if len(threads) == 1 else ""
    out.line(f"{report.reference} on {report.device}, {report.dtype}{told}, sampler {report.sampler}")
    loads = [f"{seconds:.3f} s in {dtype}" for dtype, seconds in report.loads.items() if seconds is not None]
    out.line(f"load {', '.join(loads)}; peak memory {human_bytes(report.peak_memory)}")
    machine = _machine_words(report)
    if machine:
        out.line(f"measured here: {machine}")
    _print_table(report, out, _room())


def _print_table(report: Report, out: Output, room: int) -> None:
    filled = [column for column in _COLUMNS if any(column.cell(timing) for timing in report.timings)]
    if len({timing.threads for timing in report.timings}) == 1:
        filled = [column for column in filled if column.name != "threads>"]
    columns = _fitting(filled, report, room)
    out.table([c.name for c in columns], [[c.cell(timing) for c in columns] for timing in report.timings])
    left_out = [column.name.rstrip(">") for column in filled if column not in columns]
    if left_out:
        out.hint(f"A wider terminal has room for {' and '.join(left_out)}; --json tells all.")


def _room() -> int:
    """Columns of the terminal; a pipe has room for everything."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _fitting(columns: list[_Column], report: Report, room: int) -> list[_Column]:
    """The columns that fit side by side; first to go is what explains the speed or follows from others."""
    kept = list(columns)
    for name in ("layout", "tokens/s>", "passes>", "threads>"):
        widths = [max(len(c.name.rstrip(">")), *(len(c.cell(t)) for t in report.timings)) for c in kept]
        if sum(widths) + 2 * (len(widths) - 1) <= room:
            break
        kept = [column for column in kept if column.name != name]
    return kept


def _threads_words(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _machine_words(report: Report) -> str:
    machine = report.machine
    return "; ".join(
        ", ".join(
            [
                _threads_words(threads),
                *(_bandwidth_words(b) for b in machine.bandwidths if b.threads == threads),
                *(
                    f"{r.dtype} {_short(r.flops_per_second / 1e9)} GFLOP/s"
                    for r in machine.rates
                    if r.threads == threads
                ),
            ]
        )
        for threads in sorted({b.threads for b in machine.bandwidths})
    )


def _bandwidth_words(bandwidth: Any) -> str:
    from zoo.quantities import human_bytes

    size = human_bytes(bandwidth.buffer).replace(".0 ", " ")
    return f"{_short(bandwidth.bytes_per_second / 1e9)} GB/s in {size}"


@dataclass(frozen=True)
class _Column:
    """A column of the table, left out where every cell is empty; ">" aligns it right."""

    name: str
    cell: Callable[[BatchTiming], str]


_COLUMNS = (
    _Column("dtype", lambda timing: timing.dtype),
    _Column("decode", lambda timing: timing.decode),
    _Column("batch>", lambda timing: str(timing.batch_size)),
    _Column("threads>", lambda timing: str(timing.threads)),
    _Column("layout", lambda timing: timing.depth.layout if timing.depth else ""),
    _Column("passes>", lambda timing: _passes(timing)),
    _Column(
        "s/sample>",
        lambda timing: "does not fit" if timing.seconds is None else f"{timing.seconds_per_sample:.4f}",
    ),
    _Column("samples/s>", lambda timing: _short(timing.samples_per_second)),
    _Column("tokens/s>", lambda timing: _short(timing.tokens_per_second)),
    _Column("error>", lambda timing: _error(timing)),
    _Column("roofline>", lambda timing: _share(timing.share)),
)


def _passes(timing: BatchTiming) -> str:
    depth = timing.depth
    if depth is None:
        return ""
    fewer = depth.tokens_per_pass
    return str(depth.passes) if fewer == 1.0 else f"{depth.passes} ({fewer:.1f}x)"


def _short(value: float | None) -> str:
    """Three digits that count, and no exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _error(timing: BatchTiming) -> str:
    if timing.error is None:
        return ""
    return f"{timing.error.largest:.0e}" if timing.error.largest else "0"


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.1f}%"
