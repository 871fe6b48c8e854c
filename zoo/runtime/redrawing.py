"""Drawing one layer of a layered picture anew, while all others stay as they are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Provenance
from zoo.io.layers import LayeredImage, on_canvas
from zoo.io.request import Request

if TYPE_CHECKING:
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.sampling import OnStep

#: Options that say which layer was drawn anew the last time.
_OF_LAST_TIME = ("redraw", "strength")


@dataclass(frozen=True)
class Redrawing:
    """What is drawn anew, and how.

    layer: its number, counted from the back; 0 is the background.
    prompt: what it shall show; None is what it shows now.
    whole: the prompt of the whole picture; None is the one that it was made with, with the layer's new prompt
        in the place of its old one where that stands in it, the article aside. It stays where the new one is
        empty: that leaves the layer to the whole.
    seed: of the new noise; None is the picture's own, with which the layer differs only by its prompt.
    strength: how much of the layer is drawn anew, more than 0 to 1: less keeps more of what it looks like.
    options: sampler options that differ from those that the picture was made with.
    """

    layer: int
    prompt: str | None = None
    whole: str | None = None
    seed: int | None = None
    strength: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


def redraw_request(image: LayeredImage, redrawing: Redrawing) -> Request:
    """The request whose one sample is the picture with the layer drawn anew.

    Raises `InvalidInput` for a layer that is not there, and for a picture that does not tell how it was made.
    """
    made, layer = _made(image, redrawing.layer), redrawing.layer
    old = made.part_prompts[layer]
    new = old if redrawing.prompt is None else redrawing.prompt
    parts = (*made.part_prompts[:layer], new, *made.part_prompts[layer + 1 :])
    whole = redrawing.whole
    if whole is None:
        whole = _adapted(made.prompt or "", made.part_prompts, layer, new)
    options = {name: value for name, value in made.options.items() if name not in _OF_LAST_TIME}
    changes = {name.replace("-", "_"): value for name, value in redrawing.options.items()}
    return Request(
        prompts=(whole,),
        part_prompts=(parts,),
        negatives=() if made.negative is None else (made.negative,),
        images={"layers": canvas_layers(image)},
        size=made.size,
        seed=made.seed if redrawing.seed is None else redrawing.seed,
        sampler=made.sampler,
        options={**options, **changes, "redraw": layer, "strength": redrawing.strength},
    )


def redraw(
    loaded: LoadedModel, image: LayeredImage, redrawing: Redrawing, on_step: OnStep | None = None
) -> LayeredImage:
    """The picture with one layer drawn anew by the model that drew it; the others are the very same objects.

    The layer stands where the model put it; it is as visible and as opaque as before. Raises `InvalidInput`
    as `redraw_request` does.
    """
    (drawn,) = loaded.sample(redraw_request(image, redrawing), on_step)
    assert isinstance(drawn, LayeredImage)
    new = drawn.layers[redrawing.layer]
    changed = image.with_layer(redrawing.layer, pixels=new.pixels, name=new.name, x=0, y=0)
    return dataclasses.replace(changed, provenance=drawn.provenance)


def canvas_layers(image: LayeredImage) -> Tensor:
    """Every layer as it lies on the canvas, whether or not it is shown: [layers, 4, h, w] in [0, 1]."""
    return torch.stack([on_canvas(layer, image.size) for layer in image.layers])


def _adapted(whole: str, parts: Sequence[str], layer: int, new: str) -> str:
    """The prompt of the whole with a layer's new prompt in the place of its old one."""
    old = parts[layer]
    if not old or not new:
        return whole
    changes = [(_without_article(old), _without_article(new))]
    if old != changes[0][0]:
        # With the article first: the new one may be another.
        changes.insert(0, (old, new))
    for sought, put in changes:
        places = list(re.finditer(rf"(?<!\w){re.escape(sought)}(?!\w)", whole, re.IGNORECASE))
        if places:
            # Layers of the same prompt are named in their order.
            place = places[min(parts[:layer].count(old), len(places) - 1)]
            return whole[: place.start()] + put + whole[place.end() :]
    return whole


def _without_article(text: str) -> str:
    return re.sub(r"^(?:an?|the)\s+", "", text, flags=re.IGNORECASE)


def _made(image: LayeredImage, layer: int) -> Provenance:
    made = image.provenance
    if made is None:
        raise InvalidInput(
            "the picture does not tell how it was made, which is needed to draw a layer of it anew",
            "Use a file that zoo wrote with its metadata.",
        )
    if len(made.part_prompts) != len(image.layers):
        raise InvalidInput(
            f"the picture has {len(image.layers)} layers and was made with {len(made.part_prompts)}: another "
            "program added or removed some",
            "Use a file with the layers that zoo wrote.",
        )
    if not 0 <= layer < len(image.layers):
        raise InvalidInput(
            f"there is no layer {layer}, expected 0 to {len(image.layers) - 1}",
            "Layers are counted from the back, and the backmost is 0.",
        )
    return made
