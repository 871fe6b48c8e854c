"""How near is the estimate of memory to what a run takes? The 64-pixel model of MDM at full size.

    python benchmarks/mdm_memory.py --tokenizer t5.vocab [--steps 2] [--check]

Makes random files of the sizes of Apple's flickr64 and of flan-t5-xl (7 GB, removed at the end), runs `zoo
sample` on them in a process of its own, and compares what it said beforehand with the most memory that the
process held. The tokenizer's table is not part of this project: any file that `zoo_mdm.pieces` reads will do,
such as the tokenizer.json of flan-t5-xl. With --check, exits 1 where they differ by more than a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.runtime.loading import build_meta
from zoo.session import Session

REFERENCE = "mdm:flickr64"
#: Largest difference of estimate and measured peak, as a share of the peak.
LIMIT = 0.25


def random_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Values small enough that no activation overflows, for every tensor of a module."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.empty(tensor.shape).uniform_(-0.02, 0.02, generator=generator)
        for name, tensor in module.state_dict().items()
    }


def save_in_two(tensors: Mapping[str, Tensor], folder: Path, role: str) -> None:
    """Two files, as large models are published."""
    names = sorted(tensors)
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        save_file({name: tensors[name] for name in part}, folder / f"{role}-{number}.safetensors")


def make_files(folder: Path, tokenizer: Path) -> None:
    session = Session()
    card, variant = session.resolve(REFERENCE)
    model = build_meta(session.architecture(card, variant), variant.config)
    save_file(random_tensors(model), folder / "model.safetensors")
    component = variant.components["text_encoder"]
    encoder = build_meta(session.component(card, variant, "text_encoder"), component.config)
    save_in_two(random_tensors(encoder), folder, "text_encoder")
    shutil.copy(tokenizer, folder / f"tokenizer{tokenizer.suffix}")


def run(folder: Path, steps: int) -> tuple[dict[str, int], int, float]:
    """(what the run said of its memory, the most that it held in bytes, seconds)."""
    command = [sys.executable, "-m", "zoo_cli", "sample", REFERENCE, "--prompt", "a red panda in the snow"]
    command += ["--steps", str(steps), "--weights", str(folder), "-o", str(folder / "picture.png"), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"ZOO_DEBUG": "1"})
    seconds = time.perf_counter() - started
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale
    return json.loads(done.stdout)["memory"], peak, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to make the files (default: the temporary folder)")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        make_files(Path(folder), given.tokenizer)
        said, peak, seconds = run(Path(folder), given.steps)
    off = said["peak"] / peak - 1.0
    print(f"{REFERENCE}, {given.steps} guided steps, one picture, {seconds:.0f} s")
    print(
        f"estimate {said['peak'] / 1e9:.2f} GB, measured {peak / 1e9:.2f} GB: {off:+.1%} (limit {LIMIT:.0%})"
    )
    return int(given.check and abs(off) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
