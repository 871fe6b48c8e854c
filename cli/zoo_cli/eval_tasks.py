"""`zoo eval` of a model that does more than draw: an exam for each task, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidInput
from zoo_cli import eval_pictures
from zoo_cli.eval_report import counted, fact_rows, group_rows, print_rows, sheet_target
from zoo_cli.running import load_model, sampling_progress, show_warnings

if TYPE_CHECKING:
    from zoo.io.request import Request
    from zoo.runtime.model import LoadedModel
    from zoo.session import Session
    from zoo.shapes.evaluation import Evaluation
    from zoo.shapes.task_evaluation import PlannedExam, TaskEvaluation
    from zoo.shapes.task_exams import TaskQuestion
    from zoo_cli.destination import Destination
    from zoo_cli.output import Output

#: Options of these exams alone, and what they are where they are not given.
DEFAULTS: Mapping[str, Any] = {"questions": 40, **eval_pictures.DEFAULTS}

_HEADS = ("all", "seen in training", "held out")


class _Held:
    """The exams of one call: what was asked for, and what came out so far."""

    def __init__(
        self,
        session: Session,
        reference: str,
        exams: Sequence[PlannedExam],
        given: Mapping[str, Any],
        how: Request,
    ) -> None:
        self.session, self.reference, self.exams = session, reference, exams
        self.given, self.how, self.seed = given, how, given["seed"]
        self.drawn: Evaluation | None = None
        self.tasks: dict[str, TaskEvaluation] = {}
        self.round_trip: TaskEvaluation | None = None

    @property
    def drawing(self) -> PlannedExam | None:
        """The exam of drawing, where it is among them."""
        return next((exam for exam in self.exams if exam.exam is None), None)

    def check(self) -> None:
        """Raise for what no exam can be held with, before anything is loaded."""
        from zoo.runtime.prepare import prepare
        from zoo.shapes.task_evaluation import task_request

        for planned in self.exams:
            if planned.exam is None:
                prepare(self.session, self.reference, self.drawing_request())
            elif planned.role is None:
                questions = self.questions(planned)
                prepare(self.session, self.reference, task_request(planned, questions, self.seed, self.how))

    def questions(self, planned: PlannedExam) -> list[TaskQuestion]:
        """What is asked in an exam other than drawing."""
        from zoo.shapes.task_evaluation import task_questions

        assert planned.exam is not None, planned.task
        return task_questions(self.session, self.reference, planned.exam, self.given["questions"], self.seed)

    def drawing_request(self) -> Request:
        """What is asked in the exam of drawing."""
        from zoo.shapes.evaluation import evaluation_questions, evaluation_request

        asked = {name: self.given[name] for name in ("per_class", "pairs", "seed")}
        return evaluation_request(
            evaluation_questions(self.session, self.reference, **asked), self.seed, self.how
        )

    def hold(self, loaded: LoadedModel, out: Output) -> None:
        """Hold all of them; what was drawn is described too, where the model does both."""
        if self.drawing is not None:
            self._draw(loaded, out)
        for planned in self.exams:
            if planned.exam is not None:
                self._ask(loaded, planned, out)

    def _draw(self, loaded: LoadedModel, out: Output) -> None:
        from zoo.shapes.evaluation import evaluate

        request = self.drawing_request()
        with sampling_progress(out, loaded.reference, request.total, loaded.batch_size(request)) as progress:
            self.drawn = evaluate(
                loaded,
                self.given["per_class"],
                self.seed,
                self.how,
                self.given["renders"],
                keep_images=True,
                on_step=progress.on_step,
                on_sample=progress.finished,
                pairs=self.given["pairs"],
            )

    def _ask(self, loaded: LoadedModel, planned: PlannedExam, out: Output) -> None:
        from zoo.shapes.task_evaluation import evaluate_round_trip, evaluate_task

        questions = self.questions(planned)
        with _progress(out, loaded, len(questions), self.how) as watch:
            self.tasks[planned.task] = evaluate_task(loaded, planned, questions, self.seed, self.how, **watch)
        if planned.task == "image-to-text" and self.drawn is not None:
            with _progress(out, loaded, len(self.drawn.images), self.how) as watch:
                self.round_trip = evaluate_round_trip(loaded, planned, self.drawn, self.how, **watch)

    @property
    def evaluations(self) -> list[TaskEvaluation]:
        """All but drawing, in the order of the report."""
        return [*self.tasks.values(), *([self.round_trip] if self.round_trip else [])]

    def to_dict(self, path: Any) -> dict[str, Any]:
        """One document for all exams."""
        drawing = self.drawing
        drawn = {} if drawing is None or self.drawn is None else {drawing.task: self.drawn.to_dict()}
        return {
            "reference": (self.drawn or self.evaluations[0]).reference,
            "tasks": {**drawn, **{name: held.to_dict() for name, held in self.tasks.items()}},
            "round_trip": None if self.round_trip is None else self.round_trip.to_dict(),
            "grid": None if path is None else str(path),
        }


@contextmanager
def _progress(out: Output, loaded: LoadedModel, total: int, how: Request) -> Iterator[dict[str, Any]]:
    from zoo.runtime.memory import MAX_BATCH

    batch_size = min(how.batch_size or MAX_BATCH, total)
    with sampling_progress(out, loaded.reference, total, batch_size) as progress:
        yield {"on_step": progress.on_step, "on_sample": progress.finished}


def run(
    session: Session,
    reference: str,
    exams: Sequence[PlannedExam],
    given: Mapping[str, Any],
    how: Request,
    out: Output,
) -> None:
    """Ask, judge and report; `given` are the command's options."""
    if len(exams) > 1 and (how.steps is not None or how.guidance is not None or how.options):
        raise InvalidInput(
            f"{reference} has several tasks, and options are those of one sampler",
            f"Choose one with --task: {', '.join(exam.named or exam.task for exam in exams)}",
        )
    held = _Held(session, reference, exams, given, how)
    held.check()
    target = _sheet(held)
    loaded, _ = load_model(session, reference, out, given, given["sampler"])
    held.hold(loaded, out)
    path = None if target is None or held.drawn is None else eval_pictures.write_sheet(held.drawn, target)
    show_warnings(session, out)
    figures = [evaluation.accuracy for evaluation in held.evaluations]
    quiet = [held.drawn.accuracy, *figures] if held.drawn else figures
    out.result(held.to_dict(path), lambda: _print(held, path, given["failures"], out), quiet)


def _sheet(held: _Held) -> Destination | None:
    sheet = held.given["sheet"]
    if sheet is None:
        return None
    if held.drawing is None:
        raise InvalidInput("no exam of this model draws from prompts", "Leave out --grid.")
    return sheet_target(sheet, held.drawing_request().total, held.given["overwrite"])


def _print(held: _Held, path: Any, failures: bool, out: Output) -> None:
    first = held.drawn or held.evaluations[0]
    rows = [("model", first.reference)]
    if held.drawn is not None:
        rows += eval_pictures.score_rows(held.drawn)
    print_rows(rows, out)
    for evaluation in held.evaluations:
        out.line()
        print_rows([*_group_rows(evaluation), *fact_rows(evaluation)], out)
    if held.drawn is not None:
        eval_pictures.print_tables(held.drawn, failures, out)
    if failures:
        _print_failures(held.evaluations, out)
    if path is not None:
        out.line(str(path))


def _group_rows(evaluation: TaskEvaluation) -> list[tuple[str, str]]:
    groups = dict(evaluation.groups)
    if len(groups) > 1:
        groups["all"] = evaluation.all_samples
    return group_rows(
        evaluation.title,
        _HEADS,
        [
            (name, counted(score.all), counted(score.seen), counted(score.held_out))
            for name, score in groups.items()
        ],
    )


def _print_failures(evaluations: Sequence[TaskEvaluation], out: Output) -> None:
    for evaluation in evaluations:
        if evaluation.failures:
            out.line()
            out.table(
                (f"failed: {evaluation.title}", "seed>", "expected", "what came out"),
                [
                    (
                        answer.question.prompt or answer.question.group,
                        answer.seed,
                        answer.wanted,
                        answer.shows,
                    )
                    for answer in evaluation.failures
                ],
            )
