"""What all exams of `zoo eval` share: where a contact sheet goes, and how figures are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zoo.errors import InvalidInput

if TYPE_CHECKING:
    from zoo.shapes.measurement import Measurement
    from zoo.shapes.scores import Share
    from zoo_cli.destination import Destination
    from zoo_cli.output import Output


def sheet_target(sheet: str, pictures: int, overwrite: bool) -> Destination:
    """Where a contact sheet of so many samples goes; raises `InvalidInput` for what names no picture."""
    from zoo_cli.destination import destination

    target = destination(sheet, None, pictures=pictures, grid=True, overwrite=overwrite)
    if target.file is None:
        raise InvalidInput(f"{sheet} is not the name of a picture", "Such as --grid sheet.png.")
    return target


def print_rows(rows: Iterable[tuple[str, str]], out: Output) -> None:
    """Names and what they stand for, in two columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        out.line(f"{name:<{width}}  {value}")


def group_rows(
    title: str, heads: tuple[str, ...], groups: Iterable[tuple[str, ...]]
) -> list[tuple[str, str]]:
    """A table as rows of `print_rows`: each group is a name and as many cells as there are heads."""
    cells = [(title, *heads), *((f"  {name}", *figures) for name, *figures in groups)]
    widths = [max(len(row[column]) for row in cells) for column in range(1, len(heads) + 1)]
    return [
        (name, "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        for name, *row in cells
    ]


def fact_rows(measured: Measurement, between: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """How a run was done: speed, then what is `between`, then sampler, device and seed."""
    options = ", ".join(f"{name}={value}" for name, value in measured.stated.items())
    return [
        ("seconds per sample", f"{measured.seconds_per_sample:.3f}"),
        *between,
        ("sampler", f"{measured.sampler}: {options}" if options else measured.sampler),
        ("run", f"{measured.device}, {measured.dtype}, seed {measured.seed}"),
    ]


def counted(share: Share) -> str:
    """A share in words: "75.0% (6 of 8)"."""
    return "none" if share.accuracy is None else f"{share.accuracy:.1%} ({share.correct} of {share.total})"
