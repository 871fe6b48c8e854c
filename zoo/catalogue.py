"""The catalogue: every card there is, and the variant that a reference means.

Cards are found without importing any plugin. Search order: in-tree, plugins' `zoo.cards` entry points, the
user's folder, `$ZOO_CARDS`. User files may override a method, plugins may not.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from zoo.cards import Card, State, Variant, load_card
from zoo.errors import CardError, NotFound, ZooError, near
from zoo.references import Reference, parse_reference
from zoo.settings import config_folder
from zoo.store.locate import is_pulled

CARDS_GROUP = "zoo.cards"


def builtin_folder() -> Path:
    """The in-tree cards: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "cards"
    return installed if installed.is_dir() else package.parent / "cards"


def plugin_folders() -> Iterator[tuple[str, Path]]:
    """(distribution, folder) of installed plugins' cards, located without importing the plugin."""
    for entry in entry_points(group=CARDS_GROUP):
        package, _, folder = entry.value.partition(":")
        origin = entry.dist.name if entry.dist else entry.name
        spec = importlib.util.find_spec(package) if "." not in package else None
        if spec is None:
            raise CardError(f"{origin}: entry point {CARDS_GROUP} {entry.name!r}: no top-level package {package!r}")
        roots = list(spec.submodule_search_locations or [str(Path(spec.origin or "").parent)])
        yield origin, Path(roots[0]) / (folder or "cards")


def user_folders() -> list[Path]:
    """Folders whose cards may override others: the user's configuration, then `$ZOO_CARDS`."""
    named = [Path(part) for part in os.environ.get("ZOO_CARDS", "").split(os.pathsep) if part]
    return [config_folder() / "cards", *named]


@dataclass
class Catalogue:
    """All cards by method. `warnings` tell what was skipped, `overrides` which files a user's card replaced."""

    cards: dict[str, Card] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    overrides: dict[str, Path] = field(default_factory=dict)

    def add(self, card: Card, override: bool = False) -> None:
        """Add a card; a second card of a method raises `CardError` unless it may override."""
        known = self.cards.get(card.method)
        if known is not None and not override:
            raise CardError(
                f"{card.path or card.origin}: method {card.method!r} already has a card from {known.origin}"
            )
        if known is not None and known.path is not None:
            self.overrides[card.method] = known.path
        self.cards[card.method] = card

    def resolve(self, text: str | Reference) -> tuple[Card, Variant]:
        """The card and variant that a reference means; raises `NotFound` with near matches."""
        reference = parse_reference(text) if isinstance(text, str) else text
        card = self.cards.get(reference.method)
        if card is None:
            raise self._unknown(str(reference), reference.method, self.cards)
        name = reference.variant or card.default
        variant = card.find(name)
        if variant is None:
            raise self._unknown(str(reference), name, card.variants, prefix=f"{card.method}:")
        if name in card.renamed:
            self.warnings.append(f"{card.method}:{name} is now called {card.method}:{variant.name}")
        return card, variant

    def _unknown(self, text: str, name: str, known: dict[str, Card] | object, prefix: str = "") -> NotFound:
        names = list(known)  # type: ignore[call-overload]
        matches = near(name, names) or (names if prefix else [])
        hint = f"Did you mean: {', '.join(prefix + m for m in matches)}?" if matches else ""
        return NotFound(f"no model is called '{text}'", hint or "zoo list shows every reference.")


def load_catalogue() -> Catalogue:
    """Read all cards. A bad in-tree card raises; any other is skipped with one warning."""
    catalogue = Catalogue()
    for path in sorted(builtin_folder().glob("*.toml")):
        catalogue.add(load_card(path))
    for load, override in _outside(catalogue):
        try:
            for path, origin in load():
                _add_outside(catalogue, path, origin, override)
        except CardError as error:
            catalogue.warnings.append(f"skipped {error.message}")
    return catalogue


_Source = Callable[[], list[tuple[Path, str]]]


def _outside(catalogue: Catalogue) -> list[tuple[_Source, bool]]:
    def from_plugins() -> list[tuple[Path, str]]:
        found = plugin_folders()
        return [(path, origin) for origin, folder in found for path in sorted(folder.glob("*.toml"))]

    def from_user() -> list[tuple[Path, str]]:
        return [(path, "user") for folder in user_folders() for path in sorted(folder.glob("*.toml"))]

    return [(from_plugins, False), (from_user, True)]


def _add_outside(catalogue: Catalogue, path: Path, origin: str, override: bool) -> None:
    try:
        catalogue.add(load_card(path, origin), override)
    except ZooError as error:
        catalogue.warnings.append(f"skipped {error.message}")


def state_of(card: Card, variant: Variant) -> State:
    """Where the weights of a variant are."""
    if not variant.files:
        return "unpublished"
    if all(file.local(card.folder) is not None for file in variant.files):
        return "built-in"
    return "pulled" if is_pulled(card.method, variant.name) else "published"


def list_models() -> list[tuple[Card, Variant, State]]:
    """Every variant of every card, with where its weights are."""
    return [
        (card, variant, state_of(card, variant))
        for _, card in sorted(load_catalogue().cards.items())
        for variant in card.variants.values()
    ]
