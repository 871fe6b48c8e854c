"""Marked layered pictures added up: objects in their layers, masks, composites and backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.shapes.layer_exam import MASK_FITS, LayeredAnswer
from zoo.shapes.scores import GroupScore, Share


@dataclass(frozen=True)
class MaskScore:
    """How well masks fit what their layers show. `mean` is the mean intersection over union."""

    mean: float
    fitting: Share  #: masks with an intersection over union of at least `MASK_FITS`

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"mean_iou": self.mean, "fits_from": MASK_FITS, "fitting": self.fitting.to_dict()}


@dataclass(frozen=True)
class LayeredScore:
    """A group of layered pictures.

    `exact` counts samples in which every foreground layer shows exactly its prompt's object, `layers` such
    layers, `composites` samples whose composite agrees with the global prompt, `backgrounds` samples whose
    background layer shows the background asked for and nothing else. `masks` is None where the model does not
    tell what it drew before masks were applied.
    """

    exact: GroupScore
    layers: Share
    masks: MaskScore | None
    composites: GroupScore
    backgrounds: Share

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "samples": self.exact.all.total,
            "all_layers": self.exact.to_dict(),
            "layers": self.layers.to_dict(),
            "masks": None if self.masks is None else self.masks.to_dict(),
            "composites": self.composites.to_dict(),
            "backgrounds": self.backgrounds.to_dict(),
        }


def layered_score(answers: Sequence[LayeredAnswer]) -> LayeredScore:
    """All of these samples."""
    marks = [mark for answer in answers for mark in answer.marks]
    return LayeredScore(
        exact=_groups(answers, lambda answer: answer.exact),
        layers=_share([mark.correct for mark in marks]),
        masks=_masks([mark.mask_iou for mark in marks if mark.mask_iou is not None], len(marks)),
        composites=_groups(answers, lambda answer: answer.agrees),
        backgrounds=_share([answer.background for answer in answers]),
    )


def scores_by_layers(answers: Sequence[LayeredAnswer]) -> dict[int, LayeredScore]:
    """The samples by the number of layers that were asked for, fewest first."""
    numbers = sorted({answer.question.layers for answer in answers})
    return {
        number: layered_score([answer for answer in answers if answer.question.layers == number])
        for number in numbers
    }


def _masks(ious: Sequence[float], layers: int) -> MaskScore | None:
    # Layers that are missing have an intersection over union of 0, also where no other has any.
    if not ious or len(ious) < layers:
        return None
    return MaskScore(sum(ious) / len(ious), _share([iou >= MASK_FITS for iou in ious]))


def _groups(answers: Sequence[LayeredAnswer], right: Callable[[LayeredAnswer], bool]) -> GroupScore:
    def of(*held_out: bool) -> Share:
        return _share([right(answer) for answer in answers if answer.question.held_out in held_out])

    return GroupScore(of(False, True), of(False), of(True))


def _share(verdicts: Sequence[bool]) -> Share:
    return Share(sum(verdicts), len(verdicts))
