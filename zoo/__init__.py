"""The public library API of zoo; everything is imported when it is first used, so `import zoo` is cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo.version import __version__

if TYPE_CHECKING:
    from pluggy import HookimplMarker

    from zoo.cards import Card as Card
    from zoo.cards import Variant as Variant
    from zoo.catalogue import list_models as list_models
    from zoo.errors import ZooError as ZooError
    from zoo.io.artifacts import Artifact as Artifact
    from zoo.io.artifacts import Image as Image
    from zoo.io.artifacts import Provenance as Provenance
    from zoo.io.inputs import InputImage as InputImage
    from zoo.io.layers import LayeredImage as LayeredImage
    from zoo.io.request import Request as Request
    from zoo.io.text import Text as Text
    from zoo.references import Reference as Reference
    from zoo.runtime.model import LoadedModel as LoadedModel
    from zoo.runtime.model import load as load
    from zoo.runtime.model import sample as sample
    from zoo.runtime.noise import Noise as Noise
    from zoo.runtime.noise import RecordedNoise as RecordedNoise
    from zoo.store.manifest import Manifest as Manifest
    from zoo.store.pull import pull as pull

    hookimpl: HookimplMarker

_HOMES = {
    "load": "zoo.runtime.model",
    "sample": "zoo.runtime.model",
    "LoadedModel": "zoo.runtime.model",
    "pull": "zoo.store.pull",
    "list_models": "zoo.catalogue",
    "Request": "zoo.io.request",
    "Artifact": "zoo.io.artifacts",
    "Image": "zoo.io.artifacts",
    "InputImage": "zoo.io.inputs",
    "LayeredImage": "zoo.io.layers",
    "Text": "zoo.io.text",
    "Provenance": "zoo.io.artifacts",
    "Noise": "zoo.runtime.noise",
    "RecordedNoise": "zoo.runtime.noise",
    "Card": "zoo.cards",
    "Variant": "zoo.cards",
    "Reference": "zoo.references",
    "Manifest": "zoo.store.manifest",
    "ZooError": "zoo.errors",
}

__all__ = ["__version__", "hookimpl", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "hookimpl":
        import pluggy

        return pluggy.HookimplMarker("zoo")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
