"""`zoo eval` of a model that draws in layers: objects in their layers, masks and composites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_cli.eval_report import counted, fact_rows, group_rows, print_rows, sheet_target
from zoo_cli.running import load_model, sampling_progress, show_warnings

if TYPE_CHECKING:
    from zoo.io.request import Request
    from zoo.session import Session
    from zoo.shapes.layer_evaluation import LayerEvaluation
    from zoo.shapes.layer_exam import LayeredAnswer
    from zoo.shapes.layer_scores import LayeredScore
    from zoo.shapes.scores import GroupScore
    from zoo_cli.destination import Destination
    from zoo_cli.output import Output

#: Options of this exam alone, and what they are where they are not given.
DEFAULTS: Mapping[str, Any] = {"samples": (160, 160, 80), "ablations": True, "ablation_samples": 40}

#: Rows of a contact sheet, each with a sample of every number of layers.
_ROWS = 8

_NUMBERS = {2: "two layers", 3: "three layers", 4: "four layers"}


def run(session: Session, reference: str, given: Mapping[str, Any], how: Request, out: Output) -> None:
    """Ask, judge and report; `given` are the command's options."""
    from zoo.runtime.prepare import prepare
    from zoo.shapes.layer_evaluation import (
        ablations_of,
        chosen_for_ablations,
        evaluate_layers,
        layered_questions,
        layered_request,
    )

    samples, seed = given["samples"], given["seed"]
    questions = layered_questions(session, reference, samples, seed)
    request = layered_request(questions, range(seed, seed + len(questions)), how)
    prepare(session, reference, request)
    sheet = given["sheet"]
    target = None if sheet is None else sheet_target(sheet, _ROWS * len(_NUMBERS), given["overwrite"])
    loaded, _ = load_model(session, reference, out, given, given["sampler"])
    ablation_samples = given["ablation_samples"] if given["ablations"] else 0
    once_more = len(chosen_for_ablations(questions, ablation_samples))
    total = request.total + once_more * len(ablations_of(loaded, how))
    batch_size = loaded.batch_size(request)
    with sampling_progress(out, loaded.reference, total, batch_size) as progress:
        evaluation = evaluate_layers(
            loaded,
            samples,
            seed,
            how,
            ablation_samples,
            keep_rows=_ROWS if target else 0,
            on_step=progress.on_step,
            on_sample=progress.finished,
            on_run=lambda count: progress.group(count, batch_size),
        )
    path = None if target is None else _write(evaluation, target)
    show_warnings(session, out)
    document = {**evaluation.to_dict(), "grid": None if path is None else str(path)}
    out.result(document, lambda: _print(evaluation, path, given["failures"], out), _quiet(evaluation))


def _quiet(evaluation: LayerEvaluation) -> list[object]:
    """The three figures: samples whose layers are all right, how masks fit, composites that agree."""
    score = evaluation.all_samples
    return [
        score.exact.all.accuracy,
        None if score.masks is None else score.masks.mean,
        score.composites.all.accuracy,
    ]


def _write(evaluation: LayerEvaluation, target: Destination) -> Path:
    from zoo.io.grid import grid

    sheet = grid(evaluation.pictures, columns=len(evaluation.by_layers), gap=6)
    return target.save_grid(sheet, evaluation.reference, None, evaluation.seed)


def _print(evaluation: LayerEvaluation, path: Path | None, failures: bool, out: Output) -> None:
    groups = [*((_NUMBERS[number], score) for number, score in evaluation.by_layers.items())]
    if len(groups) > 1:
        groups.append(("all samples", evaluation.all_samples))
    rows = [("model", evaluation.reference), *_score_rows(groups), *fact_rows(evaluation)]
    print_rows(rows, out)
    if evaluation.ablations:
        out.line()
        _print_ablations(evaluation, out)
    if failures and evaluation.failures:
        out.line()
        out.table(
            ("failed prompt", "seed>", "where", "what the judge sees"),
            [row for answer in evaluation.failures for row in _failure_rows(answer)],
        )
    if path is not None:
        out.line(str(path))


def _score_rows(groups: Sequence[tuple[str, LayeredScore]]) -> list[tuple[str, str]]:
    """The stricter figure first: whole samples, then single layers."""
    from zoo.shapes.layer_exam import MASK_FITS

    heads = ("all", "seen in training", "held out")
    return [
        *group_rows("all layers right", heads, [(name, *_parted(score.exact)) for name, score in groups]),
        *group_rows(
            "each layer",
            ("object right", "mask IoU", f"{MASK_FITS} or more", "background right"),
            [
                (name, counted(score.layers), *_masks(score), counted(score.backgrounds))
                for name, score in groups
            ],
        ),
        *group_rows("composite right", heads, [(name, *_parted(score.composites)) for name, score in groups]),
    ]


def _parted(group: GroupScore) -> tuple[str, str, str]:
    return counted(group.all), counted(group.seen), counted(group.held_out)


def _masks(score: LayeredScore) -> tuple[str, str]:
    if score.masks is None:
        return "not told", "not told"
    return f"{score.masks.mean:.3f}", counted(score.masks.fitting)


def _print_ablations(evaluation: LayerEvaluation, out: Output) -> None:
    """Side by side what each number of layers comes to with and without a part of the method."""
    rows = []
    for number in evaluation.ablations[0].by_layers:
        for ablation in evaluation.ablations:
            score = ablation.by_layers[number]
            masks = "" if score.masks is None else f"{score.masks.mean:.3f}"
            shares = (score.exact.all, score.layers, score.composites.all)
            exact, layers, composites = (f"{share.accuracy:.1%}" for share in shares)
            samples = score.exact.all.total
            rows.append((_NUMBERS[number], ablation.name, samples, exact, layers, masks, composites))
    heads = ("ablation", "", "samples>", "all layers right>", "each layer>", "mask IoU>", "composite>")
    out.table(heads, rows)


def _failure_rows(answer: LayeredAnswer) -> Iterator[tuple[str, int, str, str]]:
    """What is wrong with a sample, each thing in its own row."""
    question, seed = answer.question, answer.seed
    if not answer.agrees:
        yield question.prompt, seed, "composite", answer.shows
    if not answer.background:
        yield question.prompt, seed, "background", f"not {question.parts[0]} alone"
    for index, mark in enumerate(answer.marks, start=1):
        if not mark.correct:
            yield question.prompt, seed, f"layer {index}: {mark.part}", mark.shows
    if answer.surplus:
        yield question.prompt, seed, "layers", f"{answer.surplus} more than were asked for"
