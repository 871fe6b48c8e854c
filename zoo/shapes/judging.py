"""Reading a picture of the shapes world back into a `Scene`, by classical vision: analysis by synthesis.

One, two and then three objects are searched for; the first explanation that, drawn again, leaves nothing
unexplained is the answer. Colours are measured, never assumed, and then named by the nearest colour. A
picture that no scene explains clearly is refused with `Unjudgeable`.

What "clearly" means (limits below), and why. The measured figures are the largest or smallest seen on:
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from zoo.shapes.captions import Description, matches, parse
from zoo.shapes.fitting import KINDS, Fit, Hypotheses, fit, refine
from zoo.shapes.rendering import colour_table
from zoo.shapes.rivals import ambiguity, polish
from zoo.shapes.scene import BACKGROUNDS, COLOURS, GRID, Item, Scene
from zoo.shapes.searching import add_object, empty, nearest_cells

#: Objects are searched for at no more than this many pixels a side, and judged at no more than that many.
_SEARCH_SIDE, _LARGEST_SIDE, _SMALLEST_SIDE = 40, 64, 24

#: Explanations kept while the next object is searched for.
_BEAM = 6

#: Softness of edges to try, in pixels.
_SOFTNESS = (0.0, 0.4, 0.6, 0.8)

#: Largest `Verdict.ambiguity`.
AMBIGUITY_LIMIT = 0.3
#: Largest standard deviation of noise, per channel.
NOISE_LIMIT = 0.08
#: Largest unexplained patch, as a share of the weakest object's contrast, beyond what noise explains.
RESIDUE_LIMIT = 0.2
#: Largest distance (Euclidean, RGB in [0, 1]) of a colour from its name.
COLOUR_LIMIT = 0.2
#: Largest distance of a colour on the way to the next name: 0.5 is half-way.
COLOUR_AMBIGUITY_LIMIT = 0.4
#: Farthest from the centre of its cell that an object stands, in x or in y.
OFFSET_LIMIT = 0.1

#: A pixel farther than this from the background belongs to an object, and how much of a picture may do so.
_BACKGROUND_REACH, _SMALLEST_SHARE, _LARGEST_SHARE = 0.2, 0.01, 0.55

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
    side = round(image.shape[1] ** 0.5)
    difference = (image - state.picture[0]).reshape(3, side, side)
    noise = 1.4826 * float(difference.abs().median())
    window = 2 * round(3 * side / 64) + 1
    patch = functional.avg_pool2d(difference[None], window, 1, window // 2, count_include_pad=False)
    contrast = float((state.colours[0, 1:] - state.colours[0, :1]).norm(dim=1).min())
    unexplained = float(patch[0].norm(dim=0).max()) - 2.0 * noise * 3.0 / window
    return noise, max(unexplained, 0.0) / contrast


def _soften(image: Tensor, state: Fit) -> Fit:
    """The single fit with the softness of edges that suits the picture best."""
    tried = [refine(image, fit(image, Hypotheses(state.guess.kind, state.guess.centre, s)), steps=2)
             for s in _SOFTNESS[1:]]
    return min([state, *tried], key=lambda candidate: float(candidate.error))


def _has_background(image: Tensor, state: Fit) -> None:
    far = (image - state.picture[0]).norm(dim=0) > _BACKGROUND_REACH
    share = float(far.float().mean())
    if share > _LARGEST_SHARE:
        raise Unjudgeable(f"{share:.0%} of the picture differ from its commonest colour: no even background")
    if share < _SMALLEST_SHARE:
        raise Unjudgeable("the picture holds no object")


@torch.inference_mode()
def examine(image: Tensor) -> Verdict:
    """Judge a picture, and say how clear it was.

    `image` is a float tensor [3, h, h] with values in [0, 1] and h >= 24; above 64 it is reduced to 64.
    Raises `Unjudgeable` if no scene explains the picture clearly, `ValueError` if it is no such tensor.
    """
    full = _check(image)
    side = full.shape[-1]
    coarse = _resize(full, 32 if side > _SEARCH_SIDE else side).flatten(1)
    full = full.flatten(1)
    state = empty(coarse)
    _has_background(coarse, state)
    least = float("inf")
    for _ in range(3):
        state = add_object(coarse, state, _BEAM)
        best = _soften(full, refine(full, fit(full, state.guess.take(torch.tensor([0])))))
        if _residue(full, best)[1] < 2.5 * RESIDUE_LIMIT:
            best, rivals = polish(full, best)
        noise, residue = _residue(full, best)
        least = min(least, residue)
        if residue <= RESIDUE_LIMIT:
            return _decide(full, best, rivals, noise, residue)
    raise Unjudgeable(f"no three objects explain the picture: {least:.0%} of the contrast is left over")


def _decide(image: Tensor, state: Fit, rivals: Fit, noise: float, residue: float) -> Verdict:
    if noise > NOISE_LIMIT:
        raise Unjudgeable(f"the picture is too noisy: {noise:.2f} per channel, at most {NOISE_LIMIT}")
    scene = _to_scene(state)
    doubt = ambiguity(image, state, rivals)
    if doubt > AMBIGUITY_LIMIT:
        raise Unjudgeable(f"the picture is {doubt:.0%} of the way from {scene} to another")
    return Verdict(scene, doubt, noise, state.guess.softness, residue)


def judge(image: Tensor) -> Scene:
    """The scene that a picture shows; see `examine` for what it takes and raises."""
    return examine(image).scene


def agrees(image: Tensor, caption: str | Description) -> bool:
    """Whether what the caption says is true of the picture; a picture that is unjudgeable agrees with nothing.

    Raises `CaptionError` if the caption does not parse.
    """
    description = parse(caption) if isinstance(caption, str) else caption
    try:
        return matches(description, judge(image))
    except Unjudgeable:
        return False
