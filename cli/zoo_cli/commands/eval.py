"""`zoo eval`: score a model of the shapes world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.errors import InvalidInput
from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Count,
    Seed,
    batch_option,
    device_options,
    load_model,
    sampler_options,
    sampling_progress,
    show_warnings,
)

if TYPE_CHECKING:
    from zoo.shapes.evaluation import Evaluation
    from zoo_cli.destination import Destination

_WORST = 8


@click.command("eval")
@reference_argument()
@click.option("--per-class", type=Count(), default=10, help="Samples of each combination (default 10).")
@click.option("--seed", type=Seed(), default=0, help="Seed of the first sample (default 0), or 'random'.")
@sampler_options
@batch_option
@click.option(
    "--renders", type=click.IntRange(min=0), default=256, help="Ground-truth pictures for bits per dimension."
)
@click.option("--grid", "sheet", metavar="FILE", help="Write a contact sheet: one row for each combination.")
@click.option("--failures", is_flag=True, help="List every sample that disagrees with its prompt.")
@click.option("--overwrite", is_flag=True, help="Replace an existing contact sheet.")
@device_options
@output_options
def command(reference: str, out: Output, **given: Any) -> None:
    """Score a model of the shapes world.

    Samples every combination of colour and shape and lets a judge without learned parts decide whether each
    picture shows what its prompt says. Models with a likelihood also get bits per dimension.

    \b
    zoo eval tarflow:shapes
    zoo eval tarflow:shapes --per-class 2 --guidance 2 --grid sheet.png
    """
    from zoo.io.request import Request
    from zoo.session import Session

    session = Session()
    how = Request(
        steps=given["steps"],
        guidance=given["guidance"],
        sampler=given["sampler"],
        options=dict(given["options"]),
        batch_size=given["batch_size"],
    )
    session.resolve(reference)

    from zoo.runtime.prepare import prepare
    from zoo.shapes.evaluation import check_evaluable, evaluate, evaluation_request

    _, variant, _ = check_evaluable(session, reference)
    request = evaluation_request(variant, given["per_class"], given["seed"], how)
    prepare(session, reference, request)
    target = None if given["sheet"] is None else _target(given["sheet"], request.total, given["overwrite"])
    loaded, _ = load_model(session, reference, out, given, given["sampler"])
    with sampling_progress(out, loaded.reference, request.total, loaded.batch_size(request)) as progress:
        evaluation = evaluate(
            loaded,
            per_class=given["per_class"],
            seed=given["seed"],
            how=how,
            renders=given["renders"],
            keep_images=target is not None,
            on_step=progress.on_step,
            on_sample=progress.finished,
        )
    path = None if target is None else _write(evaluation, target)
    show_warnings(session, out)
    document = {**evaluation.to_dict(), "grid": None if path is None else str(path)}
    out.result(document, lambda: _print(evaluation, path, given["failures"], out), [evaluation.accuracy])


def _target(sheet: str, pictures: int, overwrite: bool) -> Destination:
    from zoo_cli.destination import destination

    target = destination(sheet, None, pictures=pictures, grid=True, overwrite=overwrite)
    if target.file is None:
        raise InvalidInput(f"{sheet} is not the name of a picture", "Such as --grid sheet.png.")
    return target


def _write(evaluation: Evaluation, target: Destination) -> Path:
    from zoo.io.grid import grid

    sheet = grid(evaluation.images, columns=evaluation.per_class)
    return target.save_grid(sheet, evaluation.reference, None, evaluation.seed)


def _print(evaluation: Evaluation, path: Path | None, failures: bool, out: Output) -> None:
    rows = _rows(evaluation)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        out.line(f"{name:<{width}}  {value}")
    worst = sorted((score for score in evaluation.classes if score.accuracy < 1), key=lambda s: s.accuracy)
    if worst:
        out.line()
        out.table(
            ("worst combinations", "right>", "of>", ""),
            [(s.name, s.correct, s.total, "held out" if s.held_out else "") for s in worst[:_WORST]],
        )
    if failures and evaluation.failures:
        out.line()
        out.table(("failed prompt", "seed>"), evaluation.failures)
    if path is not None:
        out.line(str(path))


def _rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    total = evaluation.per_class * len(evaluation.classes)
    right = sum(score.correct for score in evaluation.classes)
    options = ", ".join(f"{name}={value}" for name, value in evaluation.changed.items())
    rows = [
        ("model", evaluation.reference),
        (
            "prompt accuracy",
            f"{evaluation.accuracy:.1%} ({right} of {total}, {evaluation.per_class} a combination)",
        ),
        ("seen in training", _percent(evaluation.seen)),
        ("held out", _percent(evaluation.held_out)),
        ("seconds per sample", f"{evaluation.seconds_per_sample:.3f}"),
    ]
    if evaluation.bits_per_dim is not None:
        rows.append(("bits per dimension", f"{evaluation.bits_per_dim:.3f} ({evaluation.renders} renders)"))
    rows.append(("sampler", f"{evaluation.sampler}: {options}"))
    rows.append(("run", f"{evaluation.device}, {evaluation.dtype}, seed {evaluation.seed}"))
    return rows


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"
