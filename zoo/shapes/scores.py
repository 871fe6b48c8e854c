"""Marked pictures added up: by group, by combination of colour and shape, and by relation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zoo.shapes.captions import RELATIONS
from zoo.shapes.exam import Answer


class Asked(Protocol):
    """A question of any exam."""

    @property
    def held_out(self) -> bool:
        """Whether training left out a combination in it."""
        ...


class Marked(Protocol):
    """An answer of any exam."""

    @property
    def question(self) -> Asked:
        """What was asked."""
        ...

    @property
    def correct(self) -> bool:
        """Whether that was answered."""
        ...


@dataclass(frozen=True)
class Share:
    """How many samples of a group agree with their prompts."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """`correct` / `total`; None for no samples."""
        return self.correct / self.total if self.total else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"correct": self.correct, "total": self.total, "accuracy": self.accuracy}


@dataclass(frozen=True)
class GroupScore:
    """A group of prompts: all, and those whose combinations training showed or left out."""

    all: Share
    seen: Share
    held_out: Share

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        parts = {"seen": self.seen.to_dict(), "held_out": self.held_out.to_dict()}
        return {**self.all.to_dict(), **parts}


@dataclass(frozen=True)
class ClassScore:
    """One combination of colour and shape. `held_out`: it was left out of training.

    `in_pairs` counts the pairs that ask for it beside another one; None where no pairs were asked for.
    """

    name: str
    prompt: str
    held_out: bool
    correct: int
    total: int
    in_pairs: Share | None = None

    @property
    def accuracy(self) -> float:
        """Share of its single objects that agree with the prompt."""
        return self.correct / self.total

    @property
    def overall(self) -> float:
        """As `accuracy`, but of all samples that ask for it."""
        pairs = self.in_pairs or Share(0, 0)
        return (self.correct + pairs.correct) / (self.total + pairs.total)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "prompt": self.prompt,
            "held_out": self.held_out,
            "correct": self.correct,
            "total": self.total,
            "accuracy": self.accuracy,
            "in_pairs": None if self.in_pairs is None else self.in_pairs.to_dict(),
        }


def share(answers: Iterable[Marked]) -> Share:
    """All of these samples."""
    verdicts = [answer.correct for answer in answers]
    return Share(sum(verdicts), len(verdicts))


def group_score(answers: Sequence[Marked]) -> GroupScore:
    """All of these samples, and parted into seen and held-out ones."""
    return GroupScore(
        share(answers),
        share(answer for answer in answers if not answer.question.held_out),
        share(answer for answer in answers if answer.question.held_out),
    )


def class_scores(answers: Sequence[Answer]) -> tuple[ClassScore, ...]:
    """Each combination that single objects ask for, in their order."""
    singles = [answer for answer in answers if not answer.question.is_pair]
    pairs = [answer for answer in answers if answer.question.is_pair]
    own: dict[str, list[Answer]] = {answer.question.names[0]: [] for answer in singles}
    beside: dict[str, list[Answer]] = {name: [] for answer in pairs for name in answer.question.names}
    for answer in singles:
        own[answer.question.names[0]].append(answer)
    for answer in pairs:
        for name in answer.question.names:
            beside[name].append(answer)
    return tuple(
        ClassScore(
            name,
            group[0].question.prompt,
            group[0].question.held_out,
            share(group).correct,
            len(group),
            in_pairs=share(beside.get(name, [])) if pairs else None,
        )
        for name, group in own.items()
    )


def relation_scores(answers: Sequence[Answer]) -> dict[str, Share]:
    """The pairs by relation, in the order of the grammar; {} where there are none."""
    found = {answer.question.relation for answer in answers}
    return {
        relation: share(answer for answer in answers if answer.question.relation == relation)
        for relation in RELATIONS
        if relation in found
    }
