"""Fitting drawn objects to a picture: least-squares colours and positions, many hypotheses at once.

P is the number of pixels, H the number of hypotheses and n the number of objects of each. Pictures are
flattened to [3, P] and in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isqrt

import torch
from torch import Tensor
from torch.nn import functional

from zoo.shapes.rendering import coverage
from zoo.shapes.scene import SHAPES, SIZES

#: What an object can look like apart from its colour: every (shape, size), in the order of kind ids.
KINDS = tuple((shape, size) for shape in SHAPES for size in SIZES)

_KIND_SHAPE = torch.tensor([SHAPES.index(shape) for shape, _ in KINDS])
_KIND_RADIUS = torch.tensor([SIZES[size] for _, size in KINDS])

#: Keeps the equations solvable where an object is hidden; far below the weight of one pixel.
_RIDGE = 1e-4

#: Half of the step, in pixels, over which drawing is differentiated.
_STEP = 0.25

#: Farthest that one iteration moves an object, in pixels: about as far as the linear model is good.
_STRIDE = 1.5

#: Refining ends when a step gains less than this share of the error, or this sum of squared differences.
_SMALLEST_GAIN, _NEGLIGIBLE = 1e-3, 1e-5


@dataclass(frozen=True)
class Hypotheses:
    """H guesses of n objects each, back to front: `kind` [H, n] into `KINDS`, `centre` [H, n, 2] as (x, y).

    `softness` is the standard deviation, in pixels, of a blur over all edges; 0 is as drawn.
    """

    kind: Tensor
    centre: Tensor
    softness: float = 0.0

    def take(self, index: Tensor) -> Hypotheses:
        """The guesses at `index`, in that order; an index may occur several times."""
        return Hypotheses(self.kind[index], self.centre[index], self.softness)


@dataclass(frozen=True)
class Fit:
    """Hypotheses with the colours that suit the picture best.

    `masks` [H, n, P] ignore occlusion. `visible` [H, n + 1, P] and `colours` [H, n + 1, 3] put the
    background first. `picture` [H, 3, P] is the redrawn picture, `error` [H] its sum of squared differences.
    """

    guess: Hypotheses
    masks: Tensor
    visible: Tensor
    colours: Tensor
    picture: Tensor
    error: Tensor

    def take(self, index: Tensor) -> Fit:
        """The fits at `index`, in that order."""
        parts = (self.masks, self.visible, self.colours, self.picture, self.error)
        return Fit(self.guess.take(index), *(part[index] for part in parts))


def _soften(masks: Tensor, softness: float) -> Tensor:
    """Blur pictures [m, side, side] by a Gaussian of `softness` pixels."""
    reach = ceil(3.0 * softness)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / softness).square())
    weight = (weight / weight.sum())[None, None]
    padded = functional.pad(masks[:, None], (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, weight[:, :, None])
    return functional.conv2d(across, weight[:, :, :, None])[:, 0]


def draw_kinds(kind: Tensor, centre: Tensor, side: int, softness: float = 0.0) -> Tensor:
    """Coverage of objects `kind` [...] at `centre` [..., 2], in a picture of `side` pixels: [..., P]."""
    flat = kind.reshape(-1)
    drawn = coverage(_KIND_SHAPE[flat], centre.reshape(-1, 2), _KIND_RADIUS[flat], side)
    if softness:
        drawn = _soften(drawn, softness)
    return drawn.reshape(*kind.shape, side * side)


def stack_visible(masks: Tensor) -> Tensor:
    """What is seen of the background and of each object: [H, n, P] -> [H, n + 1, P], summing to one."""
    shown = torch.ones(masks.shape[0], masks.shape[2])
    parts = []
    for index in reversed(range(masks.shape[1])):
        parts.append(masks[:, index] * shown)
        shown = shown * (1.0 - masks[:, index])
    return torch.stack([shown, *reversed(parts)], 1)


def fit_colours(image: Tensor, guess: Hypotheses, masks: Tensor) -> Fit:
    """The best colours for objects that are already drawn."""
    visible = stack_visible(masks)
    gram = visible @ visible.transpose(1, 2) + _RIDGE * torch.eye(visible.shape[1])
    colours = torch.linalg.solve(gram, visible @ image.T)
    picture = colours.transpose(1, 2) @ visible
    return Fit(guess, masks, visible, colours, picture, (picture - image).square().sum((1, 2)))


def fit(image: Tensor, guess: Hypotheses) -> Fit:
    """Draw the guesses and give them the best colours."""
    masks = draw_kinds(guess.kind, guess.centre, isqrt(image.shape[1]), guess.softness)
    return fit_colours(image, guess, masks)


def _gains(state: Fit) -> Tensor:
    """How the picture changes as more of a pixel is covered by each object: [H, n, 3, P]."""
    below = state.colours[:, 0, :, None].expand_as(state.picture)
    changes = []
    for index in range(state.masks.shape[1]):
        change = state.colours[:, index + 1, :, None] - below
        changes.append(change)
        below = below + change * state.masks[:, index, None]
    shown = torch.ones_like(below[:, :1])
    for index in reversed(range(len(changes))):
        changes[index] = changes[index] * shown
        shown = shown * (1.0 - state.masks[:, index, None])
    return torch.stack(changes, 1)


def _slopes(kind: Tensor, centre: Tensor, side: int, softness: float) -> Tensor:
    """Derivative of coverage by x and y, in pixels: [H, k] and [H, k, 2] -> [H, k, 2, P]."""
    shift = torch.tensor([[_STEP, 0.0], [0.0, _STEP]]) / side
    shifted = torch.stack([centre[:, :, None] + shift, centre[:, :, None] - shift])
    ahead, behind = draw_kinds(kind[None, :, :, None].expand(shifted.shape[:-1]), shifted, side, softness)
    slopes: Tensor = (ahead - behind) / (2.0 * _STEP)
    return slopes


def _step(image: Tensor, state: Fit, moving: Tensor) -> Fit:
    """Move the objects `moving` [H, k] by one Gauss-Newton step, and fit the colours again."""
    side, softness = isqrt(image.shape[1]), state.guess.softness
    rows = torch.arange(len(moving))[:, None]
    kind, centre = state.guess.kind[rows, moving], state.guess.centre[rows, moving]
    slopes = _slopes(kind, centre, side, softness)
    jacobian = (_gains(state)[rows, moving][:, :, None] * slopes[:, :, :, None]).flatten(3).flatten(1, 2)
    residual = (image - state.picture).flatten(1)
    normal = jacobian @ jacobian.transpose(1, 2)
    normal = normal + _RIDGE * torch.eye(normal.shape[1])
    stride = torch.linalg.solve(normal, jacobian @ residual[:, :, None]).clamp(-_STRIDE, _STRIDE)
    centre = centre + stride.reshape(centre.shape) / side
    centres, masks = state.guess.centre.clone(), state.masks.clone()
    centres[rows, moving] = centre
    masks[rows, moving] = draw_kinds(kind, centre, side, softness)
    return fit_colours(image, Hypotheses(state.guess.kind, centres, softness), masks)


def _choose(first: Fit, second: Fit, use_second: Tensor) -> Fit:
    """Row by row one of two batches of fits that differ in centres: `use_second` [H] picks the second."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(use_second.reshape(-1, *[1] * (a.dim() - 1)), b, a)

    guess = Hypotheses(first.guess.kind, pick(first.guess.centre, second.guess.centre), first.guess.softness)
    return Fit(
        guess,
        pick(first.masks, second.masks),
        pick(first.visible, second.visible),
        pick(first.colours, second.colours),
        pick(first.picture, second.picture),
        pick(first.error, second.error),
    )


def refine(image: Tensor, state: Fit, moving: Tensor | None = None, steps: int = 4) -> Fit:
    """Improve positions by at most `steps` Gauss-Newton steps; a step that does not help is not taken.

    `moving` [H, k] names the objects that may move, by default all of them.
    """
    if moving is None:
        moving = torch.arange(state.masks.shape[1]).expand(len(state.error), -1)
    for _ in range(steps):
        moved = _step(image, state, moving)
        gain = state.error - moved.error
        state = _choose(state, moved, gain > 0)
        if not (gain > _SMALLEST_GAIN * state.error + _NEGLIGIBLE).any():
            break
    return state
