"""How much CPU time commands take before they do their work, against two baselines in the same run.

`hf --help` (the command of huggingface_hub) is the baseline of commands without torch, `import torch` that
of `zoo sample`. Every round runs all commands one after the other, so that a change of the machine's speed
meets all of them. The figure is the median of the rounds, in CPU seconds (user + system) of a child process.
Up to the first sampling step both sides end without the interpreter's shutdown, which is long with torch.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 9 --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# What the console scripts of both packages do.
ZOO = "import sys; from zoo_cli.main import main; sys.exit(main())"
HF = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"

# Ends where the first sampling step would begin.
UNTIL_FIRST_STEP = """
import os, sys
from zoo_cli.main import main
import zoo.runtime.model
zoo.runtime.model.LoadedModel.draw = lambda *_, **__: os._exit(0)
main()
sys.exit("sampling did not begin")
"""

HELP_GOAL = 0.5  #: CPU time of a command over that of `hf --help`
SAMPLE_GOAL = 0.5  #: CPU seconds of `zoo sample` beyond `import torch`


@dataclass(frozen=True)
class Command:
    """A command to measure: `ratio_to` names its baseline, `beyond` what is subtracted from it."""

    name: str
    code: str
    arguments: tuple[str, ...] = ()
    ratio_to: str | None = None
    beyond: str | None = None


def commands(weights: str | None) -> list[Command]:
    sample: tuple[str, ...] = ("sample", "--prompt", "a red circle", "--overwrite", "-q")
    if weights:
        sample += ("--weights", str(Path(weights).resolve()))
    return [
        Command("hf --help", HF, ("--help",)),
        Command("zoo --help", ZOO, ("--help",), ratio_to="hf --help"),
        Command("zoo --version", ZOO, ("--version",), ratio_to="hf --help"),
        Command("zoo list --json", ZOO, ("list", "--json"), ratio_to="hf --help"),
        Command("zoo show tarflow", ZOO, ("show", "tarflow"), ratio_to="hf --help"),
        Command("import torch", "import torch"),
        Command("zoo sample", ZOO, sample, beyond="import torch"),
        Command("import torch, no shutdown", "import os, torch; os._exit(0)"),
        Command("zoo sample, to first step", UNTIL_FIRST_STEP, sample, beyond="import torch, no shutdown"),
    ]


def environment(folder: str) -> dict[str, str]:
    """That of the caller without settings that change what is measured: one thread, compiled modules kept."""
    left_out = ("ZOO_", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    roots = [str(ROOT / name) for name in (".", "cli", "plugins")]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(roots),
        "XDG_CONFIG_HOME": folder,
        "ZOO_HOME": folder,
        "HF_HOME": folder,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }


def cpu_seconds(command: Command, folder: str) -> float:
    """CPU time of one run; raises `SystemExit` with its output when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", command.code, *command.arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{command.name}: exit code {done.returncode}\n{done.stderr.strip()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(wanted: list[Command], rounds: int) -> dict[str, list[float]]:
    """CPU seconds by command, one for each round. A first round fills the caches and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, list[float]] = {command.name: [] for command in wanted}
        for number in range(rounds + 1):
            for command in wanted:
                seconds = cpu_seconds(command, folder)
                if number:
                    runs[command.name].append(seconds)
    return runs


def rows(wanted: list[Command], runs: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row for each command; `value` is the ratio or the difference that the goal speaks of.

    A difference is taken within each round before the median, so that slow rounds do not disturb it.
    """
    result = []
    for command in wanted:
        seconds = runs[command.name]
        row: dict[str, Any] = {
            "command": command.name,
            "cpu_seconds": statistics.median(seconds),
            "runs": seconds,
        }
        row |= {"measure": None, "value": None, "goal": None}
        if command.ratio_to:
            pairs = zip(seconds, runs[command.ratio_to], strict=True)
            value = statistics.median(mine / base for mine, base in pairs)
            row |= {"measure": f"times {command.ratio_to}", "value": value, "goal": HELP_GOAL}
        if command.beyond:
            pairs = zip(seconds, runs[command.beyond], strict=True)
            value = statistics.median(mine - base for mine, base in pairs)
            row |= {"measure": f"s beyond {command.beyond}", "value": value, "goal": SAMPLE_GOAL}
        result.append({**row, "met": None if row["goal"] is None else row["value"] <= row["goal"]})
    return result


def print_table(table: list[dict[str, Any]], rounds: int) -> None:
    print(
        f"CPU seconds, median of {rounds} rounds; Python {platform.python_version()}, {platform.machine()}\n"
    )
    print(f"{'command':<26} {'CPU s':>6}  {'figure':>6} {'':<36} goal    met")
    for row in table:
        start = f"{row['command']:<26} {row['cpu_seconds']:6.2f}"
        if row["goal"] is None:
            print(start)
        else:
            met = "yes" if row["met"] else "no"
            print(f"{start}  {row['value']:6.2f} {row['measure']:<36} <= {row['goal']}  {met}")


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU time that commands take to start.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, at least 5 (default 5)")
    parser.add_argument(
        "--weights", metavar="PATH", help="weights for zoo sample instead of the built-in ones"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not met")
    given = parser.parse_args()
    if given.rounds < 5:
        parser.error(f"--rounds is {given.rounds}, expected at least 5")
    wanted = commands(given.weights)
    table = rows(wanted, measure(wanted, given.rounds))
    if given.json:
        print(json.dumps({"rounds": given.rounds, "commands": table}, indent=2))
    else:
        print_table(table, given.rounds)
    return int(given.check and not all(row["met"] is not False for row in table))


if __name__ == "__main__":
    sys.exit(main())
