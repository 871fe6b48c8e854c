"""Finding candidate objects in a picture, by matching drawn templates in every cell of the grid.

One matrix product compares the picture with every kind of object at every place and in every colour.
Pictures are flattened to [3, P] and in [0, 1]; H is the number of hypotheses and n of their objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, isqrt

import torch
from torch import Tensor

from zoo.shapes.fitting import KINDS, Fit, Hypotheses, draw_kinds, fit, refine, stack_visible
from zoo.shapes.rendering import colour_table
from zoo.shapes.scene import COLOURS, GRID, SIZES

#: Displacements from a cell's centre at which templates are drawn, as fractions of the side. At 32 pixels
#: the step is about one pixel, which is near enough for `refine` to find the exact place.
_SHIFTS = (-0.06, -0.03, 0.0, 0.03, 0.06)

#: A colour is worth trying where this many pixels are this near to it (the smallest object covers about 30
#: pixels at 32 pixels a side, of which two thirds can be mixed with others at its edges).
_COLOUR_REACH, _FEWEST_PIXELS = 0.35, 4

_CELLS = [(x, y) for y in GRID for x in GRID]

#: Farthest from a cell's centre that a template reaches.
_REACH = max(SIZES.values()) + max(_SHIFTS)


@dataclass(frozen=True)
class _Templates:
    """What can stand in one cell: `masks` [kinds * shifts, pixels] in a window around it, and their squares.

    `centres` [shifts, 2] are the places; `rows` and `columns` say where in the picture the window is.
    """

    masks: Tensor
    squares: Tensor
    centres: Tensor
    rows: slice
    columns: slice

    def crop(self, pictures: Tensor) -> Tensor:
        """The window of pictures [..., side, side], flattened: [..., pixels]."""
        return pictures[..., self.rows, self.columns].flatten(-2)


def _window(middle: float, side: int) -> slice:
    return slice(max(floor((middle - _REACH) * side), 0), min(ceil((middle + _REACH) * side) + 1, side))


@lru_cache(maxsize=2)
def _templates(side: int) -> tuple[_Templates, ...]:
    """The templates of every cell, for pictures of `side` pixels."""
    shifts = torch.tensor([(x, y) for y in _SHIFTS for x in _SHIFTS])
    kinds = torch.arange(len(KINDS))[:, None].expand(-1, len(shifts))
    result = []
    for x, y in _CELLS:
        centres = torch.tensor([x, y]) + shifts
        drawn = draw_kinds(kinds, centres.expand(*kinds.shape, 2), side).reshape(-1, side, side)
        rows, columns = _window(y, side), _window(x, side)
        masks = drawn[:, rows, columns].flatten(1)
        result.append(_Templates(masks, masks.square(), centres, rows, columns))
    return tuple(result)


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


def _palette(image: Tensor) -> Tensor:
    """The object colours that occur in the picture at all, so that the others need not be tried."""
    palette = colour_table(COLOURS)
    near = (image[:, :, None] - palette.T[:, None]).norm(dim=0) < _COLOUR_REACH
    present = near.sum(0) >= _FEWEST_PIXELS
    return palette[present] if present.any() else palette


def _scan(image: Tensor, state: Fit) -> tuple[Tensor, Tensor]:
    """Error with one more object: [H, depths, cells, kinds], and the best shift for each, as an index."""
    side, palette = isqrt(image.shape[1]), _palette(image)
    hypotheses, count = state.guess.kind.shape
    parts = [_columns(image, state, depth, palette) for depth in range(count + 1)]
    linear = torch.stack([part[0] for part in parts], 1).reshape(-1, side, side)
    quadratic = torch.stack([part[1] for part in parts], 1).reshape(-1, side, side)
    errors, shifts = [], []
    for cell in _templates(side):
        change = cell.squares @ cell.crop(quadratic).T - 2.0 * (cell.masks @ cell.crop(linear).T)
        best = change.reshape(len(KINDS), -1, hypotheses, count + 1, len(palette)).amin(-1).min(1)
        errors.append(best.values.permute(1, 2, 0) + state.error[:, None, None])
        shifts.append(best.indices.permute(1, 2, 0))
    error = torch.stack(errors, 2)
    for hypothesis, cells in enumerate(nearest_cells(state.guess.centre)):
        error[hypothesis, :, cells] = torch.inf
    return error, torch.stack(shifts, 2)


def add_object(image: Tensor, state: Fit, beam: int) -> Fit:
    """The `beam` best ways to put one more object into any of the hypotheses, best first, refined."""
    error, shift = _scan(image, state)
    order = error.flatten().argsort()[:beam]
    templates = _templates(isqrt(image.shape[1]))
    guesses = []
    for index in order:
        which, depth, cell, kind = (int(part) for part in torch.unravel_index(index, error.shape))
        place = templates[cell].centres[shift[which, depth, cell, kind]]
        guesses.append(_insert(state.guess.take(torch.tensor([which])), depth, torch.tensor(kind), place))
    guess = Hypotheses(torch.cat([g.kind for g in guesses]), torch.cat([g.centre for g in guesses]))
    found = refine(image, fit(image, guess), steps=3)
    return found.take(found.error.argsort())


def _insert(guess: Hypotheses, depth: int, kind: Tensor, place: Tensor) -> Hypotheses:
    kinds = torch.cat([guess.kind[:, :depth], kind.reshape(1, 1), guess.kind[:, depth:]], 1)
    centres = torch.cat([guess.centre[:, :depth], place.reshape(1, 1, 2), guess.centre[:, depth:]], 1)
    return Hypotheses(kinds, centres)
