"""The method of `toy/zoo_toy_pictures`, which reads pictures for several tasks, installed beside the toy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from third_party import install_toy
from toy_method import tensors

from zoo.io.artifacts import Image
from zoo.io.inputs import InputImage

VARIANT = """
[variant.{name}]
summary = "{name}"
architecture = "toy"
config = {{ size = 8 }}
sampler = {{ name = "toy-plain", level = 0.25 }}
files = [{{ role = "model", source = ["toy.safetensors"] }}]
{more}
[variant.{name}.tasks]
mirror = {{ name = "toy-mirror", share = 0.5 }}
fade = {{ name = "toy-mirror", share = 0.125 }}
tell = {{ name = "toy-tell", digits = 3 }}
blend = {{ name = "toy-blend" }}
needy = {{ name = "toy-needy" }}
"""

CARD = (
    """
schema = 1
method = "toypictures"
title = "Toy pictures"
summary = "Pictures from pictures"
tasks = ["text-to-image", "image-editing", "image-to-text"]
default = "base"
"""
    + VARIANT.format(name="base", more="")
    + VARIANT.format(name="shapes", more='captions = "shapes"')
)


def install(site: Path) -> None:
    """Put the package into `site` as pip would."""
    groups = {
        "zoo.plugins": {"toypictures": "zoo_toy_pictures"},
        "zoo.cards": {"toypictures": "zoo_toy_pictures:cards"},
    }
    install_toy(site, "zoo_toy_pictures", groups, {"toypictures": CARD}, {"toy.safetensors": tensors()})


@pytest.fixture(scope="session")
def pictures_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("pictures")
    install(site)
    return site


@pytest.fixture
def pictures(toy: Path, pictures_site: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method is installed; its reference."""
    monkeypatch.syspath_prepend(str(pictures_site))
    return "toypictures"


#: What the describing sampler says of the pictures of `given`, and the command that asks it.
DARK, LIGHT = "What? 6 by 4, level 0.200.", "What? 5 by 5, level 0.800."
TELL = ("sample", "toypictures", "--task", "tell")


@pytest.fixture
def given(pictures):
    """Two grey pictures in the current folder: dark.png, 6x4 pixels, and light.png, 5x5 pixels."""
    Image(torch.full((3, 4, 6), 0.2)).save("dark.png")
    Image(torch.full((3, 5, 5), 0.8)).save("light.png")
    return pictures


@pytest.fixture
def no_loading(monkeypatch):
    monkeypatch.setattr("zoo.runtime.model.load", lambda *args, **kwargs: pytest.fail("loaded"))


@pytest.fixture
def telling(given, monkeypatch):
    """Replace what the describing sampler does: a function of the sampler's arguments."""
    import zoo_toy_pictures.sampling as sampling

    return lambda function: monkeypatch.setattr(sampling, "tell", function)


def listing(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def digest(name):
    return InputImage.read(name).digest
