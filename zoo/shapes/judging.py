"""Reading a picture of the shapes world back into a `Scene`, by classical vision: analysis by synthesis.

One, two and then three objects are searched for; the first explanation that, drawn again, leaves nothing
unexplained is the answer. Colours are measured, never assumed, and then named by the nearest colour. A
picture that no scene explains clearly is refused with `Unjudgeable`.

A picture is clear if it passes three tests. `ambiguity` projects it on the line from the explanation (0) to
its nearest rival of another shape or size (1), which noise hardly moves; `residue` is the largest patch left
over, as a share of the weakest object's contrast, beyond what the noise explains; colours must be near their
name and clearly nearer to it than to the next. Largest figures of single objects at 32 pixels:

    picture                                                          ambiguity   residue
    clean                                                                 0.00      0.00
    noise of 0.05                                                         0.14      0.03
    edges blurred by 0.5 to 0.9 pixels                                    0.12      0.03
    noise of 0.05, blur of 0.5, colours off by 0.08 per channel           0.22      0.03

The limits of 0.25 and 0.1 leave these room and refuse the rest: pictures of two shapes mixed half and half
have an ambiguity of 0.26 to 0.50, half objects a residue of 0.13 or more, and stray spots of 2x2 pixels one
of 0.16 or more. At 64 pixels all of this is clearer: 0.07 and 0.01 with every defect, 0.31 half-way, 0.31 and
0.34 for halves and spots.

What is too alike for so few pixels counts as the same: a regular octagon is a circle, and a small square
turned by 20 degrees is nearer to the circle than to the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from zoo.shapes.captions import Description, describe, matches, parse
from zoo.shapes.fitting import KINDS, Fit, Hypotheses, fit, refine
from zoo.shapes.rendering import colour_table
from zoo.shapes.rivals import ambiguity, polish
from zoo.shapes.scene import BACKGROUNDS, COLOURS, GRID, Item, Scene
from zoo.shapes.searching import add_object, empty, nearest_cells

#: Objects are searched for at no more than this many pixels a side, and judged at no more than that many.
_SEARCH_SIDE, _LARGEST_SIDE, _SMALLEST_SIDE = 40, 64, 24

#: Explanations kept while the next object is searched for.
_BEAM = 6

#: Softness of edges to try beyond none, in pixels.
_SOFTNESS = (0.4, 0.6, 0.8)

#: Above this residue an object is probably missing, so more are searched for before rivals are weighed.
_WORTH_POLISHING = 0.5

#: A mean squared difference that leaves nothing to explain.
_EXACT = 1e-6

#: Largest `Verdict.ambiguity`.
AMBIGUITY_LIMIT = 0.25
#: Largest standard deviation of noise, per channel.
NOISE_LIMIT = 0.08
#: Largest unexplained patch, as a share of the weakest object's contrast, beyond what noise explains.
RESIDUE_LIMIT = 0.1
#: Largest distance (Euclidean, RGB in [0, 1]) of a colour from its name.
COLOUR_LIMIT = 0.2
#: Largest distance of a colour on the way to the next name: 0.5 is half-way.
COLOUR_AMBIGUITY_LIMIT = 0.4
#: Farthest from the centre of its cell that an object stands, in x or in y.
OFFSET_LIMIT = 0.1

#: A pixel farther than this from the commonest colour is no background, and how many of them there may be.
#: Three large objects cover a third of a picture; the rest is room for noise.
_BACKGROUND_REACH, _LARGEST_SHARE = 0.15, 0.6

#: An object differs from the background by at least this, after averaging 3x3 pixels, over at least this
#: share of the picture. The smallest object covers 0.034 of it; averaged noise of 0.05 stays below.
_FAINTEST, _SMALLEST_SHARE = 0.07, 0.01

_ALL_COLOURS = {**COLOURS, **BACKGROUNDS}


class Unjudgeable(ValueError):
    """The picture shows no clear scene; the message says what is wrong."""


@dataclass(frozen=True)
class Verdict:
    """A judged picture.

    `ambiguity` is how far the picture stands on the way to the nearest other scene (0 = at `scene`,
    0.5 = half-way), `noise` the standard deviation per channel, `softness` the blur of the edges in pixels
    and `residue` the largest unexplained patch as a share of the weakest object's contrast.
    """

    scene: Scene
    ambiguity: float
    noise: float
    softness: float
    residue: float


def _resize(image: Tensor, side: int) -> Tensor:
    return functional.adaptive_avg_pool2d(image, side) if image.shape[-1] > side else image


def _check(image: Tensor) -> Tensor:
    """The picture as float32 in [0, 1], not larger than need be."""
    if image.dim() != 3 or image.shape[0] != 3 or image.shape[1] != image.shape[2]:
        raise ValueError(f"expected a square RGB picture [3, h, h], got shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"expected a float picture in [0, 1], got {image.dtype}")
    if image.shape[-1] < _SMALLEST_SIDE:
        raise ValueError(f"expected at least {_SMALLEST_SIDE} pixels a side, got {image.shape[-1]}")
    if not image.isfinite().all():
        raise Unjudgeable("the picture holds values that are not finite numbers")
    return _resize(image.detach().to("cpu", torch.float32).clamp(0.0, 1.0), _LARGEST_SIDE)


def _name(colour: Tensor, allowed: dict[str, tuple[int, int, int]], what: str) -> str:
    """The name of a measured colour, if it is near it and clearly nearer than to any other name."""
    names, table = list(_ALL_COLOURS), colour_table(_ALL_COLOURS)
    distance = (table - colour).norm(dim=1)
    nearest = int(distance.argmin())
    towards = table - table[nearest]
    length = towards.square().sum(1)
    progress = torch.where(length > 0, towards @ (colour - table[nearest]) / length.clamp_min(1e-9), 0.0)
    shown = ", ".join(f"{channel:.2f}" for channel in colour.tolist())
    if names[nearest] not in allowed or distance[nearest] > COLOUR_LIMIT:
        raise Unjudgeable(f"the {what} has colour ({shown}), which has no name")
    if float(progress.max()) > COLOUR_AMBIGUITY_LIMIT:
        other = names[int(progress.argmax())]
        raise Unjudgeable(f"the {what} has colour ({shown}), between {names[nearest]} and {other}")
    return names[nearest]


def _to_scene(state: Fit) -> Scene:
    """The scene of a single fit, its colours named."""
    colours = state.colours[0]
    background = _name(colours[0], BACKGROUNDS, "background")
    items = []
    for kind, centre, colour in zip(state.guess.kind[0], state.guess.centre[0], colours[1:], strict=True):
        shape, size = KINDS[int(kind)]
        row, column = divmod(int(nearest_cells(centre)), len(GRID))
        offset = (float(centre[0]) - GRID[column], float(centre[1]) - GRID[row])
        if max(abs(offset[0]), abs(offset[1])) > OFFSET_LIMIT:
            raise Unjudgeable(f"the {shape} stands between the cells of the grid")
        items.append(Item(shape, _name(colour, COLOURS, shape), size, (row, column), offset))
    if len({item.cell for item in items}) != len(items):
        raise Unjudgeable("two objects stand in the same cell")
    return Scene(background, tuple(items))


def _residue(image: Tensor, state: Fit) -> tuple[float, float]:
    """Noise per channel, and the largest patch that the fit leaves unexplained beyond it.

    A patch is 3x3 pixels at 32 pixels a side, where averaging leaves a third of the noise. The noise is
    taken from the median, which a local defect does not move.
    """
    side = isqrt(image.shape[1])
    difference = (image - state.picture[0]).reshape(3, side, side)
    noise = 1.4826 * float(difference.abs().median())
    window = 2 * round(3 * side / 64) + 1
    patch = functional.avg_pool2d(difference[None], window, 1, window // 2, count_include_pad=False)
    contrast = float((state.colours[0, 1:] - state.colours[0, :1]).norm(dim=1).min())
    unexplained = float(patch[0].norm(dim=0).max()) - 2.0 * noise * 3.0 / window
    return noise, max(unexplained, 0.0) / max(contrast, 1e-3)


def _soften(image: Tensor, state: Fit) -> Fit:
    """The single fit with the softness of edges that suits the picture best."""
    if state.error[0] < _EXACT * image.numel():
        return state
    for softness in _SOFTNESS:
        guess = Hypotheses(state.guess.kind, state.guess.centre, softness)
        softer = refine(image, fit(image, guess), steps=2)
        if softer.error >= state.error:
            break
        state = softer
    return state


def _check_contents(image: Tensor, state: Fit) -> None:
    """Refuse at once what has no background, or nothing but a background."""
    difference = image - state.picture[0]
    share = float((difference.norm(dim=0) > _BACKGROUND_REACH).float().mean())
    if share > _LARGEST_SHARE:
        raise Unjudgeable(f"{share:.0%} of the picture differ from its commonest colour: no even background")
    side = isqrt(image.shape[1])
    smooth = functional.avg_pool2d(difference.reshape(3, side, side), 3, 1).norm(dim=0)
    if float((smooth > _FAINTEST).float().mean()) < _SMALLEST_SHARE:
        raise Unjudgeable("the picture holds no object")


@torch.inference_mode()
def examine(image: Tensor) -> Verdict:
    """Judge a picture, and say how clear it was.

    `image` is a float tensor [3, h, h] with values in [0, 1] and h >= 24; above 64 it is reduced to 64.
    Raises `Unjudgeable` if no scene explains the picture clearly, `ValueError` if it is no such tensor.
    """
    full = _check(image)
    side = full.shape[-1]
    full, reduced = full.flatten(1), _resize(full, 32).flatten(1)
    coarse = reduced if side > _SEARCH_SIDE else full
    state = empty(coarse)
    _check_contents(coarse, state)
    doubtful = []
    for _ in range(3):
        state = add_object(coarse, state, _BEAM)
        best = state.take(torch.tensor([0]))
        if full is not coarse:
            best = refine(full, fit(full, best.guess))
        best = _soften(full, best)
        if _residue(full, best)[1] > _WORTH_POLISHING:
            doubtful.append(best)
        elif (verdict := _settle(full, best)) is not None:
            return verdict
    # What looked like a missing object may have been a wrong shape that others hide in part.
    for best in doubtful:
        if (verdict := _settle(full, best)) is not None:
            return verdict
    raise Unjudgeable("no scene of one to three objects, drawn again, comes near enough to the picture")


def _settle(image: Tensor, state: Fit) -> Verdict | None:
    """The verdict on a single fit once no rival is better; None if it leaves too much unexplained."""
    state, rivals = polish(image, state)
    noise, residue = _residue(image, state)
    if residue > RESIDUE_LIMIT:
        return None
    if noise > NOISE_LIMIT:
        raise Unjudgeable(f"the picture is too noisy: {noise:.2f} per channel, at most {NOISE_LIMIT}")
    scene = _to_scene(state)
    doubt = ambiguity(image, state, rivals)
    if doubt > AMBIGUITY_LIMIT:
        raise Unjudgeable(
            f"the picture is {doubt:.0%} of the way from {describe(scene)} to another shape or size"
        )
    return Verdict(scene, doubt, noise, state.guess.softness, residue)


def judge(image: Tensor) -> Scene:
    """The scene that a picture shows; see `examine` for what it takes and raises."""
    return examine(image).scene


def agrees(image: Tensor, caption: str | Description) -> bool:
    """Whether what the caption says is true of the picture; a refused picture agrees with nothing.

    Raises `CaptionError` if the caption does not parse.
    """
    description = parse(caption) if isinstance(caption, str) else caption
    try:
        return matches(description, judge(image))
    except Unjudgeable:
        return False
