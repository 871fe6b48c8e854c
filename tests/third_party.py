"""Third-party distributions made on the spot: package, cards and metadata, as pip would install them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

#: A card whose architecture and sampler carry the method's name.
CARD = """
schema = 1
method = "{method}"
title = "{title}"
summary = "Made for a test"
tasks = ["unconditional"]
default = "base"

[variant.base]
summary = "The only one"
architecture = "{method}"
sampler = {{ name = "{method}" }}
"""


def card(method: str, title: str = "Test") -> str:
    """The text of a small card."""
    return CARD.format(method=method, title=title)


def entry_points(groups: Mapping[str, Mapping[str, str]]) -> str:
    """The text of entry_points.txt."""
    return "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in groups.items()
    )


def install(
    site: Path,
    distribution: str,
    code: str,
    groups: Mapping[str, Mapping[str, str]],
    cards: Mapping[str, str] | None = None,
    version: str = "1.0",
) -> None:
    """Install `distribution` with one package of the same name (underscores for hyphens) into `site`."""
    name = distribution.replace("-", "_")
    package = site / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code, encoding="utf-8")
    _finish(site, distribution, groups, cards or {}, version)


def install_toy(
    site: Path,
    package: str,
    groups: Mapping[str, Mapping[str, str]],
    cards: Mapping[str, str],
    weights: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Install the package of this name from the folder `toy`, with cards and the files that they name."""
    source = Path(__file__).parent / "toy" / package
    shutil.copytree(source, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    _finish(site, package.replace("_", "-"), groups, cards)
    for name, tensors in weights.items():
        path = site / package / "cards" / name
        path.parent.mkdir(exist_ok=True)
        save_file(dict(tensors), path)


def _finish(
    site: Path,
    distribution: str,
    groups: Mapping[str, Mapping[str, str]],
    cards: Mapping[str, str],
    version: str = "1.0",
) -> None:
    """Cards and metadata of a distribution whose code is in place."""
    name = distribution.replace("-", "_")
    for method, text in cards.items():
        (site / name / "cards").mkdir(exist_ok=True)
        (site / name / "cards" / f"{method}.toml").write_text(text, encoding="utf-8")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points(groups), encoding="utf-8")


def install_plugin(site: Path, method: str, code: str, cards: Mapping[str, str] | None = None) -> None:
    """Install the plugin of `method` from a distribution `acme-<method>` that brings a card of it."""
    package = f"acme_{method}"
    groups = {"zoo.plugins": {method: package}, "zoo.cards": {method: f"{package}:cards"}}
    install(site, f"acme-{method}", code, groups, {method: card(method)} if cards is None else cards)
