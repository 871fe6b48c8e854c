"""How long a verified `zoo pull` takes against `hf_hub_download`, which verifies nothing, and what one costs
that has nothing to do.

A hub with one large file runs in a process of its own on this machine (tests/servers/hub.py). Each round
downloads the file twice, into empty folders: by `huggingface_hub.hf_hub_download` over plain HTTP in a fresh
interpreter, and by the command `zoo pull`, which checks sha256 and puts the file on the disk for good. Then
both are run again with everything there. Figures are medians of the rounds: seconds of the wall clock for
downloads, CPU seconds (user + system) of the process for repeated calls.

    python benchmarks/pull.py
    python benchmarks/pull.py --megabytes 200 --rounds 3 --json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

DOWNLOAD_GOAL = 1.2  #: wall time of `zoo pull` over that of `hf_hub_download`
CACHED_GOAL = 0.5  #: CPU time of a repeated `zoo pull` over that of a cached `hf download`

REPOSITORY, NAME = "bench/files", "large.safetensors"

HF_HUB_DOWNLOAD = f"from huggingface_hub import hf_hub_download; hf_hub_download('{REPOSITORY}', '{NAME}')"
HF = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"
ZOO = "import sys; from zoo_cli.main import main; sys.exit(main())"

CARD = """
schema = 1
method = "bench"
title = "Bench"
summary = "One large file"
tasks = ["unconditional"]
default = "hub"
[variant.hub]
summary = "one large file"
architecture = "tarflow"
config = {{}}
[[variant.hub.files]]
role = "model"
source = ["{source}"]
sha256 = "{sha256}"
size = {size}
"""


@dataclass(frozen=True)
class Run:
    """What one process took, in seconds."""

    wall: float
    cpu: float


@dataclass
class Bench:
    """The folders and variables of a measurement."""

    folder: Path
    endpoint: str

    def environment(self) -> dict[str, str]:
        """A user with empty caches, whose hub is ours."""
        roots = [ROOT, ROOT / "cli", ROOT / "plugins"]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(str(root) for root in roots),
            "PYTHONDONTWRITEBYTECODE": "",
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "ZOO_HOME": str(self.folder / "zoo"),
            "ZOO_CARDS": str(self.folder / "cards"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }

    def run(self, code: str, *arguments: str) -> Run:
        """Run code in a fresh interpreter."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def empty(self) -> None:
        """Forget what was downloaded, and let the disk come to rest."""
        for name in ("hf", "zoo"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        os.sync()


def write_file(path: Path, megabytes: int) -> tuple[str, int]:
    """A valid safetensors file of one tensor with bytes that no compression shortens: sha256 and size."""
    length = megabytes * 1_000_000
    entry = {"data": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}
    header = json.dumps(entry).encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in (len(header).to_bytes(8, "little"), header):
            digest.update(block)
            file.write(block)
        for _ in range(megabytes):
            block = os.urandom(1_000_000)
            digest.update(block)
            file.write(block)
    return digest.hexdigest(), 8 + len(header) + length


@contextlib.contextmanager
def hub(path: Path) -> Iterator[str]:
    """The endpoint of a hub that serves the file, in a process of its own."""
    command = [sys.executable, "-m", "servers.hub", "--repository", REPOSITORY, "--until-stdin-ends"]
    with subprocess.Popen(
        [*command, "--file", f"{NAME}={path}"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        process.stdout.readline()  # The file's address: from here on it is served.
        try:
            yield endpoint
        finally:
            process.communicate()


def measure(megabytes: int, rounds: int, cached_rounds: int) -> dict[str, Any]:
    """Every figure of the report."""
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as name:
        folder = Path(name)
        (folder / "cards").mkdir()
        sha256, size = write_file(folder / NAME, megabytes)
        card = CARD.format(source=f"hf://{REPOSITORY}/{NAME}", sha256=sha256, size=size)
        (folder / "cards" / "bench.toml").write_text(card, encoding="utf-8")
        with hub(folder / NAME) as endpoint:
            bench = Bench(folder, endpoint)
            runs: dict[str, list[Run]] = {"hf_hub_download": [], "zoo pull": []}
            for number in range(rounds + 1):
                for what, code, arguments in (
                    ("hf_hub_download", HF_HUB_DOWNLOAD, ()),
                    ("zoo pull", ZOO, ("pull", "bench:hub", "-q")),
                ):
                    bench.empty()
                    run = bench.run(code, *arguments)
                    if number:  # The first round compiles modules and fills the system's cache with the file.
                        runs[what].append(run)
            bench.empty()
            bench.run(ZOO, "pull", "bench:hub", "-q")
            cached: dict[str, list[Run]] = {"hf download": [], "zoo pull again": []}
            for _ in range(cached_rounds):
                cached["hf download"].append(bench.run(HF, "download", REPOSITORY, NAME, "--quiet"))
                cached["zoo pull again"].append(bench.run(ZOO, "pull", "bench:hub", "-q"))
    return report(megabytes, runs, cached)


def report(megabytes: int, runs: dict[str, list[Run]], cached: dict[str, list[Run]]) -> dict[str, Any]:
    """Medians and ratios."""
    rows = [
        {
            "command": name,
            "wall": statistics.median(run.wall for run in measured),
            "fastest": min(run.wall for run in measured),
            "cpu": statistics.median(run.cpu for run in measured),
        }
        for name, measured in (runs | cached).items()
    ]
    by_name = {row["command"]: row for row in rows}
    return {
        "megabytes": megabytes,
        "rounds": len(runs["zoo pull"]),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "rows": rows,
        "download_ratio": by_name["zoo pull"]["wall"] / by_name["hf_hub_download"]["wall"],
        "cached_ratio": by_name["zoo pull again"]["cpu"] / by_name["hf download"]["cpu"],
    }


def show(figures: dict[str, Any]) -> None:
    """The report for people."""
    print(f"{figures['megabytes']} MB, {figures['rounds']} rounds, {figures['machine']}\n")
    print(f"{'command':<18}{'wall s':>9}{'fastest':>9}{'CPU s':>9}")
    for row in figures["rows"]:
        print(f"{row['command']:<18}{row['wall']:>9.3f}{row['fastest']:>9.3f}{row['cpu']:>9.3f}")
    print(
        f"\nverified zoo pull / unverified hf_hub_download, wall: {figures['download_ratio']:.2f} "
        f"(goal at most {DOWNLOAD_GOAL})\n"
        f"repeated zoo pull / cached hf download, CPU: {figures['cached_ratio']:.2f} "
        f"(goal at most {CACHED_GOAL})"
    )


def main() -> int:
    """Measure and print; with --check, exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cached-rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    figures = measure(options.megabytes, options.rounds, options.cached_rounds)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    met = figures["download_ratio"] <= DOWNLOAD_GOAL and figures["cached_ratio"] <= CACHED_GOAL
    return 0 if met or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
