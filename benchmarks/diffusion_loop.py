"""What a step of a diffusion loop costs beyond the network: zoo's samplers against pipelines of diffusers.

Both sides run the same small network from the same noise through the same times and must draw the same
pictures. A round times, in an order that changes from round to round, a whole sampling call of each side
(zoo: `LoadedModel.draw`, diffusers: a call of the pipeline, pictures as tensors, no progress bar) and the
network alone, called as often on a batch of the same size. Overhead per step is (whole call - network
alone) / steps within the round; figures are medians of the rounds. Times are CPU time of one thread, which
other programs disturb less than the clock on the wall, and the network is narrow: beside a wide one, the
overhead is smaller than what its own time differs by from call to call.

Pipelines: `DDIMPipeline` for plain DDIM; `DiTPipeline`, which asks for no text encoder, for guidance and for
DPM-Solver++ (its VAE is one that changes nothing). With guidance that pipeline carries a doubled state
through its scheduler, as it does for every user.

    python -m pip install diffusers
    python benchmarks/diffusion_loop.py
    python benchmarks/diffusion_loop.py --rounds 61 --steps 50 --json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.diffusion.levels import Level
from zoo.diffusion.schedules import linear_betas
from zoo.registry import Architecture
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import generator
from zoo.runtime.sampling import Batch, Item, Unwatched
from zoo.session import Session
from zoo_diffusion.options import DDIMOptions, DiffusionOptions, DPMOptions

try:
    import diffusers
except ImportError:
    sys.exit("diffusers is not installed, and is what zoo is compared with: python -m pip install diffusers")

GOAL = 0.7  #: zoo's overhead per step over that of diffusers
TABLE = 1000  #: noise levels that both schedules have
NO_CLASS = 1000  #: row of "no class" in the table of classes, as DiTPipeline has it
GUIDANCE = 4.0
AGREEMENT = 1e-3  #: how far pictures in [0, 1] of both sides may lie apart


class Network(nn.Module):
    """Three convolutions with time and class: offers `denoiser` to zoo, and fits pipelines of diffusers."""

    prediction = "epsilon"
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, side: int, width: int = 8) -> None:
        super().__init__()
        self.config = SimpleNamespace(sample_size=side, in_channels=3, out_channels=3)
        self.told = nn.Linear(1, width)
        self.classes = nn.Embedding(NO_CLASS + 1, width)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self._levels = (Level((3, side, side), linear_betas(TABLE)),)

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        """Close to its input, which keeps predicted pictures near their range. Times may be one for all."""
        shift = self.told(timestep.expand(len(x))[:, None].float() / TABLE)
        if class_labels is not None:
            shift = shift + self.classes(class_labels)
        hidden = silu(self.first(x) + shift[:, :, None, None])
        return SimpleNamespace(sample=x + 0.1 * self.last(silu(self.middle(hidden))))

    def levels(self, size: tuple[int, int] | None = None) -> tuple[Level, ...]:
        return self._levels

    def condition(self, batch: Batch, components: Mapping[str, nn.Module], guided: bool) -> Tensor | None:
        labels = batch.labels
        if labels is None:
            return None
        return torch.cat([torch.full_like(labels, NO_CLASS), labels]) if guided else labels

    def predict(self, x: tuple[Tensor, ...], time: Tensor, condition: Tensor | None) -> tuple[Tensor, ...]:
        return (self(x[0], time, condition).sample,)


class Unchanged(nn.Module):
    """A VAE whose latent space is that of pictures."""

    config = SimpleNamespace(scaling_factor=1.0)
    device = torch.device("cpu")
    dtype = torch.float32

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


@dataclass(frozen=True)
class Case:
    """What is compared. Without guidance and with `ddim` no class is told."""

    sampler: str
    guided: bool
    clip: bool
    count: int
    side: int

    @property
    def plain(self) -> bool:
        """Whether it is one for DDIMPipeline."""
        return self.sampler == "ddim" and not self.guided

    @property
    def labels(self) -> list[int]:
        return list(range(self.count))

    @property
    def name(self) -> str:
        guidance = "guidance" if self.guided else ""
        return " ".join(word for word in (self.sampler, guidance, "clip" if self.clip else "") if word)


def cases(counts: list[int], sides: list[int]) -> list[Case]:
    kinds = [
        ("ddim", False, True),
        ("ddim", False, False),
        ("ddim", True, False),
        ("dpm++", False, False),
        ("dpm++", True, False),
    ]
    return [Case(*kind, count, side) for kind in kinds for side in sides for count in counts]


def loaded(network: Network) -> LoadedModel:
    """The network as a user has it after `load`."""
    variant = {
        "summary": "a small network",
        "architecture": "small",
        "config": {},
        "sampler": {"name": "ddim"},
    }
    document = {
        "schema": 1,
        "method": "small",
        "title": "Small",
        "summary": "A small network",
        "tasks": ["unconditional"],
        "default": "only",
        "variant": {"only": variant},
    }
    card = parse_card(document)
    return LoadedModel(
        card=card,
        variant=card.variants["only"],
        architecture=Architecture("small", "small", Network, Network, offers=("denoiser",)),
        components={"model": network},
        device=network.device,
        dtype=network.dtype,
        weights="",
        session=Session(Catalogue(cards={"small": card})),
        threads=1,
    )


def zoo_side(case: Case, network: Network, steps: int) -> Callable[[], Tensor]:
    """A sampling call of zoo: pictures [n, 3, side, side] in [0, 1]."""
    model = loaded(network)
    classes = [None] * case.count if case.plain else case.labels
    batch = Batch(tuple(Item(index=i, seed=i, class_id=label) for i, label in enumerate(classes)))
    kind: type[DiffusionOptions] = DDIMOptions if case.sampler == "ddim" else DPMOptions
    options = kind(
        steps=steps,
        guidance=GUIDANCE if case.guided else 1.0,
        threshold="clip" if case.clip else "none",
        spacing="trailing",
    )

    def call() -> Tensor:
        images: list[Any] = model.draw(batch, options, batch.noise(), Unwatched(), case.sampler)
        return torch.stack([image.pixels for image in images])

    return call


def diffusers_side(case: Case, network: Network, steps: int) -> Callable[..., Tensor]:
    """A sampling call of diffusers from the same noise; takes more arguments of the pipeline."""
    table = {"num_train_timesteps": TABLE, "beta_start": 1e-4, "beta_end": 0.02}
    shared = {**table, "timestep_spacing": "trailing"}
    if case.sampler == "ddim":
        scheduler = diffusers.DDIMScheduler(**shared, clip_sample=case.clip)
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(**shared, final_sigmas_type="zero")
    if case.plain:
        pipeline = diffusers.DDIMPipeline(network, scheduler)
        given: dict[str, Any] = {"batch_size": case.count}
    else:
        pipeline = diffusers.DiTPipeline(network, Unchanged(), scheduler)
        given = {"class_labels": case.labels, "guidance_scale": GUIDANCE if case.guided else 1.0}
    pipeline.set_progress_bar_config(disable=True)

    def call(**more: Any) -> Tensor:
        seeds = [generator(seed, "start.level0") for seed in range(case.count)]
        run = pipeline(**given, generator=seeds, num_inference_steps=steps, output_type="pt", **more)
        return run.images

    return call


def network_alone(case: Case, network: Network, steps: int) -> Callable[[], None]:
    """The network on a batch of the same size, as often as a sampling call asks it."""
    rows = 2 * case.count if case.guided else case.count
    x, told = torch.randn(rows, 3, case.side, case.side), torch.full((rows,), 500)
    labels = None if case.plain else torch.arange(rows)

    def call() -> None:
        with torch.no_grad():
            for _ in range(steps):
                network(x, told, labels)

    return call


def check_agreement(case: Case, ours: Tensor, theirs: Tensor) -> None:
    """End the run where both sides do not draw the same pictures: then they do not do the same work."""
    apart = float((ours - theirs).abs().max())
    if not apart <= AGREEMENT or float(ours.std()) < 0.05:
        raise SystemExit(f"{case}: pictures lie {apart:.2g} apart, deviation {float(ours.std()):.2g}")


def measure(case: Case, steps: int, rounds: int) -> dict[str, Any]:
    """One row of the table; times are seconds of CPU time."""
    torch.manual_seed(0)
    network = Network(case.side).eval().requires_grad_(False)
    ours, theirs = zoo_side(case, network, steps), diffusers_side(case, network, steps)
    # By default DDIMPipeline keeps the noise of before the clip; it is timed so, and compared without that.
    check_agreement(case, ours(), theirs(use_clipped_model_output=True) if case.clip else theirs())
    calls = [("network", network_alone(case, network, steps)), ("zoo", ours), ("diffusers", theirs)]
    seconds: dict[str, list[float]] = {name: [] for name, _ in calls}
    for number in range(rounds + 1):
        turn = number % len(calls)
        for name, call in calls[turn:] + calls[:turn]:
            started = time.process_time()
            call()
            if number:  # The first round fills caches.
                seconds[name].append(time.process_time() - started)
    return row(case, steps, seconds)


def row(case: Case, steps: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in microseconds per step."""

    def overhead(name: str) -> float:
        pairs = zip(seconds[name], seconds["network"], strict=True)
        return statistics.median(1e6 * (whole - bare) / steps for whole, bare in pairs)

    ours, theirs = overhead("zoo"), overhead("diffusers")
    return {
        "case": case.name,
        "pipeline": "DDIMPipeline" if case.plain else "DiTPipeline",
        "batch": case.count,
        "side": case.side,
        "network_us": statistics.median(1e6 * bare / steps for bare in seconds["network"]),
        "zoo_us": ours,
        "diffusers_us": theirs,
        "ratio": ours / theirs,
        # An overhead of nothing was lost in the noise of a large network, and shows nothing.
        "met": 0 < ours <= GOAL * theirs,
    }


def print_table(table: list[dict[str, Any]], steps: int, rounds: int) -> None:
    print(
        f"overhead in us a step beyond the network, {steps} steps, CPU time, "
        f"median of {rounds} rounds, one thread; "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}, {platform.machine()}\n"
    )
    print(
        f"{'case':<16}{'pipeline':<14}{'batch':>5}{'side':>6}{'network':>9}{'zoo':>8}{'diffusers':>11}{'ratio':>7}"
    )
    for line in table:
        print(
            f"{line['case']:<16}{line['pipeline']:<14}{line['batch']:>5}{line['side']:>6}"
            f"{line['network_us']:>9.0f}{line['zoo_us']:>8.1f}{line['diffusers_us']:>11.1f}{line['ratio']:>7.2f}"
            f"{'' if line['met'] else '  goal not shown'}"
        )
    ratios = [line["ratio"] for line in table]
    print(
        f"\noverhead per step, zoo / diffusers: median {statistics.median(ratios):.2f}, "
        f"highest {max(ratios):.2f} (goal at most {GOAL} in every row)"
    )


def main() -> int:
    """Measure and print; with --check, exit 1 when a row misses the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50, help="a divisor of 1000, at least 20 (default 50)")
    parser.add_argument("--rounds", type=int, default=31, help="rounds that count (default 31)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32], metavar="PIXELS")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a row misses its goal")
    given = parser.parse_args()
    if given.steps < 20 or TABLE % given.steps:  # Elsewhere the two sides visit other times or orders.
        parser.error(f"--steps is {given.steps}, expected a divisor of {TABLE} of at least 20")
    if min(given.rounds, *given.batches, *given.sides) < 1:
        parser.error("--rounds, --batches and --sides take numbers of at least 1")
    torch.set_num_threads(1)
    table = [measure(case, given.steps, given.rounds) for case in cases(given.batches, given.sides)]
    if given.json:
        settings = {"steps": given.steps, "rounds": given.rounds, "goal": GOAL}
        versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
        print(json.dumps({**settings, **versions, "rows": table}, indent=2))
    else:
        print_table(table, given.steps, given.rounds)
    return int(given.check and not all(line["met"] for line in table))


if __name__ == "__main__":
    sys.exit(main())
