"""How fast weights are read, and how much memory converting a checkpoint takes.

Reading: the same tensors as safetensors through zoo, and as a PyTorch checkpoint through
`torch.load(weights_only=True)`, with one byte of every page read afterwards. Every reading is a fresh process
that has imported what it needs; the files are in the page cache; both sides alternate. The figure is the
median time of torch.load over that of zoo.

Converting: the growth of the peak resident memory of a process that converts a checkpoint of random numbers,
over what it was with torch imported, divided by the size of the larger file. Pages of the mapped checkpoint
count as resident, although the system can take them back at any time; so do some 20 MiB of modules, which
only a checkpoint of hundreds of megabytes hides.

    python benchmarks/loading.py --check
    python benchmarks/loading.py --megabytes 256 --reference tarflow:mnist
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEBIBYTE = 2**20

RATIO_GOAL = 10.0  #: how many times faster than torch.load
MEMORY_GOAL = 1.2  #: growth of the peak memory over the size of the file

TOUCH = """
import json, sys, time
import torch
from pathlib import Path
path = Path(sys.argv[1])
{imports}
started = time.perf_counter()
tensors = {read}
total = sum(int(t.reshape(-1).view(torch.uint8)[::4096].sum()) for t in tensors.values())
print(json.dumps([time.perf_counter() - started, total]))
"""
ZOO = TOUCH.format(imports="from zoo.runtime.loading import read_tensors", read="read_tensors(path)")
TORCH = TOUCH.format(imports="", read="torch.load(path, weights_only=True)")

MAKE_PAIR = """
import sys
import torch
from safetensors.torch import save_file
folder, count = sys.argv[1], int(sys.argv[2])
tensors = {f"layers.{i}.weight": torch.rand(2048, 2048) for i in range(count)}
save_file(tensors, f"{folder}/pair.safetensors")
torch.save(tensors, f"{folder}/pair.pth")
"""

MAKE_CHECKPOINT = """
import sys
import torch
from zoo.registry import resolve
from zoo.runtime.loading import build_meta
from zoo.session import Session
reference, path, zipped = sys.argv[1], sys.argv[2], sys.argv[3] == "zip"
session = Session()
card, variant = session.resolve(reference)
module = build_meta(session.architecture(card, variant), variant.config)
tensors = {name: torch.rand(tensor.shape) for name, tensor in module.state_dict().items()}
name = next((file.converter for file in variant.files if file.converter), variant.converter)
converter = session.converter(name, reference)
tensors = resolve(converter.export, converter.owner)(tensors, variant.config)
torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
"""

CONVERT = """
import json, resource, sys
import torch
from pathlib import Path
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
from zoo.session import Session
from zoo.store.conversion import convert_file
reference, source, destination, dtype = sys.argv[1:]
done = convert_file(Session(), reference, Path(source), Path(destination), dtype or None)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps([before, after, Path(source).stat().st_size, done.size]))
"""


def child(code: str, *arguments: object) -> Any:
    """What a fresh process prints as JSON; raises `SystemExit` with its output when it fails."""
    roots = [str(ROOT / name) for name in (".", "cli", "plugins")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"exit code {done.returncode}\n{done.stderr.strip()}")
    return json.loads(done.stdout) if done.stdout else None


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as file:
        while file.read(16 * MEBIBYTE):
            pass


def measure_reading(folder: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    """Seconds of both sides, one for each round, and the ratio of their medians."""
    child(MAKE_PAIR, folder, max(1, megabytes // 16))
    ours, theirs = folder / "pair.safetensors", folder / "pair.pth"
    seconds: dict[str, list[float]] = {"zoo": [], "torch.load": []}
    for path in (ours, theirs):
        warm(path)
    for _ in range(rounds):
        mine, other = child(ZOO, ours), child(TORCH, theirs)
        if mine[1] != other[1]:
            raise SystemExit("both sides did not read the same numbers")
        seconds["zoo"].append(mine[0])
        seconds["torch.load"].append(other[0])
    size = ours.stat().st_size
    for path in (ours, theirs):
        path.unlink()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["torch.load"] / medians["zoo"]
    return {
        "bytes": size,
        "seconds": medians,
        "runs": seconds,
        "ratio": ratio,
        "goal": RATIO_GOAL,
        "met": ratio >= RATIO_GOAL,
    }


def measure_converting(folder: Path, reference: str) -> list[dict[str, Any]]:
    """One row for each way to convert: growth of the peak memory in bytes, and over the size."""
    rows = []
    for layout, dtypes in (("zip", ("", "bfloat16")), ("before torch 1.6", ("",))):
        source, destination = folder / "checkpoint.pth", folder / "converted.safetensors"
        child(MAKE_CHECKPOINT, reference, source, layout)
        for dtype in dtypes:
            before, after, read, written = child(CONVERT, reference, source, destination, dtype)
            destination.unlink()
            share = (after - before) / max(read, written)
            rows.append(
                {
                    "layout": layout,
                    "dtype": dtype or "kept",
                    "read": read,
                    "written": written,
                    "growth": after - before,
                    "share": share,
                    "goal": MEMORY_GOAL,
                    "met": share < MEMORY_GOAL,
                }
            )
        source.unlink()
    return rows


def print_report(reading: dict[str, Any], converting: list[dict[str, Any]], reference: str) -> None:
    runs = len(reading["runs"]["zoo"])
    print(f"Python {platform.python_version()}, {platform.machine()}; medians of {runs} fresh processes\n")
    print(f"reading {reading['bytes'] / MEBIBYTE:.0f} MiB, every page touched")
    for name, seconds in reading["seconds"].items():
        print(f"  {name:<12} {seconds:8.4f} s")
    print(f"  ratio        {reading['ratio']:8.1f}    goal >= {reading['goal']:.0f}: {_met(reading)}\n")
    print(f"converting a checkpoint of {reference}: growth of the peak memory")
    for row in converting:
        print(
            f"  {row['layout']:<16} dtype {row['dtype']:<8} {row['growth'] / MEBIBYTE:7.0f} MiB of "
            f"{row['read'] / MEBIBYTE:5.0f} MiB = {row['share']:.2f}    goal < {row['goal']}: {_met(row)}"
        )


def _met(row: dict[str, Any]) -> str:
    return "met" if row["met"] else "not met"


def main() -> int:
    parser = argparse.ArgumentParser(description="Time to read weights, and memory to convert them.")
    parser.add_argument("--megabytes", type=int, default=1024, help="MiB to read (default 1024)")
    parser.add_argument("--reference", default="tarflow:afhq256", help="whose checkpoint is converted")
    parser.add_argument(
        "--rounds", type=int, default=5, help="processes for each side, at least 3 (default 5)"
    )
    parser.add_argument(
        "--folder", metavar="PATH", help="where the files are made (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not met")
    given = parser.parse_args()
    if given.rounds < 3:
        parser.error(f"--rounds is {given.rounds}, expected at least 3")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        reading = measure_reading(Path(folder), given.megabytes, given.rounds)
        converting = measure_converting(Path(folder), given.reference)
    if given.json:
        print(json.dumps({"reading": reading, "converting": converting}, indent=2))
    else:
        print_report(reading, converting, given.reference)
    return int(given.check and not all(row["met"] for row in (reading, *converting)))


if __name__ == "__main__":
    sys.exit(main())
