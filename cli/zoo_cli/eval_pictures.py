"""`zoo eval` of a model that draws pictures: single objects and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_cli.eval_report import counted, fact_rows, group_rows, print_rows, sheet_target
from zoo_cli.running import load_model, sampling_progress, show_warnings

if TYPE_CHECKING:
    from zoo.io.request import Request
    from zoo.session import Session
    from zoo.shapes.evaluation import Evaluation
    from zoo_cli.destination import Destination
    from zoo_cli.output import Output

#: Options of this exam alone, and what they are where they are not given.
DEFAULTS: Mapping[str, Any] = {"per_class": 10, "pairs": None, "renders": 256}

_WORST = 8


def run(session: Session, reference: str, given: Mapping[str, Any], how: Request, out: Output) -> None:
    """Ask, judge and report; `given` are the command's options."""
    from zoo.runtime.prepare import prepare
    from zoo.shapes.evaluation import evaluate, evaluation_questions, evaluation_request

    asked = {name: given[name] for name in ("per_class", "pairs", "seed")}
    request = evaluation_request(evaluation_questions(session, reference, **asked), given["seed"], how)
    prepare(session, reference, request)
    sheet = given["sheet"]
    target = None if sheet is None else sheet_target(sheet, request.total, given["overwrite"])
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
    path = None if target is None else write_sheet(evaluation, target)
    show_warnings(session, out)
    document = {**evaluation.to_dict(), "grid": None if path is None else str(path)}
    out.result(document, lambda: _print(evaluation, path, given["failures"], out), [evaluation.accuracy])


def write_sheet(evaluation: Evaluation, target: Destination) -> Path:
    """The kept pictures as one, a row for each combination."""
    from zoo.io.grid import grid

    sheet = grid(evaluation.images, columns=evaluation.per_class)
    return target.save_grid(sheet, evaluation.reference, None, evaluation.seed)


def _print(evaluation: Evaluation, path: Path | None, failures: bool, out: Output) -> None:
    print_rows([("model", evaluation.reference), *score_rows(evaluation)], out)
    print_tables(evaluation, failures, out)
    if path is not None:
        out.line(str(path))


def score_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The figures, and how they came about."""
    bits = []
    if evaluation.bits_per_dim is not None:
        bits = [("bits per dimension", f"{evaluation.bits_per_dim:.3f} ({evaluation.renders} renders)")]
    return [*_accuracy_rows(evaluation), *fact_rows(evaluation, bits)]


def print_tables(evaluation: Evaluation, failures: bool, out: Output) -> None:
    """What the figures are made of."""
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
        all_of_them = counted(single.all).removesuffix(")")
        return [
            ("prompt accuracy", f"{all_of_them}, {evaluation.per_class} a combination)"),
            ("seen in training", counted(single.seen)),
            ("held out", counted(single.held_out)),
        ]
    groups = {"single objects": single, "two objects": pairs, "all samples": evaluation.all_samples}
    rows = group_rows(
        "prompt accuracy",
        ("all", "seen in training", "held out"),
        [
            (name, counted(group.all), counted(group.seen), counted(group.held_out))
            for name, group in groups.items()
        ],
    )
    objects = f"{single.all.total} single objects ({evaluation.per_class} a combination)"
    return [*rows, ("asked for", f"{objects}, {pairs.all.total} pairs")]
