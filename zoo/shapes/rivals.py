"""Weighing an explanation of a picture against its rivals: other shapes, sizes and depth orders."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from zoo.shapes.fitting import KINDS, Fit, Hypotheses, draw_kinds, fit, refine
from zoo.shapes.searching import nearest_cells

#: How many of an object's rival kinds get their position refined: those that fit best as they stand.
_SHORTLIST = 5

#: Errors closer than this, relative and absolute, do not tell two depth orders apart.
_TIE = 1e-5


@lru_cache(maxsize=1)
def _centroids() -> Tensor:
    """Centre of gravity of each kind relative to its centre, as fractions of the side: [kinds, 2]."""
    side = 64
    masks = draw_kinds(torch.arange(len(KINDS)), torch.full((len(KINDS), 2), 0.5), side)
    masks = masks.reshape(-1, side, side)
    axis = (torch.arange(side) + 0.5) / side - 0.5
    across, down = (masks * axis).sum((1, 2)), (masks * axis[:, None]).sum((1, 2))
    return torch.stack([across, down], 1) / masks.sum((1, 2))[:, None]


def _replace_kind(guess: Hypotheses, index: int) -> Hypotheses:
    """Every other kind in place of object `index` of the single guess, centres of gravity kept."""
    own = int(guess.kind[0, index])
    others = torch.tensor([kind for kind in range(len(KINDS)) if kind != own])
    kinds = guess.kind.repeat(len(others), 1)
    centres = guess.centre.repeat(len(others), 1, 1)
    kinds[:, index] = others
    centres[:, index] += _centroids()[own] - _centroids()[others]
    return Hypotheses(kinds, centres, guess.softness)


def rival_kinds(image: Tensor, state: Fit) -> Fit:
    """The single fit with one object of another shape or size, at its best place: the closest rivals."""
    shortlist, moving = [], []
    for index in range(state.masks.shape[1]):
        rivals = fit(image, _replace_kind(state.guess, index))
        best = rivals.take(rivals.error.argsort()[:_SHORTLIST])
        shortlist.append(best.guess)
        moving.append(torch.full((len(best.error), 1), index))
    guess = Hypotheses(
        torch.cat([g.kind for g in shortlist]),
        torch.cat([g.centre for g in shortlist]),
        state.guess.softness,
    )
    return refine(image, fit(image, guess), torch.cat(moving), steps=3)


def settle_order(image: Tensor, state: Fit) -> Fit:
    """The depth order that fits best; among equals the one that lists objects from the top left."""
    count = state.masks.shape[1]
    if count == 1:
        return state
    kind, centre = state.guess.kind[0], state.guess.centre[0]
    orders = torch.tensor(list(permutations(nearest_cells(centre).argsort().tolist())))
    ordered = fit(image, Hypotheses(kind[orders], centre[orders], state.guess.softness))
    least = ordered.error.min()
    first = int((ordered.error <= least * (1.0 + _TIE) + _TIE).nonzero()[0])
    return refine(image, ordered.take(torch.tensor([first])), steps=2)


def ambiguity(image: Tensor, state: Fit, rivals: Fit) -> float:
    """How far the picture stands on the way from the single fit (0) to its nearest rival (1).

    The picture is projected on the straight line between the two redrawn pictures, so noise, which has no
    preferred direction, hardly changes the figure: a picture half-way between two shapes has 0.5.
    """
    towards = (rivals.picture - state.picture).flatten(1)
    away = (image - state.picture[0]).flatten()
    return float((towards @ away / towards.square().sum(1)).max())


def polish(image: Tensor, state: Fit, rounds: int = 4) -> tuple[Fit, Fit]:
    """Adopt rivals as long as one fits better: the settled single fit, and its remaining rivals."""
    state = settle_order(image, refine(image, state))
    rivals = rival_kinds(image, state)
    for _ in range(rounds):
        best = int(rivals.error.argmin())
        if rivals.error[best] >= state.error[0]:
            break
        state = settle_order(image, rivals.take(torch.tensor([best])))
        rivals = rival_kinds(image, state)
    return state, rivals
