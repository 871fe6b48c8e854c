"""Scoring a model of the shapes world in all its tasks, by the exams of `zoo.shapes.task_exams`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from zoo.io.inputs import InputImage
from zoo.io.request import Request
from zoo.registry import Sampler
from zoo.runtime.model import LoadedModel
from zoo.runtime.prepare import find_sampler
from zoo.runtime.sampling import OnStep
from zoo.session import Session
from zoo.shapes.evaluation import Evaluation, check_evaluable
from zoo.shapes.measurement import Measurement, Timed, run_facts
from zoo.shapes.rendering import render
from zoo.shapes.scores import GroupScore, group_score
from zoo.shapes.task_exams import (
    DEFAULT_QUESTIONS,
    EXAMS,
    ROUND_TRIP,
    SIDE,
    TaskAnswer,
    TaskExam,
    TaskQuestion,
    round_trip_questions,
)


@dataclass(frozen=True, kw_only=True)
class TaskEvaluation(Measurement):
    """How well a model does one task, and everything needed to measure it again.

    `answers` are in the order of their seeds. `title` says what was examined.
    """

    task: str
    title: str
    answers: tuple[TaskAnswer, ...] = field(repr=False)

    @cached_property
    def all_samples(self) -> GroupScore:
        """Every question."""
        return group_score(self.answers)

    @cached_property
    def groups(self) -> Mapping[str, GroupScore]:
        """The questions by kind, in the order in which they are asked."""
        kinds = dict.fromkeys(answer.question.group for answer in self.answers)
        return {
            kind: group_score([answer for answer in self.answers if answer.question.group == kind])
            for kind in kinds
        }

    @property
    def accuracy(self) -> float:
        """Share of all questions that were answered rightly."""
        return self.all_samples.all.correct / self.all_samples.all.total

    @property
    def failures(self) -> tuple[TaskAnswer, ...]:
        """The wrong answers."""
        return tuple(answer for answer in self.answers if not answer.correct)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            **self.facts(),
            "task": self.task,
            "accuracy": self.accuracy,
            "seen": self.all_samples.seen.accuracy,
            "held_out": self.all_samples.held_out.accuracy,
            "all": self.all_samples.to_dict(),
            "groups": {name: score.to_dict() for name, score in self.groups.items()},
            "failures": [_entry(answer) for answer in self.failures],
        }


def _entry(answer: TaskAnswer) -> dict[str, Any]:
    return {
        "prompt": answer.question.prompt,
        "group": answer.question.group,
        "seed": answer.seed,
        "expected": answer.wanted,
        "shows": answer.shows,
    }


@dataclass(frozen=True)
class PlannedExam:
    """An exam of a model: its task, and the sampler that does it.

    `exam` is None for the samplers that draw, whose exams go by what they make. `named` is the task as the
    card calls it, None for the default sampler; `role` is the component to run on, None for the model.
    """

    task: str
    sampler: Sampler
    exam: TaskExam | None
    named: str | None = None
    role: str | None = None


def planned_exams(
    session: Session, reference: str, sampler: str | None = None, task: str | None = None
) -> tuple[PlannedExam, ...]:
    """The exams of a model of the shapes world: of its default sampler, its other tasks and its components.

    With `sampler` or `task` it is that one alone. Components are examined in "reconstruction", by any sampler
    that can run on them. Raises `InvalidInput` for a model that is not of the shapes world, and as
    `find_sampler` does. Reads no weights.
    """
    card, variant, _ = check_evaluable(session, reference)
    architecture = session.architecture(card, variant)
    find = partial(find_sampler, session, card, variant, architecture)
    if sampler is not None or task is not None:
        return (_exam_of(find(sampler, task), task),)
    exams = [_exam_of(find(), None), *(_exam_of(find(task=name), name) for name in variant.tasks)]
    for role in variant.components:
        offers = set(session.component(card, variant, role).offers)
        exams += [
            replace(_exam_of(one, None), role=role)
            for one in session.registry.samplers
            if "reconstruction" in one.tasks and set(one.needs) <= offers
        ]
    by_task: dict[str, PlannedExam] = {}
    for exam in exams:
        by_task.setdefault(exam.task, exam)
    return tuple(by_task.values())


def _exam_of(sampler: Sampler, named: str | None) -> PlannedExam:
    task = next((task for task in sampler.tasks if task in EXAMS), None)
    drawing = sampler.tasks[0] if sampler.tasks else sampler.makes
    return PlannedExam(task or drawing, sampler, None if task is None else EXAMS[task], named)


def task_request(
    planned: PlannedExam, questions: Sequence[TaskQuestion], seed: int, how: Request | None = None
) -> Request:
    """The request whose samples are marked: one for each question, seeds counted on from `seed`.

    `how` gives steps, guidance, options and batch size; what else it asks for is left out.
    """
    pictures = [InputImage(render(question.given, SIDE)) for question in questions if question.given]
    return _request(planned, questions, pictures, seed, how or Request())


def _request(
    planned: PlannedExam,
    questions: Sequence[TaskQuestion],
    pictures: Sequence[InputImage],
    seed: int,
    how: Request,
) -> Request:
    own_sampler = how.sampler is not None and planned.role is None
    return Request(
        prompts=() if planned.sampler.prompt == "none" else [question.prompt for question in questions],
        images={"image": pictures} if planned.sampler.images else {},
        seed=seed,
        steps=how.steps,
        guidance=how.guidance,
        task=None if own_sampler else planned.named,
        sampler=how.sampler if own_sampler else None,
        options=how.options,
        batch_size=how.batch_size,
    )


def task_questions(
    session: Session, reference: str, exam: TaskExam, count: int = DEFAULT_QUESTIONS, seed: int = 0
) -> list[TaskQuestion]:
    """What a model is asked in an exam, in the order of the samples' seeds: `count` of each kind."""
    _, _, held_out = check_evaluable(session, reference)
    return exam.questions(count, seed, held_out)


def evaluate_task(
    loaded: LoadedModel,
    planned: PlannedExam,
    questions: Sequence[TaskQuestion],
    seed: int = 0,
    how: Request | None = None,
    on_step: OnStep | None = None,
    on_sample: Callable[[int], None] | None = None,
) -> TaskEvaluation:
    """Hold an exam other than drawing; `on_sample` receives the number of answers marked so far.

    Raises `InvalidInput` for pictures that the judge cannot read.
    """
    assert planned.exam is not None, planned.task
    running = loaded if planned.role is None else component_as_model(loaded, planned.role, planned.sampler)
    request = task_request(planned, questions, seed, how)
    return _held(running, planned.exam, planned.task, questions, request, on_step, on_sample)


def evaluate_round_trip(
    loaded: LoadedModel,
    planned: PlannedExam,
    drawn: Evaluation,
    how: Request | None = None,
    on_step: OnStep | None = None,
    on_sample: Callable[[int], None] | None = None,
) -> TaskEvaluation:
    """Describe the pictures of a drawing exam that kept them; a description has to agree with the prompt.

    `planned` is the exam of describing.
    """
    questions = round_trip_questions(
        [(answer.question.prompt, answer.question.held_out) for answer in drawn.answers]
    )
    pictures = [InputImage(image.pixels) for image in drawn.images]
    request = _request(planned, questions, pictures, drawn.seed, how or Request())
    return _held(loaded, ROUND_TRIP, ROUND_TRIP.task, questions, request, on_step, on_sample)


def _held(
    loaded: LoadedModel,
    exam: TaskExam,
    task: str,
    questions: Sequence[TaskQuestion],
    request: Request,
    on_step: OnStep | None,
    on_sample: Callable[[int], None] | None,
) -> TaskEvaluation:
    timed = Timed(loaded.sample(request, on_step), exam.makes)
    answers: list[TaskAnswer] = []
    for question, artifact in zip(questions, timed, strict=True):
        correct, shows = exam.mark(question, artifact)
        answers.append(TaskAnswer(question, request.seed_of(len(answers)), correct, shows))
        if on_sample is not None:
            on_sample(len(answers))
    facts = run_facts(loaded, request, timed.seconds / len(answers))
    return TaskEvaluation(**facts, task=task, title=exam.title, answers=tuple(answers))


def component_as_model(loaded: LoadedModel, role: str, sampler: Sampler) -> LoadedModel:
    """A component of a model as one by itself, which this sampler runs on."""
    component = loaded.variant.components[role]
    variant = replace(
        loaded.variant,
        architecture=component.architecture,
        config=component.config,
        sampler={"name": sampler.name},
        tasks={},
        components={},
        captions=None,
    )
    return replace(
        loaded,
        variant=variant,
        architecture=loaded.session.component(loaded.card, loaded.variant, role),
        components={"model": loaded.components[role]},
    )
