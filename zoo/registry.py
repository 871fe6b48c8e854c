"""The registry: architectures, converters, samplers and recipes by name, each with the plugin it is from."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from zoo.cards import Card
from zoo.errors import InvalidInput, PluginError, did_you_mean

Target = str | Callable[..., Any]

#: Whether a sampler reads a prompt.
PromptUse = Literal["none", "optional", "required"]


def resolve(target: Target, owner: str) -> Any:
    """Import "package.module:attribute"; raises `PluginError` that names the owner and a missing package."""
    if not isinstance(target, str):
        return target
    try:
        return pkgutil.resolve_name(target)
    except (Exception, SystemExit) as error:
        own_package = target.split(".")[0].split(":")[0]
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] != own_package:
            raise PluginError(*missing_package(owner, error)) from error
        raise PluginError(
            f"plugin '{owner}': {target} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def missing_package(owner: str, error: ModuleNotFoundError, distribution: str = "zoo") -> tuple[str, str]:
    """Message and hint for a plugin whose dependency is not installed."""
    if distribution == "zoo":
        hint = f"pip install 'zoo[{owner}]'  (or the extra that the plugin's own package names)"
    else:
        hint = (
            f"pip install {(error.name or '').split('.')[0]}  (or the extra of {distribution} that brings it)"
        )
    return f"plugin '{owner}' needs the package '{error.name}', which is not installed", hint


@dataclass(frozen=True)
class Architecture:
    """A named, configurable module builder."""

    name: str
    owner: str
    build: Target
    config: Target
    summary: str = ""
    offers: tuple[str, ...] = ()

    def create(self, config: Mapping[str, Any]) -> Any:
        """Build the module for a config table, on torch's current default device."""
        kind = resolve(self.config, self.owner)
        if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
            raise PluginError(
                f"plugin '{self.owner}': the config of architecture '{self.name}' is no dataclass"
            )
        known = [field.name for field in dataclasses.fields(kind)]
        for key in config:
            if key not in known:
                hint = did_you_mean(key, known) or f"It has: {', '.join(known)}"
                raise InvalidInput(f"architecture '{self.name}' has no setting '{key}'", hint)
        try:
            return resolve(self.build, self.owner)(kind(**config))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"architecture '{self.name}' refuses its config: {error}") from error


@dataclass(frozen=True)
class Sampler:
    """A named way to draw samples; `options` is a dataclass with a default for every field.

    `makes` is the kind of its artifacts: a key of `zoo.io.kinds.KINDS`, or "package.module:Class" of a
    plugin. With `part_prompts` it reads a prompt for each part of what it makes. `images` are the roles of
    the pictures that it needs, `optional_images` of those that it reads where they are given.
    """

    name: str
    owner: str
    sample: Target
    options: Target
    tasks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    summary: str = ""
    makes: str = "image"
    part_prompts: bool = False
    images: tuple[str, ...] = ()
    optional_images: tuple[str, ...] = ()
    prompt: PromptUse = "optional"


@dataclass(frozen=True)
class Converter:
    """Maps a foreign checkpoint's tensors to ours, and back where `export` is given."""

    name: str
    owner: str
    convert: Target
    export: Target | None = None
    summary: str = ""


@dataclass(frozen=True)
class RecipeEntry:
    """A named training recipe."""

    name: str
    owner: str
    recipe: Target
    summary: str = ""


Entry = TypeVar("Entry", Architecture, Sampler, Converter, RecipeEntry)


class Table(Generic[Entry]):
    """Entries of one kind; names are compared case-insensitively and never taken over."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry; raises `PluginError` when the name is taken."""
        known = self._entries.get(entry.name.lower())
        if known is not None:
            raise PluginError(
                f"{self.kind} '{entry.name}' of plugin '{entry.owner}' is already registered "
                f"by '{known.owner}'"
            )
        self._entries[entry.name.lower()] = entry

    def find(self, name: str) -> Entry | None:
        """The entry of this name, or None."""
        return self._entries.get(name.lower())

    def remove_owner(self, owner: str) -> None:
        """Forget everything that a plugin registered."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry.owner != owner}

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(entry.name for entry in self._entries.values())

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())


class Registry:
    """Everything that plugins registered."""

    def __init__(self) -> None:
        self.architectures: Table[Architecture] = Table("architecture")
        self.samplers: Table[Sampler] = Table("sampler")
        self.converters: Table[Converter] = Table("converter")
        self.recipes: Table[RecipeEntry] = Table("recipe")
        self.cards: dict[str, list[Card]] = {}

    def callbacks(self, owner: str) -> dict[str, Callable[..., None]]:
        """The `register` callback of each registering hook, writing entries that belong to `owner`."""

        def architecture(
            name: str, build: Target, *, config: Target, summary: str = "", offers: Sequence[str] = ()
        ) -> None:
            self.architectures.add(Architecture(name, owner, build, config, summary, tuple(offers)))

        def sampler(
            name: str,
            sample: Target,
            *,
            options: Target,
            tasks: Sequence[str] = (),
            needs: Sequence[str] = (),
            summary: str = "",
            makes: str = "image",
            part_prompts: bool = False,
            images: Sequence[str] = (),
            optional_images: Sequence[str] = (),
            prompt: PromptUse = "optional",
        ) -> None:
            self.samplers.add(
                Sampler(
                    name,
                    owner,
                    sample,
                    options,
                    tuple(tasks),
                    tuple(needs),
                    summary,
                    makes,
                    part_prompts,
                    tuple(images),
                    tuple(optional_images),
                    prompt,
                )
            )

        def converter(name: str, convert: Target, *, export: Target | None = None, summary: str = "") -> None:
            self.converters.add(Converter(name, owner, convert, export, summary))

        def recipe(name: str, recipe: Target, *, summary: str = "") -> None:
            self.recipes.add(RecipeEntry(name, owner, recipe, summary))

        def card(card: Card) -> None:
            self.cards.setdefault(owner, []).append(dataclasses.replace(card, origin=owner))

        return {
            "register_architectures": architecture,
            "register_samplers": sampler,
            "register_converters": converter,
            "register_recipes": recipe,
            "register_weights": card,
        }

    def remove_owner(self, owner: str) -> None:
        """Forget everything that a plugin registered."""
        for table in (self.architectures, self.samplers, self.converters, self.recipes):
            table.remove_owner(owner)
        self.cards.pop(owner, None)
