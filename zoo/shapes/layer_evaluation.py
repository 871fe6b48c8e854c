"""Scoring a model of the shapes world that draws in layers; see `zoo.shapes.layer_exam` for what is asked.

Beside the model as it is, what its parts are worth: some of the same questions with the same seeds once more,
each time without one of self-mask guidance, inter-layer attention and layer prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.layers import LayeredImage
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel
from zoo.runtime.sampling import OnStep
from zoo.session import Session
from zoo.shapes.evaluation import check_evaluable
from zoo.shapes.layer_exam import (
    DEFAULT_SAMPLES,
    OBJECTS,
    LayeredAnswer,
    LayerQuestion,
    layer_questions,
    mark_layers,
)
from zoo.shapes.layer_scores import LayeredScore, layered_score, scores_by_layers
from zoo.shapes.measurement import Measurement, Timed, run_facts

#: Options that take a part of a layered method away. A sampler without one of them has no such part.
ABLATIONS: tuple[tuple[str, Any], ...] = (
    ("mask_guidance", 0.0),
    ("inter_layer", False),
    ("layer_prompts", False),
)

#: Pictures of each number of layers that an ablation asks for where nobody says how many.
DEFAULT_ABLATION_SAMPLES = 40


@dataclass(frozen=True)
class Ablation:
    """The same questions with one option changed. `option` is None for the model as it is."""

    option: str | None
    value: Any
    answers: tuple[LayeredAnswer, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """As the command line takes it: "inter_layer=false"."""
        return "as it is" if self.option is None else f"{self.option}={self.value}".lower()

    @cached_property
    def by_layers(self) -> Mapping[int, LayeredScore]:
        """The samples by the number of layers that were asked for."""
        return scores_by_layers(self.answers)

    @cached_property
    def all_samples(self) -> LayeredScore:
        """Every sample."""
        return layered_score(self.answers)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "changed": {} if self.option is None else {self.option: self.value},
            "all": self.all_samples.to_dict(),
            "by_layers": _by_layers(self.by_layers),
        }


@dataclass(frozen=True, kw_only=True)
class LayerEvaluation(Measurement):
    """How well a model draws in layers what is asked for, and everything needed to measure it again.

    `answers` are the samples in the order of their seeds, those of the fewest layers first. `ablations` begin
    with the model as it is on the questions that they share, taken from `answers`; there are none where none
    were asked for or the sampler has no part to take away. `pictures` show some samples in rows: in each row
    one of every number of layers.
    """

    answers: tuple[LayeredAnswer, ...] = field(repr=False)
    ablations: tuple[Ablation, ...] = ()
    pictures: tuple[Image, ...] = field(default=(), repr=False)

    @cached_property
    def all_samples(self) -> LayeredScore:
        """Every sample."""
        return layered_score(self.answers)

    @cached_property
    def by_layers(self) -> Mapping[int, LayeredScore]:
        """The samples by the number of layers that were asked for."""
        return scores_by_layers(self.answers)

    @property
    def failures(self) -> tuple[LayeredAnswer, ...]:
        """The samples with a wrong layer, background or composite."""
        return tuple(
            answer for answer in self.answers if not (answer.exact and answer.agrees and answer.background)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; the pictures are left out."""
        return {
            **self.facts(),
            "stated": self.stated,
            "all": self.all_samples.to_dict(),
            "by_layers": _by_layers(self.by_layers),
            "ablations": [ablation.to_dict() for ablation in self.ablations],
            "samples": [_entry(answer) for answer in self.answers],
        }


def _by_layers(scores: Mapping[int, LayeredScore]) -> dict[str, Any]:
    return {str(number): score.to_dict() for number, score in scores.items()}


def _entry(answer: LayeredAnswer) -> dict[str, Any]:
    question = answer.question
    return {
        "prompt": question.prompt,
        "part_prompts": list(question.parts),
        "held_out": question.held_out,
        "seed": answer.seed,
        "all_layers": answer.exact,
        "composite": answer.agrees,
        "shows": answer.shows,
        "background": answer.background,
        "layers": [
            {"correct": mark.correct, "shows": mark.shows, "mask_iou": mark.mask_iou} for mark in answer.marks
        ],
        "surplus_layers": answer.surplus,
    }


def layered_questions(
    session: Session, reference: str, samples: Sequence[int] = DEFAULT_SAMPLES, seed: int = 0
) -> tuple[LayerQuestion, ...]:
    """What a model is asked for, in the order of the samples' seeds.

    `samples` are the numbers of pictures of two, three and four layers. Raises `InvalidInput` for a model
    that reads no captions of the shapes world, or for no samples at all.
    """
    card, variant, held_out = check_evaluable(session, reference)
    if variant.captions != "shapes":
        raise InvalidInput(f"{card.method}:{variant.name} reads no captions: it cannot be asked for layers")
    if len(samples) != len(OBJECTS) or min(samples) < 0 or not any(samples):
        raise InvalidInput(
            f"samples are {', '.join(map(str, samples))}, expected the numbers of pictures of two, three and "
            "four layers, not all of them 0"
        )
    return tuple(
        question
        for objects, count in zip(OBJECTS, samples, strict=True)
        for question in layer_questions(objects, count, seed, held_out)
    )


def layered_request(
    questions: Sequence[LayerQuestion], seeds: Sequence[int], how: Request | None = None, **changed: Any
) -> Request:
    """The request whose samples are judged: one for each question and seed.

    `how` gives sampler, steps, guidance, options and batch size, `changed` further options; what else `how`
    asks for is left out.
    """
    how = how or Request()
    return Request(
        prompts=[question.prompt for question in questions],
        part_prompts=[question.parts for question in questions],
        seeds=seeds,
        steps=how.steps,
        guidance=how.guidance,
        sampler=how.sampler,
        options={**how.options, **changed},
        batch_size=how.batch_size,
    )


def chosen_for_ablations(questions: Sequence[LayerQuestion], count: int) -> list[int]:
    """Which questions ablations share: `count` of each number of layers, or all, spread evenly over them."""
    chosen = []
    for number in sorted({question.layers for question in questions}):
        own = [index for index, question in enumerate(questions) if question.layers == number]
        taken = min(count, len(own))
        chosen += [own[place * len(own) // taken] for place in range(taken)]
    return chosen


def ablations_of(loaded: LoadedModel, how: Request) -> list[tuple[str, Any]]:
    """The parts that the sampler has and that are not off already, as options and the values without them."""
    options = dataclasses.asdict(loaded.options(how))
    return [(name, off) for name, off in ABLATIONS if options.get(name, off) != off]


def evaluate_layers(
    loaded: LoadedModel,
    samples: Sequence[int] = DEFAULT_SAMPLES,
    seed: int = 0,
    how: Request | None = None,
    ablation_samples: int = DEFAULT_ABLATION_SAMPLES,
    keep_rows: int = 0,
    on_step: OnStep | None = None,
    on_sample: Callable[[int], None] | None = None,
    on_run: Callable[[int], None] | None = None,
) -> LayerEvaluation:
    """Sample the questions and judge layers, masks and composites; then again without parts of the method.

    `samples` is as in `layered_questions`, `how` as in `layered_request`. Each ablation asks for
    `ablation_samples` pictures of each number of layers; 0 leaves ablations out. `keep_rows` is the largest
    number of rows of `LayerEvaluation.pictures`. `on_run` receives the number of samples of each run before
    it begins, `on_sample` the number of all pictures judged so far. Raises `InvalidInput` as
    `layered_questions` does, and for pictures that the judge cannot read.
    """
    questions = layered_questions(loaded.session, loaded.reference, samples, seed)
    seeds = [seed + index for index in range(len(questions))]
    exam = _Exam(loaded, how or Request(), on_step, on_sample, on_run)
    shown = _shown(questions, keep_rows)
    answers, kept, seconds = exam.run(questions, seeds, keep=shown)
    ablations = []
    off = ablations_of(loaded, exam.how) if ablation_samples else []
    chosen = chosen_for_ablations(questions, ablation_samples)
    if off:
        ablations.append(Ablation(None, None, tuple(answers[index] for index in chosen)))
    for option, value in off:
        again, _, _ = exam.run(
            [questions[index] for index in chosen], [seeds[index] for index in chosen], **{option: value}
        )
        ablations.append(Ablation(option, value, tuple(again)))
    return LayerEvaluation(
        **run_facts(loaded, layered_request(questions, seeds, exam.how), seconds / len(answers)),
        answers=tuple(answers),
        ablations=tuple(ablations),
        pictures=tuple(kept[index] for index in shown),
    )


def _shown(questions: Sequence[LayerQuestion], rows: int) -> list[int]:
    """The samples of a contact sheet, row by row: in each row one of every number of layers."""
    if not rows:
        return []
    numbers = sorted({question.layers for question in questions})
    fewest = min(sum(question.layers == number for question in questions) for number in numbers)
    chosen = chosen_for_ablations(questions, min(rows, fewest))
    taken = len(chosen) // len(numbers)
    return [chosen[column * taken + row] for row in range(taken) for column in range(len(numbers))]


class _Exam:
    """Draws and marks samples of one model, and counts those of all its runs."""

    def __init__(
        self,
        loaded: LoadedModel,
        how: Request,
        on_step: OnStep | None,
        on_sample: Callable[[int], None] | None,
        on_run: Callable[[int], None] | None,
    ) -> None:
        self.how = how
        self._loaded = loaded
        self._on_step = on_step
        self._on_sample = on_sample
        self._on_run = on_run
        self._judged = 0

    def run(
        self,
        questions: Sequence[LayerQuestion],
        seeds: Sequence[int],
        keep: Sequence[int] = (),
        **changed: Any,
    ) -> tuple[list[LayeredAnswer], dict[int, Image], float]:
        """Answers, pictures of the samples to keep by their place, and the seconds that drawing took."""
        request = layered_request(questions, seeds, self.how, **changed)
        if self._on_run is not None:
            self._on_run(request.total)
        timed = Timed(self._loaded.sample(request, self._on_step), LayeredImage)
        answers: list[LayeredAnswer] = []
        kept: dict[int, Image] = {}
        for index, artifact in enumerate(timed):
            answers.append(mark_layers(artifact, questions[index], seeds[index]))
            if index in keep:
                kept[index] = artifact.picture()
            self._judged += 1
            if self._on_sample is not None:
                self._on_sample(self._judged)
        return answers, kept, timed.seconds
