"""The toy method of `toy/zoo_toy` as an installed third-party package, and the command line in-process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from third_party import install_toy

from zoo.shapes.scene import CLASSES

_NAMES = ", ".join(f'"{name}"' for name in CLASSES)
_FILE = """
[[variant.{name}.files]]
role = "model"
source = ["{source}"]
"""

CARD = f"""
schema = 1
method = "toy"
title = "Toy"
summary = "Paints single objects"
tasks = ["class-to-image"]
default = "shapes"

[variant.shapes]
summary = "48 classes"
architecture = "toy"
config = {{ size = 32, num_classes = 48 }}
sampler = {{ name = "toy", steps = 3 }}
classes = [{_NAMES}]
recipe = "toy"
{_FILE.format(name="shapes", source="weights/toy.safetensors")}

[variant.numbers]
summary = "classes without names"
architecture = "toy"
config = {{ size = 8, num_classes = 5 }}
sampler = {{ name = "toy" }}
{_FILE.format(name="numbers", source="weights/toy.safetensors")}

[variant.plain]
summary = "no classes"
architecture = "toy"
config = {{ size = 8 }}
sampler = {{ name = "toy" }}
{_FILE.format(name="plain", source="weights/toy.safetensors")}

[variant.misfit]
summary = "weights of another shape"
architecture = "toy"
config = {{ size = 8, features = 6 }}
sampler = {{ name = "toy" }}
{_FILE.format(name="misfit", source="weights/toy.safetensors")}

[variant.broken]
summary = "cannot be built"
architecture = "toy-broken"
config = {{ size = 8 }}
sampler = {{ name = "toy-flat" }}
{_FILE.format(name="broken", source="weights/toy.safetensors")}

[variant.remote]
summary = "weights elsewhere"
architecture = "toy"
config = {{ size = 8 }}
sampler = {{ name = "toy" }}
{_FILE.format(name="remote", source="https://example.org/toy.safetensors")}

[variant.unpublished]
summary = "no weights"
architecture = "toy"
config = {{ size = 8 }}
sampler = {{ name = "toy" }}
"""

TEXT_CARD = f"""
schema = 1
method = "toytext"
title = "Toy text"
summary = "Paints what a caption says, with the toy's architecture"
tasks = ["text-to-image"]
default = "shapes"

[variant.shapes]
summary = "captions"
architecture = "toy"
config = {{ size = 32 }}
sampler = {{ name = "toy" }}
recipe = "toy-held-out"
{_FILE.format(name="shapes", source="weights/toy.safetensors")}
"""

FEW_CARD = f"""
schema = 1
method = "few"
title = "Few"
summary = "The toy with four classes, where judging all would take long"
tasks = ["class-to-image"]
default = "shapes"

[variant.shapes]
summary = "4 classes"
architecture = "toy"
config = {{ size = 32 }}
sampler = {{ name = "toy", steps = 3 }}
classes = ["red circle", "orange circle", "green cross", "blue ring"]
recipe = "toy"
{_FILE.format(name="shapes", source="toy.safetensors")}
"""


def tensors(features: int = 4) -> dict[str, torch.Tensor]:
    """Weights of the toy architecture."""
    return {
        "linear.weight": torch.eye(features),
        "linear.bias": torch.zeros(features),
        "count": torch.tensor(7),
    }


def install(site: Path) -> None:
    """Put the package into `site` as pip would: code, cards, weights and entry points."""
    groups = {"zoo.plugins": {"toy": "zoo_toy"}, "zoo.cards": {"toy": "zoo_toy:cards"}}
    cards = {"toy": CARD, "toytext": TEXT_CARD}
    install_toy(site, "zoo_toy", groups, cards, {"weights/toy.safetensors": tensors()})


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install(site)
    return site


@pytest.fixture
def toy(toy_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy method is installed, the user's folders are empty, and the current folder is a fresh one."""
    monkeypatch.syspath_prepend(str(toy_site))
    for name in ("ZOO_CARDS", "ZOO_PLUGINS", "ZOO_DEBUG", "ZOO_TRACE", "ZOO_STRICT"):
        monkeypatch.delenv(name, raising=False)
    # The shared session remembers the cards of the test before.
    monkeypatch.setattr("zoo.session._default", None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return toy_site


@pytest.fixture
def few(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reference to the toy with four classes, from a card of the user's."""
    folder = tmp_path / "cards"
    folder.mkdir()
    save_file(tensors(), folder / "toy.safetensors")
    (folder / "few.toml").write_text(FEW_CARD, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(folder))
    return "few:shapes"


@pytest.fixture
def zoo(toy: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `zoo ...` in this process."""
    from zoo_cli.main import run

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        output = capfd.readouterr()
        return Result(int(code), output.out, output.err)

    return call
