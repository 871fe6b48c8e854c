"""The methods of `toy/zoo_toy_kinds`, which make other things than pictures, installed beside the toy."""

from __future__ import annotations

from pathlib import Path

import pytest
from third_party import install_toy
from toy_method import tensors

LAYERS_CARD = """
schema = 1
method = "toylayers"
title = "Toy layers"
summary = "Layers of noise"
tasks = ["text-to-layers"]
default = "free"

[variant.free]
summary = "any text"
architecture = "toy"
config = { size = 8 }
sampler = { name = "toy-layers" }
files = [{ role = "model", source = ["toy.safetensors"] }]

[variant.shapes]
summary = "captions of the shapes world"
architecture = "toy"
config = { size = 8 }
sampler = { name = "toy-layers" }
captions = "shapes"
files = [{ role = "model", source = ["toy.safetensors"] }]

[variant.read]
summary = "texts go through an encoder"
architecture = "toy"
config = { size = 8 }
sampler = { name = "toy-layers" }
files = [{ role = "model", source = ["toy.safetensors"] }]
[variant.read.components.text_encoder]
architecture = "toy-reader"
"""

NOTES_CARD = """
schema = 1
method = "toynotes"
title = "Toy notes"
summary = "Grey levels"
tasks = ["unconditional"]
default = "base"

[variant.base]
summary = "the only one"
architecture = "toy"
config = { size = 8 }
sampler = { name = "toy-notes" }
files = [{ role = "model", source = ["toy.safetensors"] }]
"""


def install(site: Path) -> None:
    """Put the package into `site` as pip would."""
    groups = {
        "zoo.plugins": {"toynotes": "zoo_toy_kinds"},
        "zoo.cards": {"toykinds": "zoo_toy_kinds:cards"},
    }
    cards = {"toylayers": LAYERS_CARD, "toynotes": NOTES_CARD}
    install_toy(site, "zoo_toy_kinds", groups, cards, {"toy.safetensors": tensors()})


@pytest.fixture(scope="session")
def kinds_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("kinds")
    install(site)
    return site


@pytest.fixture
def drawn(toy: Path, kinds_site: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """The methods are installed; what their layered sampler is asked for, batch by batch."""
    monkeypatch.syspath_prepend(str(kinds_site))
    from zoo_toy_kinds.reader import read
    from zoo_toy_kinds.sampling import drawn

    drawn.clear()
    read.clear()
    return drawn
