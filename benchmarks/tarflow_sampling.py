"""TarFlow's sampler against a straightforward implementation of it, or against the authors' own code.

Both sides hold the same random weights and invert the same noise, in turn, in one process: A B A B after one
warm-up of each. A row shows the median seconds of each side, the median of the rounds' ratios (above 1 zoo is
faster) and the largest difference of the pictures from those of the float32 baseline. Rows in bfloat16 also
run the baseline under bfloat16 autocast: what that gains, and how far it is from float32. The baseline has
all of torch's CPU threads and zoo's sampler as many as zoo chooses; `--threads` fixes both.

Without a choice of cases the run covers those that have a floor (`--check` exits with 1 when one is missed).
`--grid` covers the default choices from 1 to 32 pictures: nowhere may they be slower than the baseline.
`large` has the layers of the published AFHQ model, 226 MB of float32 a block, on fewer tokens and blocks: the
price of a token in minutes instead of hours.

    python benchmarks/tarflow_sampling.py --check
    python benchmarks/tarflow_sampling.py --grid --check
    python benchmarks/tarflow_sampling.py --models small,medium --batches 1,4 --layouts rows,packed
    python benchmarks/tarflow_sampling.py --reference ../ml-tarflow --out FILE.md
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tarflow_contenders import SIZES, Model, ours, reference_module, under_autocast
from torch import Tensor

from zoo.runtime.reports import Decoding, collecting
from zoo.runtime.threads import cpu_threads, suitable_threads
from zoo_tarflow.sampler import TarFlowOptions

GRID_BLOCKS = {"small": 4, "medium": 2, "large": 1}
GRID_BATCHES = (1, 2, 4, 8, 16, 32)
#: Weights of blocks beyond 50 MB are bfloat16 by default on CPUs that have it.
GRID_DTYPES = {"small": ("float32",)}
LAYOUTS = ("auto", "rows", "transposed", "columns", "packed")


@dataclass(frozen=True)
class Floor:
    """The least that a case must reach; None is not asked for."""

    ratio: float
    difference: float | None = None  #: largest, of the pictures from the baseline's
    quotient: float | None = None  #: error in bfloat16 over that of the baseline under autocast


#: On a CPU, by whether guidance acts, and by number format.
SMALL_FLOORS = {True: Floor(1.5, difference=1e-4), False: Floor(1.1, difference=1e-4)}
LARGE_FLOORS = {"float32": Floor(2.1, difference=1e-4), "bfloat16": Floor(2.6, quotient=1.5)}
GRID_FLOOR = Floor(1.0)


@dataclass(frozen=True)
class Case:
    """What one row measures."""

    model: str
    blocks: int
    batch: int
    guidance: float
    dtype: str
    layout: str = "auto"


@dataclass(frozen=True)
class Setting:
    """What holds for all rows."""

    device: torch.device
    rounds: int
    threads: int | None  #: on both sides; None leaves the choice to torch and to zoo
    decode: str
    grid: bool
    seed: int = 0


@dataclass(frozen=True)
class Contender:
    """One side of the comparison, and the CPU threads it has."""

    threads: int
    run: Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One case, measured. Differences are the largest of any pixel from the float32 baseline."""

    case: Case
    layout: str  #: that the sampler took
    rows: int
    passes: int
    graphs: bool
    baseline_threads: int
    threads: int
    baseline_s: float
    ours_s: float
    ratio: float
    difference: float
    floor: Floor | None
    autocast_s: float | None = None
    autocast_ratio: float | None = None  #: seconds of the baseline under autocast over ours
    autocast_difference: float | None = None

    @property
    def quotient(self) -> float | None:
        """Our error in bfloat16 over the baseline's under autocast."""
        return self.difference / self.autocast_difference if self.autocast_difference else None

    @property
    def missed(self) -> list[str]:
        """Where the row falls short of what is asked of its case."""
        if self.floor is None:
            return []
        floor, found = self.floor, []
        if self.ratio < floor.ratio:
            found.append(f"ratio {self.ratio:.2f}, at least {floor.ratio}")
        if floor.difference is not None and self.difference > floor.difference:
            found.append(f"differs by {self.difference:.1e}, at most {floor.difference:.0e}")
        if floor.quotient is not None and (self.quotient is None or self.quotient > floor.quotient):
            found.append(f"error {number(self.quotient, '.2f')} times autocast's, at most {floor.quotient}")
        return found

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        return {**asdict(self), "quotient": self.quotient, "missed": self.missed}


# Measuring


def contenders(case: Case, model: Model, setting: Setting) -> dict[str, Contender]:
    """Everybody who runs for a row, by name, all on the same noise."""
    flow = model.flow(case.dtype)
    generator = torch.Generator().manual_seed(setting.seed)
    latents = torch.randn(case.batch, *flow.latent_shape, generator=generator).to(setting.device)
    labels = (torch.arange(case.batch) % flow.config.num_classes).to(setting.device)
    options = TarFlowOptions(guidance=case.guidance, decode=setting.decode, layout=case.layout)
    most = torch.get_num_threads()
    chosen = setting.threads or suitable_threads(flow, case.batch, setting.device)
    samplers = {"baseline": (most, model.baseline)}
    if case.dtype == "bfloat16":
        samplers["autocast"] = (most, under_autocast(model.baseline, setting.device))
    samplers["ours"] = (chosen, ours(flow))
    return {
        name: Contender(threads, partial(sampler, latents, labels, options))
        for name, (threads, sampler) in samplers.items()
    }


def warm_up(name: str, contender: Contender) -> Tensor:
    """Images of a first run, float32; ends the script where they are no fair ground for comparison."""
    with cpu_threads(contender.threads):
        images = contender.run().float()
    if not images.isfinite().all() or images.abs().max() > 1000.0:
        raise SystemExit(
            f"{name}: pictures overflow with these random weights, choose a smaller OUTPUT_SCALE"
        )
    return images


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(contender: Contender, device: torch.device) -> float:
    """Wall time of one run, from an idle device to an idle device."""
    with cpu_threads(contender.threads):
        synchronize(device)
        started = time.perf_counter()
        contender.run()
        synchronize(device)
        return time.perf_counter() - started


def measure(case: Case, model: Model, setting: Setting) -> Row:
    """Warm all contenders up, compare what they drew, then time them in turn."""
    sides = contenders(case, model, setting)
    with collecting() as findings:
        images = {name: warm_up(name, side) for name, side in sides.items()}
    (found,) = (finding for finding in findings if isinstance(finding, Decoding))
    runs: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(setting.rounds):
        for name, side in sides.items():
            runs[name].append(seconds(side, setting.device))
    away = {name: (picture - images["baseline"]).abs().max().item() for name, picture in images.items()}
    row = Row(
        case,
        found.layout,
        found.rows,
        found.passes,
        found.graphs,
        baseline_threads=sides["baseline"].threads,
        threads=sides["ours"].threads,
        baseline_s=statistics.median(runs["baseline"]),
        ours_s=statistics.median(runs["ours"]),
        ratio=ratio(runs["baseline"], runs["ours"]),
        difference=away["ours"],
        floor=floor(case, setting),
    )
    if "autocast" not in sides:
        return row
    return replace(
        row,
        autocast_s=statistics.median(runs["autocast"]),
        autocast_ratio=ratio(runs["autocast"], runs["ours"]),
        autocast_difference=away["autocast"],
    )


def ratio(theirs: list[float], mine: list[float]) -> float:
    """Median of the ratios within each round, so that a slow round disturbs one figure only."""
    return statistics.median(their / my for their, my in zip(theirs, mine, strict=True))


def floor(case: Case, setting: Setting) -> Floor | None:
    """What the case must reach against the float32 baseline; None where nothing is asked."""
    if setting.device.type != "cpu" or setting.decode != "sequential" or case.layout != "auto":
        return None
    if setting.grid:
        return GRID_FLOOR
    if case.model == "small" and case.dtype == "float32" and case.batch in (1, 8, 32):
        return SMALL_FLOORS[case.guidance > 0]
    if case.model == "large" and case.batch == 1 and case.guidance > 0:
        return LARGE_FLOORS[case.dtype]
    return None


def measure_all(cases: Iterable[Case], setting: Setting, reference: ModuleType | None) -> Iterator[Row]:
    """Rows as they are finished; one model is held at a time."""
    for (name, blocks), group in itertools.groupby(cases, lambda case: (case.model, case.blocks)):
        model = Model(name, blocks, setting.seed, setting.device, reference)
        for case in group:
            yield measure(case, model, setting)
        del model


# What is printed


def machine(device: torch.device) -> dict[str, Any]:
    """Facts without which the figures say little."""
    facts = {
        "cpu": f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": os.cpu_count(),
        "threads of torch": torch.get_num_threads(),
        "load average before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB",
            "driver": driver_version(),
            "cuda": torch.version.cuda,
            "float32 products": torch.get_float32_matmul_precision(),
        }
    return facts


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def driver_version() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[0].strip() or "unknown"


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


#: Title, width and content of each column.
COLUMNS: tuple[tuple[str, int, Callable[[Row], str]], ...] = (
    ("model", 6, lambda row: row.case.model),
    ("blocks", 6, lambda row: str(row.case.blocks)),
    ("batch", 5, lambda row: str(row.case.batch)),
    ("guidance", 8, lambda row: f"{row.case.guidance:g}"),
    ("weights", 8, lambda row: row.case.dtype),
    ("layout", 17, lambda row: row.layout + (", graphs" if row.graphs else "")),
    ("passes", 6, lambda row: str(row.passes)),
    ("threads", 7, lambda row: f"{row.baseline_threads} / {row.threads}"),
    ("baseline s", 10, lambda row: f"{row.baseline_s:.3f}"),
    ("ours s", 7, lambda row: f"{row.ours_s:.3f}"),
    ("ratio", 5, lambda row: f"{row.ratio:.2f}"),
    ("difference", 10, lambda row: f"{row.difference:.1e}"),
    ("autocast s", 10, lambda row: number(row.autocast_s, ".3f")),
    ("its ratio", 9, lambda row: number(row.autocast_ratio, ".2f")),
    ("its difference", 14, lambda row: number(row.autocast_difference, ".1e")),
    ("quotient", 8, lambda row: number(row.quotient, ".2f")),
    (
        "floor",
        10,
        lambda row: number(row.floor and row.floor.ratio, ".1f") + (" missed" if row.missed else ""),
    ),
)


def heading() -> list[str]:
    """The first two lines of the table, in Markdown."""
    titles = " | ".join(title.ljust(width) for title, width, _ in COLUMNS)
    return [f"| {titles} |", "|" + "|".join("-" * (width + 2) for _, width, _ in COLUMNS) + "|"]


def line(row: Row) -> str:
    """A row of the table, in Markdown."""
    return "| " + " | ".join(cell(row).ljust(width) for _, width, cell in COLUMNS) + " |"


def preamble(document: dict[str, Any]) -> list[str]:
    """What stands above the table."""
    facts = [f"- {name}: {value}" for name, value in document["machine"].items()]
    return [
        f"Measured on {document['date']} by `{document['command']}`.",
        "",
        f"Baseline: {document['baseline']}. Medians of {document['rounds']} rounds in turn.",
        "`ratio`: how many times as fast ours is as the float32 baseline; `its ratio`: as the baseline under",
        "bfloat16 autocast; `quotient`: our error in bfloat16 over that one's. Threads: baseline / ours.",
        "",
        *facts,
        "",
    ]


def command() -> str:
    """The command line without the folders of the machine."""
    names = {"--reference": "DIR", "--out": "FILE.md"}
    given = shlex.join(sys.argv[1:])
    shown = re.sub(r"(--reference|--out)[ =]('[^']*'|\S+)", lambda m: f"{m[1]} {names[m[1]]}", given)
    return f"python benchmarks/tarflow_sampling.py {shown}".strip()


def header(setting: Setting, reference: Path | None) -> dict[str, Any]:
    """Everything about a run but its rows."""
    baseline = "benchmarks/straightforward.py (list caches, two passes)"
    if reference is not None:
        digest = hashlib.sha256((reference / "transformer_flow.py").read_bytes()).hexdigest()
        baseline = f"the authors' transformer_flow.py, sha256 {digest[:16]}"
    return {
        "command": command(),
        "date": time.strftime("%Y-%m-%d"),
        "baseline": baseline,
        "rounds": setting.rounds,
        "machine": machine(setting.device),
    }


# The command line


def items(kind: Callable[[str], Any], allowed: Iterable[str] = ()) -> Callable[[str], list[Any]]:
    """A parser of `a,b,c`."""

    def parse(text: str) -> list[Any]:
        wrong = [item for item in text.split(",") if allowed and item not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return [kind(item) for item in text.split(",")]

    return parse


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", type=items(str, SIZES), help=f"of {', '.join(SIZES)}")
    add("--batches", type=items(int), help="pictures at once")
    add("--guidance", type=items(float), help="weights; 0 is off")
    add("--dtypes", type=items(str, ("float32", "bfloat16")), help="formats of our weights")
    add("--layouts", type=items(str, LAYOUTS), help=f"of our weights, of {', '.join(LAYOUTS)}")
    add("--blocks", type=int, help="at most so many blocks of each model")
    add("--decode", choices=("sequential", "jacobi"), default="sequential")
    add("--grid", action="store_true", help="default choices at batches 1 to 32 of small, medium and large")
    add("--rounds", type=int, help="rounds that count (default 5, with --grid 3)")
    add("--threads", type=int, help="CPU threads of both sides")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--reference", type=Path, metavar="DIR", help="checkout of the authors' code to be the baseline")
    add("--json", action="store_true", help="print one JSON document")
    add("--out", type=Path, metavar="FILE.md", help="write the table there as well")
    add("--check", action="store_true", help="exit with 1 when a floor is missed")
    return parser


def cases(given: argparse.Namespace) -> list[Case]:
    """The cases asked for; without any, those that have a floor."""
    chosen = (given.models, given.batches, given.guidance, given.dtypes, given.layouts)
    if given.grid:
        found = grid(given)
    elif any(chosen):
        defaults: tuple[Any, ...] = (("small",), (1, 8, 32), (1.0, 0.0), ("float32",), ("auto",))
        found = product(*(wanted or usual for wanted, usual in zip(chosen, defaults, strict=True)))
    else:
        found = product(("small",), (1, 8, 32), (1.0, 0.0), ("float32",), ("auto",))
        found += product(("large",), (1,), (1.0,), ("float32", "bfloat16"), ("auto",))
    return [replace(case, blocks=min(case.blocks, given.blocks or case.blocks)) for case in found]


def grid(given: argparse.Namespace) -> list[Case]:
    """Every batch size of every model, few blocks of each, in the number formats that may be its default."""
    found = []
    for model in given.models or GRID_BLOCKS:
        dtypes = given.dtypes or GRID_DTYPES.get(model, ("float32", "bfloat16"))
        batches, guidance = given.batches or GRID_BATCHES, given.guidance or (1.0, 0.0)
        blocks = GRID_BLOCKS.get(model, 1)
        found += [replace(c, blocks=blocks) for c in product((model,), batches, guidance, dtypes, ("auto",))]
    return found


def product(*choices: Iterable[Any]) -> list[Case]:
    """Cases of every combination of (models, batches, guidance, dtypes, layouts), with all blocks."""
    return [
        Case(model, SIZES[model].num_blocks, batch, guidance, dtype, layout)
        for model, batch, guidance, dtype, layout in itertools.product(*choices)
    ]


def settle(parser: argparse.ArgumentParser, given: argparse.Namespace, wanted: list[Case]) -> Setting:
    """What holds for all rows; a usage error where it cannot be had."""
    rounds = (3 if given.grid else 5) if given.rounds is None else given.rounds
    for name, value in (("--rounds", rounds), ("--threads", given.threads), ("--blocks", given.blocks)):
        if value is not None and value < 1:
            parser.error(f"{name} is {value}, expected at least 1")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if given.threads:
        torch.set_num_threads(given.threads)
    setting = Setting(torch.device(given.device), rounds, given.threads, given.decode, given.grid)
    if given.check and not any(floor(case, setting) for case in wanted):
        parser.error("--check: none of these cases has a floor")
    return setting


def report(given: argparse.Namespace, document: dict[str, Any], rows: Iterator[Row]) -> list[Row]:
    """Measure while the table grows, or before the document is printed; the rows."""
    show = (lambda _: None) if given.json else partial(print, flush=True)
    lines, measured = [*preamble(document), *heading()], []
    show("\n".join(lines))
    for row in rows:
        measured.append(row)
        lines.append(line(row))
        show(lines[-1])
    load = round(os.getloadavg()[0], 2)
    lines += ["", f"Load average after: {load}."]
    show("\n".join(lines[-2:]))
    if given.json:
        entries = [row.document() for row in measured]
        print(json.dumps({**document, "load average after": load, "rows": entries}, indent=2))
    if given.out:
        title = document["machine"].get("gpu", document["machine"]["cpu"])
        given.out.write_text("\n".join([f"# TarFlow's sampler on {title}", "", *lines, ""]), encoding="utf-8")
    return measured


def main() -> int:
    parser = arguments()
    given = parser.parse_args()
    wanted = cases(given)
    setting = settle(parser, given, wanted)
    reference = reference_module(given.reference) if given.reference else None
    document = header(setting, given.reference)
    rows = report(given, document, measure_all(wanted, setting, reference))
    for row in rows:
        for reason in row.missed:
            print(f"missed: {line(row)} {reason}", file=sys.stderr)
    return int(given.check and any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
