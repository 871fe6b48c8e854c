"""`zoo train`: train a variant by its recipe, with exact resume."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.errors import ExitCode, InvalidInput, OutputExists, ZooError
from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, Step, output_options
from zoo_cli.running import Count, Seed, show_warnings

if TYPE_CHECKING:
    from zoo.training.run import Exported
    from zoo.training.trainer import Trainer

#: Steps between two lines of progress where there is no terminal.
_LINE_EVERY = 100


@click.command("train")
@reference_argument()
@click.option("-o", "--out", "folder", metavar="DIR", help="Folder of the run (default runs/METHOD-VARIANT).")
@click.option("--resume", is_flag=True, help="Continue from the folder's checkpoint, exactly.")
@click.option("--overwrite", is_flag=True, help="Start over where the folder has a checkpoint.")
@click.option("--steps", type=Count(), help="Stop after so many steps; the schedule stays the recipe's.")
@click.option("--save-every", type=Count(), default=500, help="Steps between checkpoints (default 500).")
@click.option("--seed", type=Seed(), help="Another seed than the recipe's, or 'random'.")
@click.option(
    "--dtype",
    type=click.Choice(("float16", "bfloat16", "float32")),
    default="float16",
    help="Number format of the finished weights (default float16).",
)
@click.option("--device", metavar="NAME", help="cuda, cuda:N, mps or cpu; by default the best there is.")
@click.option("--threads", type=Count(), help="CPU threads; by default what torch chooses.")
@output_options
def command(reference: str, out: Output, **given: Any) -> int:
    """Train a variant by its recipe.

    Writes checkpoint.safetensors, from which --resume continues exactly, and at the end model.safetensors:
    the averaged weights as a card names them. Ctrl-C finishes the step and saves.

    \b
    zoo train tarflow:shapes --out runs/mine
    zoo train tarflow:shapes --out runs/mine --resume
    """
    from zoo.session import Session

    if given["resume"] and given["overwrite"]:
        raise click.UsageError("--resume continues and --overwrite starts over: give one of them.")
    session = Session()
    card, variant = session.resolve(reference)
    name = f"{card.method}-{variant.name}"
    folder = Path(given["folder"]).expanduser() if given["folder"] else Path("runs", name)
    _check_folder(folder, given["resume"], given["overwrite"])

    import torch

    from zoo.training.run import export, resume, start

    if given["threads"]:
        torch.set_num_threads(given["threads"])
    trainer = start(session, reference, given["device"], given["seed"])
    checkpoint = folder / "checkpoint.safetensors"
    if given["resume"]:
        resume(trainer, checkpoint)
        _check_seed(trainer, given["seed"])
    show_warnings(session, out)
    run = _Run(f"{card.method}:{variant.name}", trainer, checkpoint, out)
    finished = run.train(given["steps"], given["save_every"])
    exported = export(trainer, folder / "model.safetensors", given["dtype"]) if finished else None
    return _report(run, exported, reference, given)


def _check_folder(folder: Path, resuming: bool, overwrite: bool) -> None:
    from zoo_cli.destination import check_writable

    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists() and not (resuming or overwrite):
        raise OutputExists(
            f"{checkpoint} exists already",
            "--resume continues it, --overwrite starts over, --out chooses another folder.",
        )
    check_writable(folder)


def _check_seed(trainer: Trainer, seed: int | None) -> None:
    if seed is not None and seed != trainer.seed:
        raise InvalidInput(
            f"the checkpoint was trained with seed {trainer.seed}, not {seed}", "Leave out --seed."
        )


@dataclass
class _Run:
    """One call of the command: the trainer and how it is reported."""

    reference: str
    trainer: Trainer
    checkpoint: Path
    out: Output
    loss: float | None = None
    seconds: float = 0.0

    def train(self, steps: int | None, save_every: int) -> bool:
        """Train; whether the wanted step was reached."""
        from zoo.training.trainer import train

        until = self.trainer.steps if steps is None else min(steps, self.trainer.steps)
        first, started = self.trainer.step, time.perf_counter()
        with _stop_on_interrupt() as stop, self.out.progress(self.reference, total=until) as move:
            if first:
                self.out.note(f"continuing from step {first}")
            report = self._reporter(move, first, until)
            finished = train(self.trainer, self.checkpoint, save_every, report, until, stop)
        self.seconds = time.perf_counter() - started
        return finished

    def _reporter(self, move: Step, first: int, until: int) -> Callable[[int, float], None]:
        started, lines = time.perf_counter(), not sys.stderr.isatty()

        def report(step: int, loss: float) -> None:
            if loss != loss:
                raise ZooError(
                    f"the loss is not a number at step {step}; the checkpoint of an earlier step was kept",
                    "Try another --seed.",
                )
            self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
            move(step, text=f"{self.reference} step {step}/{until} loss {self.loss:.4f}")
            if lines and (step % _LINE_EVERY == 0 or step == until):
                rate = (step - first) / (time.perf_counter() - started)
                self.out.note(f"step {step}/{until} loss {self.loss:.4f} ({rate:.2f} steps/s)")

        return report


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks to stop after the step, so that a whole step is saved; a second one stops at once."""
    asked = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _report(run: _Run, exported: Exported | None, reference: str, given: dict[str, Any]) -> int:
    trainer = run.trainer
    model = None
    if exported is not None:
        model = {"path": str(exported.path), "sha256": exported.sha256, "size": exported.size}
        model["dtype"] = given["dtype"]
        _warn_if_large(exported, run.out)
    document = {
        "reference": run.reference,
        "steps": trainer.step,
        "budget": trainer.steps,
        "seed": trainer.seed,
        "device": str(trainer.device),
        "loss": run.loss,
        "seconds": round(run.seconds, 3),
        "checkpoint": str(run.checkpoint),
        "model": model,
        "interrupted": exported is None,
    }
    quiet = [run.checkpoint] if exported is None else [exported.path]
    run.out.result(document, lambda: _print(run, exported), quiet)
    if exported is None:
        again = f"zoo train {reference} --out {run.checkpoint.parent} --resume"
        run.out.warning(f"interrupted after step {trainer.step}; to go on: {again}")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _print(run: _Run, exported: Exported | None) -> None:
    if exported is None:
        run.out.line(str(run.checkpoint))
        return
    run.out.line(str(exported.path))
    run.out.line(f'sha256    = "{exported.sha256}"')
    run.out.line(f"size      = {exported.size}")


def _warn_if_large(exported: Exported, out: Output) -> None:
    from zoo.quantities import human_bytes
    from zoo.training.run import MAX_BUILT_IN_BYTES

    if exported.size > MAX_BUILT_IN_BYTES:
        out.warning(
            f"{exported.path} takes {human_bytes(exported.size)}: "
            f"built-in weights are at most {human_bytes(MAX_BUILT_IN_BYTES)}"
        )
