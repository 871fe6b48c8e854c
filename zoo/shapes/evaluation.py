"""Scoring a model of the shapes world: does each sample show what its prompt says?

Every combination of colour and shape is sampled equally often and judged by `zoo.shapes.judging`; models that
read captions are asked for two objects with a relation besides. Models with a likelihood are also scored in
bits per dimension on ground-truth pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zoo.cards import Card, Variant
from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import BatchNoise
from zoo.runtime.prepare import find_sampler
from zoo.runtime.sampling import OnStep
from zoo.session import Session
from zoo.shapes.batches import single_objects
from zoo.shapes.exam import DEFAULT_PAIRS, Answer, Question, mark, pair_questions, single_questions
from zoo.shapes.measurement import Measurement, Timed, run_facts
from zoo.shapes.scene import CLASSES
from zoo.shapes.scores import ClassScore, GroupScore, Share, class_scores, group_score, relation_scores

#: Ground-truth pictures whose bits per dimension are computed at once.
_LIKELIHOOD_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Evaluation(Measurement):
    """How well a model draws what is asked for, and everything needed to measure it again.

    `answers` are the samples in the order of their seeds, single objects before pairs. `bits_per_dim` is the
    mean over `renders` ground-truth pictures, None for models without a likelihood.
    """

    per_class: int
    answers: tuple[Answer, ...] = field(repr=False)
    bits_per_dim: float | None
    renders: int
    images: tuple[Image, ...] = field(default=(), repr=False)

    @property
    def accuracy(self) -> float:
        """Share of all samples that agree with their prompt."""
        return self.all_samples.all.correct / self.all_samples.all.total

    @property
    def seen(self) -> float | None:
        """As `accuracy`, of the combinations that training showed; None where there are none."""
        return self.all_samples.seen.accuracy

    @property
    def held_out(self) -> float | None:
        """As `accuracy`, of prompts with a combination that training left out; None where there are none."""
        return self.all_samples.held_out.accuracy

    @cached_property
    def all_samples(self) -> GroupScore:
        """Every sample."""
        return group_score(self.answers)

    @cached_property
    def single(self) -> GroupScore:
        """The samples of single objects."""
        return group_score([answer for answer in self.answers if not answer.question.is_pair])

    @cached_property
    def pairs(self) -> GroupScore | None:
        """The samples of two objects; None where none were asked for."""
        answers = self._pair_answers
        return group_score(answers) if answers else None

    @cached_property
    def classes(self) -> tuple[ClassScore, ...]:
        """The samples by combination of colour and shape."""
        return class_scores(self.answers)

    @cached_property
    def relations(self) -> Mapping[str, Share]:
        """The samples of two objects by relation; empty where there are none."""
        return relation_scores(self.answers)

    @property
    def failures(self) -> tuple[Answer, ...]:
        """The samples that disagree with their prompt."""
        return tuple(answer for answer in self.answers if not answer.correct)

    @property
    def _pair_answers(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.question.is_pair]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; the pictures are left out."""
        return {
            **self.facts(),
            "per_class": self.per_class,
            "bits_per_dim": self.bits_per_dim,
            "renders": self.renders,
            "accuracy": self.accuracy,
            "seen": self.seen,
            "held_out": self.held_out,
            "single_objects": self.single.to_dict(),
            "two_objects": None if self.pairs is None else self.pairs.to_dict(),
            "classes": [score.to_dict() for score in self.classes],
            "relations": {name: share.to_dict() for name, share in self.relations.items()},
            "pairs": [_pair_entry(answer) for answer in self._pair_answers],
            "failures": [_entry(answer) for answer in self.failures],
        }


def _entry(answer: Answer) -> dict[str, Any]:
    return {"prompt": answer.question.prompt, "seed": answer.seed, "shows": answer.shows}


def _pair_entry(answer: Answer) -> dict[str, Any]:
    question = answer.question
    facts = {"relation": question.relation, "held_out": question.held_out, "correct": answer.correct}
    return {**_entry(answer), **facts}


def check_evaluable(session: Session, reference: str) -> tuple[Card, Variant, frozenset[str]]:
    """Card, variant and held-out combinations of a model of the shapes world; else `InvalidInput`."""
    card, variant = session.resolve(reference)
    by_class = bool(variant.classes) and set(variant.classes) <= set(CLASSES)
    if variant.recipe is None or not (by_class or variant.captions == "shapes"):
        raise InvalidInput(
            f"{card.method}:{variant.name} is not a model of the shapes world, all that can be judged here",
            "zoo list shows the built-in variants.",
        )
    held_out = getattr(session.recipe(card, variant), "held_out", ())
    return card, variant, frozenset(held_out)


def exam_kind(session: Session, reference: str, sampler: str | None = None) -> str:
    """Which artifacts of a model are judged: what its sampler makes, the card's where none is named.

    Raises `InvalidInput` for a model that is not of the shapes world. Reads no weights.
    """
    card, variant, _ = check_evaluable(session, reference)
    return find_sampler(session, card, variant, session.architecture(card, variant), sampler).makes


def evaluation_questions(
    session: Session, reference: str, per_class: int = 10, pairs: int | None = None, seed: int = 0
) -> tuple[Question, ...]:
    """What a model is asked for, in the order of the samples' seeds: single objects, then pairs.

    `pairs` is the number of prompts of two objects; None is `DEFAULT_PAIRS` for a model that reads captions
    and none for others. Raises `InvalidInput` for a model that is not of the shapes world, or that is to draw
    pairs and reads no captions.
    """
    card, variant, held_out = check_evaluable(session, reference)
    reads = variant.captions is not None
    if pairs and not reads:
        raise InvalidInput(
            f"{card.method}:{variant.name} reads no captions: it cannot be asked for two objects",
            "Leave out --pairs.",
        )
    wanted = (DEFAULT_PAIRS if reads else 0) if pairs is None else pairs
    names = [name for name in CLASSES if not variant.classes or name in variant.classes]
    singles = single_questions(names, per_class, held_out)
    return (*singles, *pair_questions(wanted, seed, held_out))


def evaluation_request(questions: Sequence[Question], seed: int, how: Request | None = None) -> Request:
    """The request whose samples are judged: one for each question, seeds counted on from `seed`.

    `how` gives sampler, steps, guidance, options and batch size; what else it asks for is left out.
    """
    how = how or Request()
    return Request(
        prompts=[question.prompt for question in questions],
        seed=seed,
        steps=how.steps,
        guidance=how.guidance,
        sampler=how.sampler,
        options=how.options,
        batch_size=how.batch_size,
    )


def evaluate(
    loaded: LoadedModel,
    per_class: int = 10,
    seed: int = 0,
    how: Request | None = None,
    renders: int = 256,
    keep_images: bool = False,
    on_step: OnStep | None = None,
    on_sample: Callable[[int], None] | None = None,
    pairs: int | None = None,
) -> Evaluation:
    """Sample every combination `per_class` times, and `pairs` prompts of two objects, and judge the pictures.

    `how` gives the sampler's settings (see `evaluation_request`), `pairs` is as in `evaluation_questions`;
    `on_sample` receives the number of pictures judged so far. Raises `InvalidInput` as `evaluation_questions`
    does, and for pictures that the judge cannot read.
    """
    questions = evaluation_questions(loaded.session, loaded.reference, per_class, pairs, seed)
    request = evaluation_request(questions, seed, how)
    timed = Timed(loaded.sample(request, on_step), Image)
    answers: list[Answer] = []
    images: list[Image] = []
    for index, artifact in enumerate(timed):
        answers.append(mark(artifact, questions[index], request.seed_of(index)))
        size = artifact.pixels.shape[-1]
        if keep_images:
            images.append(artifact)
        if on_sample is not None:
            on_sample(len(answers))
    bits = _bits_per_dim(loaded, size, seed, renders)
    return Evaluation(
        **run_facts(loaded, request, timed.seconds / len(answers)),
        per_class=per_class,
        answers=tuple(answers),
        bits_per_dim=bits,
        renders=0 if bits is None else renders,
        images=tuple(images),
    )


def _bits_per_dim(loaded: LoadedModel, size: int, seed: int, renders: int) -> float | None:
    if "likelihood" not in loaded.architecture.offers or renders < 1:
        return None
    noise = BatchNoise("evaluate", seed)
    pictures, _ = single_objects(noise, renders, size)
    images = to_8_bit(pictures)
    uniform = noise.uniform("dequantise", images.shape)
    chunks = (torch.split(tensor, _LIKELIHOOD_BATCH) for tensor in (images, uniform))
    bits = torch.cat([loaded.bits_per_dim(*pair) for pair in zip(*chunks, strict=True)]).double()
    mean = float(bits.mean())
    return mean if math.isfinite(mean) else None


def to_8_bit(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as whole numbers 0..255, in float32."""
    return ((pictures + 1.0) * 127.5).round().clamp(0.0, 255.0)
