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
    from zoo.shapes.scores import Share
    from zoo_cli.destination import Destination

_WORST = 8


@click.command("eval")
@reference_argument()
@click.option("--per-class", type=Count(), default=10, help="Samples of each combination (default 10).")
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    help="Prompts of two objects, for models that read captions (default 320); 0 leaves them out.",
)
@click.option("--seed", type=Seed(), default=0, help="Seed of the first sample (default 0), or 'random'.")
@sampler_options
@batch_option
@click.option(
    "--renders", type=click.IntRange(min=0), default=256, help="Ground-truth pictures for bits per dimension."
)
@click.option(
    "--grid", "sheet", metavar="FILE", help="Write a contact sheet: a row for each combination, then pairs."
)
@click.option("--failures", is_flag=True, help="List every sample that disagrees with its prompt.")
@click.option("--overwrite", is_flag=True, help="Replace an existing contact sheet.")
@device_options
@output_options
def command(reference: str, out: Output, **given: Any) -> None:
    """Score a model of the shapes world.

    Samples every combination of colour and shape and lets a judge without learned parts decide whether each
    picture shows what its prompt says. Models that read captions are also asked for two objects with a
    relation, three quarters of them with combinations that training showed and one with held-out ones. Models
    with a likelihood also get bits per dimension.

    \b
    zoo eval tarflow:shapes
    zoo eval tarflow:shapes --per-class 2 --guidance 2 --grid sheet.png
    zoo eval mdm:shapes --sampler ddim --steps 100 --failures
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
    from zoo.shapes.evaluation import evaluate, evaluation_questions, evaluation_request

    asked = {name: given[name] for name in ("per_class", "pairs", "seed")}
    request = evaluation_request(evaluation_questions(session, reference, **asked), given["seed"], how)
    prepare(session, reference, request)
    target = None if given["sheet"] is None else _target(given["sheet"], request.total, given["overwrite"])
    loaded, _ = load_model(session, reference, out, given, given["sampler"])
    with sampling_progress(out, loaded.reference, request.total, loaded.batch_size(request)) as progress:
        evaluation = evaluate(
            loaded,
            **asked,
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
    rows = [("model", evaluation.reference), *_accuracy_rows(evaluation), *_fact_rows(evaluation)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        out.line(f"{name:<{width}}  {value}")
    _print_worst(evaluation, out)
    if evaluation.pairs is not None:
        out.line()
        by_relation = [(name, share.correct, share.total) for name, share in evaluation.relations.items()]
        out.table(("two objects", "right>", "of>"), by_relation)
    if failures and evaluation.failures:
        out.line()
        out.table(
            ("failed prompt", "seed>", "what the judge sees"),
            [(answer.question.prompt, answer.seed, answer.shows) for answer in evaluation.failures],
        )
    if path is not None:
        out.line(str(path))


def _print_worst(evaluation: Evaluation, out: Output) -> None:
    worst = sorted((score for score in evaluation.classes if score.overall < 1), key=lambda s: s.overall)
    if not worst:
        return
    out.line()
    rows = []
    for score in worst[:_WORST]:
        pairs = () if score.in_pairs is None else (score.in_pairs.correct, score.in_pairs.total)
        rows.append((score.name, score.correct, score.total, *pairs, "held out" if score.held_out else ""))
    pair_columns = () if evaluation.pairs is None else ("in pairs, right>", "of>")
    out.table(("worst combinations", "right>", "of>", *pair_columns, ""), rows)


def _accuracy_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Single objects alone are three lines; with pairs, each group is a line of three figures."""
    single, pairs = evaluation.single, evaluation.pairs
    if pairs is None:
        all_of_them = _counted(single.all).removesuffix(")")
        return [
            ("prompt accuracy", f"{all_of_them}, {evaluation.per_class} a combination)"),
            ("seen in training", _counted(single.seen)),
            ("held out", _counted(single.held_out)),
        ]
    groups = {"single objects": single, "two objects": pairs, "all samples": evaluation.all_samples}
    cells = [("prompt accuracy", "all", "seen in training", "held out")]
    for name, group in groups.items():
        cells.append((f"  {name}", _counted(group.all), _counted(group.seen), _counted(group.held_out)))
    first, second = (max(len(row[column]) for row in cells) for column in (1, 2))
    rows = [(name, f"{a:<{first}}  {b:<{second}}  {c}") for name, a, b, c in cells]
    objects = f"{single.all.total} single objects ({evaluation.per_class} a combination)"
    return [*rows, ("asked for", f"{objects}, {pairs.all.total} pairs")]


def _fact_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    options = ", ".join(f"{name}={value}" for name, value in evaluation.stated.items())
    rows = [("seconds per sample", f"{evaluation.seconds_per_sample:.3f}")]
    if evaluation.bits_per_dim is not None:
        rows.append(("bits per dimension", f"{evaluation.bits_per_dim:.3f} ({evaluation.renders} renders)"))
    rows.append(("sampler", f"{evaluation.sampler}: {options}" if options else evaluation.sampler))
    rows.append(("run", f"{evaluation.device}, {evaluation.dtype}, seed {evaluation.seed}"))
    return rows


def _counted(share: Share) -> str:
    return "none" if share.accuracy is None else f"{share.accuracy:.1%} ({share.correct} of {share.total})"
