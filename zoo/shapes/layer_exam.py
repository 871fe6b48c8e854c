"""What a model that draws in layers is asked for, and how its layers are marked.

A question names a background and one to three objects, in the global prompt as in the prompts of the layers:
with several objects the global prompt alone says how they stand to each other. Three things are marked:

- whether each foreground layer shows exactly its prompt's object: the layer over neutral grey, judged;
- how well its mask fits what it shows: the intersection over union of the layer's alpha above one half with
  the coverage above one half of the one object that the judge sees in the layer's picture before the mask was
  applied. Where the judge sees no single object the mask fits nothing, which counts as 0;
- whether the composite agrees with the global prompt.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection
from dataclasses import dataclass
from itertools import cycle, islice, product

import torch
from torch import Tensor

from zoo.io.layers import Layer, LayeredImage
from zoo.shapes.captions import RELATIONS, matches, parse
from zoo.shapes.exam import combinations_of, drawn_evenly, look, prompt_for, seen_part
from zoo.shapes.judging import COLOUR_LIMIT
from zoo.shapes.prompts import background_part
from zoo.shapes.rendering import masks
from zoo.shapes.scene import BACKGROUNDS

#: Numbers of objects that are asked for: pictures of two, three and four layers.
OBJECTS = (1, 2, 3)

#: Pictures of two, three and four layers where nobody says how many.
DEFAULT_SAMPLES = (160, 160, 80)

#: A mask fits from this intersection over union on.
MASK_FITS = 0.85

#: What stands around an object in a layer, as a grey level in [0, 1], and the background that the judge reads
#: it as.
_NEUTRAL, _NEUTRAL_NAME = 0.5, "gray"

#: A background layer shows its colour alone if at least this share of its pixels has it. The smallest object
#: covers a fortieth of a picture.
_EVEN = 0.99


@dataclass(frozen=True)
class LayerQuestion:
    """One picture to ask for. `names` are the combinations of its objects, back to front.

    `parts` are the prompts of its layers, the background's first. `held_out`: training left at least one of
    the combinations out. `relations[i]` holds between objects `i` and `i + 1`.
    """

    prompt: str
    parts: tuple[str, ...]
    names: tuple[str, ...]
    held_out: bool
    background: str
    relations: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """How many layers it asks for, with the background."""
        return len(self.parts)


@dataclass(frozen=True)
class LayerMark:
    """A foreground layer that was asked for. `shows` is the scene that the judge sees in it.

    `mask_iou` is in [0, 1]; None where the model does not tell what it drew before the mask was applied.
    """

    part: str
    correct: bool
    shows: str
    mask_iou: float | None


@dataclass(frozen=True)
class LayeredAnswer:
    """A layered picture that was asked for. `seed` draws it again; `shows` is what the composite shows.

    `agrees`: the composite agrees with the global prompt. `background`: the background layer shows the
    background that was asked for and nothing else. `marks` has one entry for each object asked for.
    `surplus` counts layers that nobody asked for.
    """

    question: LayerQuestion
    seed: int
    agrees: bool
    shows: str
    background: bool
    marks: tuple[LayerMark, ...]
    surplus: int = 0

    @property
    def exact(self) -> bool:
        """Whether every foreground layer shows exactly its prompt's object, and there is none besides."""
        return self.surplus == 0 and all(mark.correct for mark in self.marks)


def layer_questions(objects: int, count: int, seed: int, held_out: Collection[str]) -> list[LayerQuestion]:
    """`count` prompts of a background and so many objects: a function of the arguments alone.

    First those whose combinations training showed, then a quarter with a held-out combination. Combinations,
    relations and backgrounds are asked for equally often, to within one in each part or in the whole.
    """
    random_numbers = random.Random(f"shapes layers {objects} {count} {seed}")
    shown, new = combinations_of(objects, held_out)
    first = seen_part(count, shown, new)
    parts = [
        drawn_evenly(random_numbers, pool, size) for pool, size in ((shown, first), (new, count - first))
    ]
    chains = islice(cycle(product(RELATIONS, repeat=objects - 1)), count)
    backgrounds = list(islice(cycle(BACKGROUNDS), count))
    random_numbers.shuffle(backgrounds)
    asked = zip(backgrounds, chains, strict=True)
    questions = []
    for names_of_part, new_part in zip(parts, (False, True), strict=True):
        # In any order, so that an even choice of the questions is one of everything they ask for.
        random_numbers.shuffle(names_of_part)
        drawn = [_question(names, new_part, *next(asked)) for names in names_of_part]
        random_numbers.shuffle(drawn)
        questions += drawn
    return questions


def mark_layers(image: LayeredImage, question: LayerQuestion, seed: int) -> LayeredAnswer:
    """Judge a layered picture. Raises `InvalidInput` for one that the judge cannot read."""
    scene, shows = look(_flat(image))
    backmost, *foreground = image.layers
    wanted = question.parts[1:]
    drawn = [None] * len(foreground) if image.drawn is None else list(image.drawn[1:])
    marks = [
        _mark(image, layer, picture, part)
        for layer, picture, part in zip(foreground, drawn, wanted, strict=False)
    ]
    marks += [LayerMark(part, False, "no layer", 0.0) for part in wanted[len(foreground) :]]
    return LayeredAnswer(
        question,
        seed,
        agrees=scene is not None and matches(parse(question.prompt), scene),
        shows=shows,
        background=_shows_background(_over_grey(image, backmost), question.background),
        marks=tuple(marks),
        surplus=max(0, len(foreground) - len(wanted)),
    )


def _question(
    names: tuple[str, ...], held_out: bool, background: str, relations: tuple[str, ...]
) -> LayerQuestion:
    return LayerQuestion(
        prompt_for(names, *relations, background=background),
        (background_part(background), *(prompt_for([name]) for name in names)),
        names,
        held_out,
        background,
        relations,
    )


def _mark(image: LayeredImage, layer: Layer, drawn: Tensor | None, part: str) -> LayerMark:
    scene, shows = look(_over_grey(image, layer))
    # A layer that brings surroundings of its own is no object alone.
    alone = scene is not None and scene.background == _NEUTRAL_NAME
    correct = scene is not None and alone and matches(parse(part), scene)
    return LayerMark(part, correct, shows, None if drawn is None else _mask_iou(_alpha(image, layer), drawn))


def _mask_iou(alpha: Tensor, drawn: Tensor) -> float:
    """Of a layer's alpha [h, h] and the one object that its picture [3, h, h] shows; 0 if there is none."""
    scene, _ = look(drawn)
    if scene is None or len(scene.items) != 1:
        return 0.0
    covered = masks(scene.items, alpha.shape[0])[0] > 0.5
    masked = alpha > 0.5
    return float((covered & masked).sum() / (covered | masked).sum())


def _over_grey(image: LayeredImage, layer: Layer) -> Tensor:
    """A layer where it stands on the canvas, with the neutral grey around it: [3, h, w]."""
    return _over(image, layer, _NEUTRAL)


def _alpha(image: LayeredImage, layer: Layer) -> Tensor:
    """How much of each pixel of the canvas a layer covers: [h, w]."""
    white = layer.pixels.clone()
    white[:3] = 1.0
    return _over(image, dataclasses.replace(layer, pixels=white), 0.0)[0]


def _over(image: LayeredImage, layer: Layer, grey: float) -> Tensor:
    behind = torch.full((4, *image.size), grey)
    behind[3] = 1.0
    return _flat(LayeredImage(image.size, (Layer(behind), layer)))


def _flat(image: LayeredImage) -> Tensor:
    """The composite [3, h, w]; not a number, which the judge refuses, where a layer has such values."""
    if all(bool(layer.pixels.isfinite().all()) for layer in image.layers):
        return image.composite().pixels
    return torch.full((3, *image.size), torch.nan)


def _shows_background(pixels: Tensor, name: str) -> bool:
    colour = torch.tensor(BACKGROUNDS[name], dtype=torch.float32) / 255.0
    near = (pixels - colour[:, None, None]).norm(dim=0) <= COLOUR_LIMIT
    return float(near.float().mean()) >= _EVEN
