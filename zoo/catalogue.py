"""The catalogue: every card there is, and the variant that a reference means.

Cards are found without importing any plugin. Search order: in-tree, plugins' `zoo.cards` entry points, the
user's folder, `$ZOO_CARDS`. User files may override a method, plugins may not.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path

from zoo.cards import Card, State, Variant, load_card
from zoo.discovery import distribution_of, entries
from zoo.errors import CardError, NotFound, near
from zoo.references import Reference, parse_reference
from zoo.settings import config_folder
from zoo.store.locate import is_pulled

CARDS_GROUP = "zoo.cards"

#: Origin of the cards that the user keeps.
USER = "user"


def builtin_folder() -> Path:
    """The in-tree cards: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "cards"
    return installed if installed.is_dir() else package.parent / "cards"


def plugin_folder(entry: EntryPoint) -> Path:
    """The folder of a `zoo.cards` entry point ("package:folder"), located without importing the package."""
    package, _, folder = entry.value.partition(":")
    where = f"{distribution_of(entry)[0]}: entry point {CARDS_GROUP} {entry.name!r}"
    try:
        # Finding a dotted name would import its parents.
        spec = importlib.util.find_spec(package) if "." not in package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise CardError(f"{where}: no top-level package {package!r}")
    roots = list(spec.submodule_search_locations or [str(Path(spec.origin or "").parent)])
    found = Path(roots[0]) / (folder or "cards")
    if not found.is_dir():
        raise CardError(f"{where}: no folder {found}")
    return found


def user_folders() -> list[Path]:
    """Folders whose cards may override others: the user's configuration, then `$ZOO_CARDS`."""
    named = [Path(part) for part in os.environ.get("ZOO_CARDS", "").split(os.pathsep) if part]
    return [config_folder() / "cards", *named]


@dataclass
class Catalogue:
    """All cards by method; `warnings` tell what was skipped, `overrides` which files user cards replaced."""

    cards: dict[str, Card] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    overrides: dict[str, Path] = field(default_factory=dict)

    def add(self, card: Card, override: bool = False) -> None:
        """Add a card; a second one of a method raises `CardError` unless it, or the first, may override."""
        known = self.cards.get(card.method)
        if known is not None and known.origin == USER and card.origin != USER:
            return
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
            raise NotFound(f"no model is called '{reference}'", self._hint(reference))
        name = reference.variant or card.default
        variant = card.find(name)
        if variant is None:
            names = [f"{card.method}:{match}" for match in near(name, card.variants) or card.variants]
            raise NotFound(f"no model is called '{reference}'", f"Did you mean: {', '.join(names)}?")
        if reference.revision is not None:
            _check_revision(reference, variant)
        if name in card.renamed:
            self._warn(f"{card.method}:{name} is now called {card.method}:{variant.name}")
        return card, variant

    def _hint(self, reference: Reference) -> str:
        """Methods of a similar name, else those that have a variant of that very name."""
        matches = near(reference.method, self.cards)
        matches += [
            f"{card.method}:{reference.method}" for card in self.cards.values() if card.find(reference.method)
        ]
        return f"Did you mean: {', '.join(matches)}?" if matches else "zoo list shows every reference."

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def add_outside(self, paths: Iterable[Path], origin: str, override: bool = False) -> None:
        """Add card files that are not ours; a bad one is skipped with a warning."""
        for path in paths:
            try:
                self.add(load_card(path, origin), override)
            except CardError as error:
                self.skipped(error)

    def skipped(self, error: CardError) -> None:
        """Warn that something was skipped, and why."""
        self._warn(f"skipped {error.message}{f' ({error.hint})' if error.hint else ''}")


def _check_revision(reference: Reference, variant: Variant) -> None:
    """Raise `NotFound` unless the variant's files come from this revision, or one that it abbreviates."""
    revisions = {
        source.rpartition("@")[2] for file in variant.files for source in file.source if "@" in source
    }
    if not any(revision.startswith(reference.revision or "") for revision in revisions):
        known = (
            f"Its card names: {', '.join(sorted(revisions))}" if revisions else "Its card names no revision."
        )
        raise NotFound(f"{reference}: no such revision is known", known)


def load_catalogue() -> Catalogue:
    """Read all cards. A bad in-tree card raises; any other is skipped with one warning."""
    catalogue = Catalogue()
    for path in sorted(builtin_folder().glob("*.toml")):
        catalogue.add(load_card(path))
    for entry in entries(CARDS_GROUP):
        try:
            catalogue.add_outside(sorted(plugin_folder(entry).glob("*.toml")), distribution_of(entry)[0])
        except CardError as error:
            catalogue.skipped(error)
    for folder in user_folders():
        catalogue.add_outside(sorted(folder.glob("*.toml")), USER, override=True)
    return catalogue


def state_of(card: Card, variant: Variant) -> State:
    """Where the weights of a variant are."""
    if not variant.files:
        return "unpublished"
    if all(file.local(card.folder) is not None for file in variant.files):
        return "built-in"
    return "pulled" if is_pulled(card.method, variant.name) else "published"


def list_models(catalogue: Catalogue | None = None) -> list[tuple[Card, Variant, State]]:
    """Every variant of every card, with where its weights are."""
    return [
        (card, variant, state_of(card, variant))
        for _, card in sorted((catalogue or load_catalogue()).cards.items())
        for variant in card.variants.values()
    ]
