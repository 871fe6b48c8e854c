"""Where more CPU threads pay: sampling time on one thread against all, by batch size.

Runs alternate between one thread and all within one process; a row is the median of `--rounds` ratios. The
constants in zoo/runtime/threads.py weigh them against such figures on a busy machine.

    python benchmarks/threads.py tarflow:shapes --batches 1 4 16 64
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from zoo.io.request import Request
from zoo.runtime import threads
from zoo.runtime.model import LoadedModel, load


def seconds(loaded: LoadedModel, batch_size: int, count: int) -> float:
    """Wall time of one batch on `count` threads."""
    torch.set_num_threads(count)
    started = time.perf_counter()
    for _ in loaded.sample(Request(num=batch_size, batch_size=batch_size)):
        pass
    return time.perf_counter() - started


def measure(loaded: LoadedModel, batch_size: int, most: int, rounds: int) -> dict[str, float]:
    """Median seconds on one thread and on `most`, and the median of their ratios."""
    # The rule under test must not choose for us.
    threads.SINGLE_THREAD_WORK = threads.TWO_THREAD_WORK = 0
    pairs = [(seconds(loaded, batch_size, 1), seconds(loaded, batch_size, most)) for _ in range(rounds + 1)]
    ones, alls = zip(*pairs[1:], strict=True)
    return {
        "batch_size": batch_size,
        "work": batch_size * sum(parameter.numel() for parameter in loaded.model.parameters()),
        "one_thread_s": statistics.median(ones),
        "all_threads_s": statistics.median(alls),
        "ratio": statistics.median(one / many for one, many in zip(ones, alls, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", nargs="?", default="tarflow:shapes")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    most, loaded = torch.get_num_threads(), load(options.reference, device="cpu")
    rows = [measure(loaded, batch_size, most, options.rounds) for batch_size in options.batches]
    if options.json:
        print(json.dumps({"reference": loaded.reference, "threads": most, "rows": rows}, indent=2))
        return
    print(f"{loaded.reference}: seconds on 1 and on {most} threads; above 1.0 more threads pay")
    for row in rows:
        print(
            f"batch {row['batch_size']:4d}  work {row['work'] / 1e6:8.1f} M  "
            f"{row['one_thread_s']:8.3f}  {row['all_threads_s']:8.3f}  ratio {row['ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
