"""The built-in world of coloured shapes: scenes, drawing, captions, judging, motion and splits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.shapes.captions import (
        CaptionError,
        Description,
        Mention,
        caption,
        describe,
        matches,
        parse,
        vocabulary,
    )
    from zoo.shapes.judging import Unjudgeable, Verdict, agrees, examine, judge
    from zoo.shapes.motion import at_time, frames, sample_velocities
    from zoo.shapes.rendering import layers, masks, render, visible_masks
    from zoo.shapes.scene import (
        BACKGROUNDS,
        CLASSES,
        COLOURS,
        SHAPES,
        SIZES,
        Item,
        Scene,
        sample_scene,
        sample_scenes,
    )
    from zoo.shapes.splits import HELD_OUT, SEEN, is_held_out

#: Public names by the module that defines them; modules load at first use, so that words need no torch.
_MODULES = {
    "captions": (
        "CaptionError",
        "Description",
        "Mention",
        "caption",
        "describe",
        "matches",
        "parse",
        "vocabulary",
    ),
    "judging": ("Unjudgeable", "Verdict", "agrees", "examine", "judge"),
    "motion": ("at_time", "frames", "sample_velocities"),
    "rendering": ("layers", "masks", "render", "visible_masks"),
    "scene": (
        "BACKGROUNDS",
        "CLASSES",
        "COLOURS",
        "SHAPES",
        "SIZES",
        "Item",
        "Scene",
        "sample_scene",
        "sample_scenes",
    ),
    "splits": ("HELD_OUT", "SEEN", "is_held_out"),
}

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BACKGROUNDS",
    "CLASSES",
    "COLOURS",
    "HELD_OUT",
    "SEEN",
    "SHAPES",
    "SIZES",
    "CaptionError",
    "Description",
    "Item",
    "Mention",
    "Scene",
    "Unjudgeable",
    "Verdict",
    "agrees",
    "at_time",
    "caption",
    "describe",
    "examine",
    "frames",
    "is_held_out",
    "judge",
    "layers",
    "masks",
    "matches",
    "parse",
    "render",
    "sample_scene",
    "sample_scenes",
    "sample_velocities",
    "visible_masks",
    "vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
