"""A session: the catalogue and the plugins together, and every look-up that needs both."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from zoo.cards import Card, Variant
from zoo.catalogue import Catalogue, load_catalogue
from zoo.errors import CardError, NotFound, PluginError, did_you_mean
from zoo.plugins import Plugins
from zoo.references import parse_reference
from zoo.registry import Architecture, Converter, Registry, Table, resolve


class Session:
    """Resolves references to cards, and the names in cards to what plugins registered."""

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self.catalogue = catalogue or load_catalogue()

    @cached_property
    def plugins(self) -> Plugins:
        """The plugins; those that belong to no method (they extend the core) are loaded at once."""
        plugins = Plugins(self.warnings)
        for name in plugins.enabled():
            if name.lower() not in self.catalogue.cards:
                try:
                    plugins.load(name)
                except PluginError as error:
                    self.warn(error.message)
                self._adopt_cards(plugins)
        return plugins

    @property
    def warnings(self) -> list[str]:
        """Everything that went wrong without stopping the session."""
        return self.catalogue.warnings

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def resolve(self, text: str) -> tuple[Card, Variant]:
        """Card and variant of a reference, from a card or from a plugin's `resolve_reference`."""
        reference = parse_reference(text)
        try:
            return self.catalogue.resolve(reference)
        except NotFound:
            self.plugins.load_all()
            self._adopt_cards(self.plugins)
            for plugin, answer in self.plugins.each("resolve_reference", reference=reference):
                if answer is not None:
                    return _resolved(plugin, answer)
            return self.catalogue.resolve(reference)

    def use(self, card: Card) -> None:
        """Load the plugin of a card's method, if there is one of that name."""
        self.plugins.load(card.method)
        self._adopt_cards(self.plugins)

    def architecture(self, card: Card, variant: Variant) -> Architecture:
        """The architecture that a variant names."""
        self.use(card)
        found: Architecture = self._find(
            "architectures", variant.architecture, f"{card.method}:{variant.name}"
        )
        return found

    def component(self, card: Card, variant: Variant, role: str) -> Architecture:
        """The architecture of a component of a variant."""
        self.use(card)
        name = variant.components[role].architecture
        found: Architecture = self._find("architectures", name, f"{card.method}:{variant.name}")
        return found

    def sampler(self, name: str, wanted_by: str) -> Any:
        """The sampler of this name."""
        return self._find("samplers", name, wanted_by)

    def converter(self, name: str, wanted_by: str) -> Converter:
        """The converter of this name."""
        found: Converter = self._find("converters", name, wanted_by)
        return found

    def recipe(self, card: Card, variant: Variant) -> Any:
        """A fresh recipe object for a variant."""
        self.use(card)
        if variant.recipe is None:
            raise NotFound(
                f"{card.method}:{variant.name} has no training recipe",
                "Recipes belong to built-in variants; zoo list shows them.",
            )
        entry = self._find("recipes", variant.recipe, f"{card.method}:{variant.name}")
        return resolve(entry.recipe, entry.owner)()

    @property
    def registry(self) -> Registry:
        """What the loaded plugins registered."""
        return self.plugins.registry

    def _find(self, kind: str, name: str, wanted_by: str) -> Any:
        table: Table[Any] = getattr(self.registry, kind)
        found = table.find(name)
        if found is None:
            self.plugins.load_all()
            found = table.find(name)
        if found is not None:
            return found
        hint = did_you_mean(name, table.names()) or f"Known: {', '.join(table.names()) or 'none'}"
        failures = [f"{f.name}: {f.error}" for f in self.plugins.failures.values()]
        if failures:
            hint += f"\nPlugins that failed: {'; '.join(failures)}"
        raise PluginError(f"no plugin provides the {table.kind} '{name}' that {wanted_by} needs", hint)

    def _adopt_cards(self, plugins: Plugins) -> None:
        for owner, cards in list(plugins.registry.cards.items()):
            for card in cards:
                if self.catalogue.cards.get(card.method) != card:
                    try:
                        self.catalogue.add(card)
                    except CardError as error:
                        self.warn(f"skipped {error.message} (registered by plugin '{owner}')")


def _resolved(plugin: str, answer: Any) -> tuple[Card, Variant]:
    """The card and variant of a `resolve_reference` answer; raises `PluginError` for anything else."""
    match answer:
        case (Card() as card, str(name)) if (variant := card.find(name)) is not None:
            return card, variant
        case (Card(), str(name)):
            raise PluginError(f"plugin '{plugin}': resolve_reference named no variant of its card: {name!r}")
    raise PluginError(
        f"plugin '{plugin}': resolve_reference gave {answer!r}, expected a card and a variant's name"
    )


_default: Session | None = None


def default_session() -> Session:
    """The session that the library functions share."""
    global _default
    if _default is None:
        _default = Session()
    return _default
