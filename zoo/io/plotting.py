"""Plots of measurements, for people to look at: PNG, SVG or PDF files, drawn with matplotlib."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InvalidInput, OutputExists, PluginError
from zoo.io.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

#: Told apart by people who see few colours too (Okabe and Ito, 2008), and by markers in print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

#: More numbers than this under one axis would run into each other.
_MOST_TICKS = 12


@dataclass(frozen=True)
class Line:
    """Points of one line of a plot, at least one: x and y, both positive."""

    label: str
    points: Sequence[tuple[float, float]]


def check_plot(path: str | PathLike[str], overwrite: bool = False) -> Path:
    """The path of a plot that can be drawn; called before the work of measuring.

    Raises `InvalidInput` for a suffix that is not in `SUFFIXES`, `PluginError` without matplotlib, and
    `OutputExists` for an existing file unless `overwrite`.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"{target} is not the name of a plot, expected one that ends in {', '.join(SUFFIXES)}",
            "Such as bench.png.",
        )
    if find_spec("matplotlib") is None:
        raise _no_matplotlib()
    if os.path.lexists(target) and not overwrite:
        raise OutputExists(f"{target} exists already", "Choose another name, or use --overwrite.")
    return target


def save_speed_plot(
    lines: Sequence[Line], title: str, path: str | PathLike[str], overwrite: bool = False
) -> Path:
    """Write a plot of samples per second over the batch size, both logarithmic, and return its path.

    At least one line.

    Raises what `check_plot` raises, and `OutputNotWritable`.
    """
    target = check_plot(path, overwrite)
    try:
        figure = _speed_figure(lines, title)
    except ImportError as error:
        raise _no_matplotlib() from error
    data = io.BytesIO()
    figure.savefig(data, format=target.suffix.lower().removeprefix("."))
    return write_file(target, data.getvalue(), overwrite)


def _no_matplotlib() -> PluginError:
    return PluginError(
        "a plot needs the package 'matplotlib', which is not installed", 'pip install "zoo[plot]"'
    )


def _speed_figure(lines: Sequence[Line], title: str) -> Figure:
    # Not pyplot, which keeps figures in a global list and may look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for index, line in enumerate(lines):
        x, y = zip(*sorted(line.points), strict=True)
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        axes.plot(x, y, label=line.label, color=colour, marker=marker, markersize=5, linewidth=1.5)
    axes.set_title(title)
    axes.set_xlabel("batch size (samples)")
    axes.set_ylabel("speed (samples per second)")
    _logarithmic(axes, sorted({x for line in lines for x, _ in line.points}))
    # Below the axes, where it hides no line.
    figure.legend(loc="outside lower center", ncols=min((len(lines) + 1) // 2, 3), frameon=False)
    return figure


def _logarithmic(axes: Axes, batches: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    # Numbers in full: a plot of one decade would else show a single power of ten.
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    if len(batches) <= _MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(batches))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_locator(NullLocator())
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
