"""Finding candidate objects in a picture, by matching drawn templates in every cell of the grid.

One matrix product compares the picture with every kind of object at every place and in every colour.
Pictures are flattened to [3, P] and in [0, 1]; H is the number of hypotheses and n of their objects.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor

from zoo.shapes.fitting import KINDS, Fit, Hypotheses, draw_kinds, fit, refine, stack_visible
from zoo.shapes.rendering import colour_table
from zoo.shapes.scene import COLOURS, GRID

#: Displacements from a cell's centre at which templates are drawn, as fractions of the side. At 32 pixels
#: the step is about one pixel, which is near enough for `refine` to find the exact place.
_SHIFTS = (-0.06, -0.03, 0.0, 0.03, 0.06)

_CELLS = [(x, y) for y in GRID for x in GRID]


@lru_cache(maxsize=2)
def _templates(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Masks [cells * kinds * shifts, P], their squares, and the shifted centres [cells, shifts, 2]."""
    shifts = torch.tensor([(x, y) for y in _SHIFTS for x in _SHIFTS])
    centres = torch.tensor(_CELLS)[:, None] + shifts
    kinds = torch.arange(len(KINDS))[:, None].expand(-1, len(shifts))
    masks = torch.cat([draw_kinds(kinds, place.expand(*kinds.shape, 2), side) for place in centres])
    masks = masks.flatten(0, 1)
    return masks, masks.square(), centres


def nearest_cells(centre: Tensor) -> Tensor:
    """Index, row by row, of the cell that each centre [..., 2] is in."""
    return (centre[..., None, :] - torch.tensor(_CELLS)).square().sum(-1).argmin(-1)


def empty(image: Tensor) -> Fit:
    """One hypothesis without objects: the picture's background, which covers most of it, is its median."""
    colour = image.median(1).values[:, None]
    picture = colour.expand_as(image)[None]
    guess = Hypotheses(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, 2))
    masks = torch.zeros(1, 0, image.shape[1])
    error = (picture - image).square().sum((1, 2))
    return Fit(guess, masks, stack_visible(masks), colour.T[None], picture, error)


def _columns(image: Tensor, state: Fit, depth: int, palette: Tensor) -> tuple[Tensor, Tensor]:
    """What a template at `depth` would change: the error's linear and quadratic part, [H, colours, P] each.

    Putting coverage m of colour c over what lies below (u), seen through what lies above (s), adds
    s m (c - u) to the picture; the error of that is quadratic in m, pixel by pixel.
    """
    below = state.colours[:, 0, :, None].expand_as(state.picture)
    for index in range(depth):
        mask = state.masks[:, index, None]
        below = below + (state.colours[:, index + 1, :, None] - below) * mask
    shown = (1.0 - state.masks[:, depth:]).prod(1)[:, None, None]
    change = shown * (palette[:, :, None] - below[:, None])
    residual = (image - state.picture)[:, None]
    return (residual * change).sum(2), change.square().sum(2)


def _scan(image: Tensor, state: Fit) -> tuple[Tensor, Tensor]:
    """Error with one more object: [H, depths, cells, kinds], and the best shift for each, as an index."""
    masks, squares, _ = _templates(isqrt(image.shape[1]))
    palette = colour_table(COLOURS)
    hypotheses, count = state.guess.kind.shape
    parts = [_columns(image, state, depth, palette) for depth in range(count + 1)]
    linear = torch.stack([part[0] for part in parts], 1).flatten(0, 2)
    quadratic = torch.stack([part[1] for part in parts], 1).flatten(0, 2)
    change = squares @ quadratic.T - 2.0 * (masks @ linear.T)
    change = change.reshape(len(_CELLS), len(KINDS), -1, hypotheses, count + 1, len(palette))
    best = change.amin(-1).min(2)
    error = state.error[:, None, None, None] + best.values.permute(2, 3, 0, 1)
    taken = nearest_cells(state.guess.centre)
    for hypothesis, cells in enumerate(taken):
        error[hypothesis, :, cells] = torch.inf
    return error, best.indices.permute(2, 3, 0, 1)


def add_object(image: Tensor, state: Fit, beam: int) -> Fit:
    """The `beam` best ways to put one more object into any of the hypotheses, best first, refined."""
    error, shift = _scan(image, state)
    order = error.flatten().argsort()[:beam]
    which, depth, cell, kind = torch.unravel_index(order, error.shape)
    centres = _templates(isqrt(image.shape[1]))[2]
    place = centres[cell, shift.flatten()[order]]
    guesses = [
        _insert(state.guess.take(which[row : row + 1]), int(depth[row]), kind[row], place[row])
        for row in range(len(order))
    ]
    guess = Hypotheses(torch.cat([g.kind for g in guesses]), torch.cat([g.centre for g in guesses]))
    found = refine(image, fit(image, guess), steps=3)
    return found.take(found.error.argsort())


def _insert(guess: Hypotheses, depth: int, kind: Tensor, place: Tensor) -> Hypotheses:
    kinds = torch.cat([guess.kind[:, :depth], kind.reshape(1, 1), guess.kind[:, depth:]], 1)
    centres = torch.cat([guess.centre[:, :depth], place.reshape(1, 1, 2), guess.centre[:, depth:]], 1)
    return Hypotheses(kinds, centres)
