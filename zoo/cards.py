"""Cards: the facts of a method and its variants, as TOML. Data, never code.

Only what was seen in a source stands in a card; what is unknown is absent. Every key is checked: an unknown
one is an error that names file, table, key and near match.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo.addresses import source_problem
from zoo.errors import CardError, did_you_mean
from zoo.references import is_name

SCHEMA = 1

#: No file has more bytes than this: 1 PiB.
MOST_BYTES = 1 << 50

State = Literal["built-in", "pulled", "published", "unpublished"]


@dataclass(frozen=True)
class Paper:
    """Where the method was published."""

    title: str
    arxiv: str | None = None
    url: str | None = None
    year: int | None = None


@dataclass(frozen=True)
class Code:
    """The authors' implementation, at the revision that was read."""

    url: str
    revision: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Licence:
    """Terms of a variant's weights. `accept` means that they have to be accepted before the first byte."""

    weights: str
    url: str | None = None
    accept: bool = False


@dataclass(frozen=True)
class Metric:
    """A measured figure and who measured it."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class File:
    """One file of a variant; `source` lists mirrors in order: hf://, https://, file:// or a relative path.

    A `pytorch` file is converted: the tensors under `entry`, where it holds more than tensors. A `raw` one,
    such as a tokenizer, is kept as it is.
    """

    role: str
    source: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None
    format: Literal["safetensors", "pytorch", "raw"] = "safetensors"
    converter: str | None = None
    entry: str | None = None

    def local(self, folder: Path) -> Path | None:
        """The file beside the card, where the source is a relative path."""
        first = self.source[0]
        return None if "://" in first else folder / first


@dataclass(frozen=True)
class Component:
    """A module that a variant needs beside its model, such as a text encoder; its name is its role.

    `files` are the roles of the variant's files that it is made of, tensors of several joined; a file of the
    component's own role, where there is one, is meant without. A component without any file is built as it
    is. `dtype` is the number format to run it in, where it is not that of the device. An `optional` one is
    made only for requests that use it.
    """

    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    dtype: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Variant:
    """One set of weights of a method, or a published configuration without any.

    `sampler` and the entries of `tasks` are the name of a sampler with defaults of its options: the one that
    is used where a request asks for nothing else, and those of the tasks that a request may name. `captions`
    names the closed grammar that prompts have to follow; the only one is that of `zoo.shapes`.
    """

    name: str
    summary: str
    architecture: str
    config: Mapping[str, Any]
    sampler: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    params: int | None = None
    classes: tuple[str, ...] = ()
    licence: Licence | None = None
    metrics: tuple[Metric, ...] = ()
    files: tuple[File, ...] = ()
    recipe: str | None = None
    converter: str | None = None
    dtype: str | None = None
    components: Mapping[str, Component] = field(default_factory=dict)
    captions: Literal["shapes"] | None = None
    aliases: tuple[str, ...] = ()
    notes: str | None = None

    def files_of(self, component: str) -> tuple[File, ...]:
        """The files that a component is made of, in the order of its card; () for one that needs none."""
        named = self.components[component].files if component in self.components else ()
        by_role = {file.role: file for file in self.files}
        return tuple(by_role[role] for role in named or (component,) if role in by_role)

    @property
    def optional_files(self) -> dict[str, str]:
        """The roles of files that nothing but optional components is made of, each with its component."""
        of_component = {role: self.files_of(role) for role in self.components}
        needed = {
            file.role
            for role, files in of_component.items()
            for file in files
            if not self.components[role].optional
        }
        return {
            file.role: role
            for role, files in of_component.items()
            for file in files
            if file.role not in needed
        }

    @property
    def samplers(self) -> tuple[Mapping[str, Any], ...]:
        """Every table that names a sampler: the default one, then those of the tasks."""
        return (*([self.sampler] if self.sampler else []), *self.tasks.values())

    @property
    def size(self) -> int | None:
        """Bytes of all files together; None where a size is unknown."""
        sizes = [file.size for file in self.files]
        return None if not sizes or None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True)
class Card:
    """A method and its variants; `path` is the file it came from, `origin` who brought it."""

    method: str
    title: str
    summary: str
    tasks: tuple[str, ...]
    default: str
    variants: Mapping[str, Variant]
    paper: Paper | None = None
    code: Code | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    notes: str | None = None
    path: Path | None = None
    origin: str = "zoo"

    @property
    def folder(self) -> Path:
        """Where relative file sources start."""
        return self.path.parent if self.path else Path()

    def find(self, name: str) -> Variant | None:
        """A variant by name, alias or former name."""
        name = self.renamed.get(name, name)
        if name in self.variants:
            return self.variants[name]
        return next((v for v in self.variants.values() if name in v.aliases), None)


def load_card(path: Path, origin: str = "zoo") -> Card:
    """Read and check a card file; raises `CardError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"{path}: is not valid TOML: {error}") from error
    return parse_card(document, path, origin)


def parse_card(document: Mapping[str, Any], path: Path | None = None, origin: str = "zoo") -> Card:
    """Check a card given as a mapping (what `tomllib` returns); raises `CardError`."""
    reader = _Reader(str(path) if path else f"card of {origin}")
    values = dict(document)
    schema = values.pop("schema", None)
    if schema != SCHEMA:
        raise reader.error("top level", "schema", f"expected {SCHEMA}, got {schema!r}")
    written = {f.name for f in dataclasses.fields(Card)} - {"path", "origin", "variants"} | {"variant"}
    for key in values:
        if key not in written:
            raise reader.error("top level", key, "unknown key", did_you_mean(key, {*written, "schema"}))
    variants = values.pop("variant", {})
    if not isinstance(variants, dict) or not variants:
        raise reader.error("top level", "variant", "expected at least one [variant.NAME] table")
    known = {"variant", "schema"}
    values["variants"] = {name: reader.variant(name, table) for name, table in variants.items()}
    card: Card = reader.table(Card, values, "top level", hidden={"path", "origin", "variants"}, extra=known)
    card = dataclasses.replace(card, path=path, origin=origin)
    _check_names(card, reader)
    return card


def _check_names(card: Card, reader: _Reader) -> None:
    if not is_name(card.method):
        raise reader.error("top level", "method", f"{card.method!r} is not a valid name")
    if card.path is not None and card.path.stem != card.method:
        raise reader.error(
            "top level", "method", f"{card.method!r} is not the file's name {card.path.stem!r}"
        )
    for name in card.variants:
        if not is_name(name):
            raise reader.error(f"variant.{name}", "name", f"{name!r} is not a valid name")
    if card.default not in card.variants:
        hint = did_you_mean(card.default, card.variants)
        raise reader.error("top level", "default", f"names no variant: {card.default!r}", hint)
    for old, new in card.renamed.items():
        if not is_name(old) or old in card.variants:
            raise reader.error("renamed", old, "expected the former name of a variant")
        if new not in card.variants:
            raise reader.error("renamed", old, f"names no variant: {new!r}")
    taken = {*card.variants, *card.renamed}
    for variant in card.variants.values():
        for alias in variant.aliases:
            if not is_name(alias) or alias in taken:
                problem = "is taken by another variant" if alias in taken else "is not a valid name"
                raise reader.error(f"variant.{variant.name}", "aliases", f"{alias!r} {problem}")
            taken.add(alias)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


class _Reader:
    """Turns TOML tables into dataclasses; every error names file, table and key."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, table: str, key: str, problem: str, hint: str = "") -> CardError:
        return CardError(f"{self.file}: [{table}] {key}: {problem}", hint)

    def variant(self, name: str, table: Any) -> Variant:
        if not isinstance(table, dict):
            raise self.error(f"variant.{name}", name, "expected a table")
        if "name" in table:
            raise self.error(f"variant.{name}", "name", "unknown key: the table's title is the name")
        variant: Variant = self.table(
            Variant, {"sampler": {}, "config": {}, **table, "name": name}, f"variant.{name}"
        )
        roles: set[str] = set()
        for index, file in enumerate(variant.files):
            where = f"variant.{name}.files[{index}]"
            if file.role in roles:
                raise self.error(where, "role", f"{file.role!r} stands twice")
            roles.add(file.role)
            self.check_file(file, where)
        for role, component in variant.components.items():
            self.check_component(role, component, roles, f"variant.{name}.components")
            used = {file.converter for file in variant.files_of(role) if file.format != "raw"}
            if len(used) > 1:
                problem = "its files name different converters"
                raise self.error(f"variant.{name}.components.{role}", "files", problem)
        if variant.sampler:
            self.check_sampler(variant.sampler, f"variant.{name}.sampler")
        for task, sampler in variant.tasks.items():
            if not is_name(task):
                raise self.error(f"variant.{name}.tasks", task, f"{task!r} is not a valid name")
            self.check_sampler(sampler, f"variant.{name}.tasks.{task}")
        return variant

    def check_sampler(self, sampler: Mapping[str, Any], where: str) -> None:
        if not isinstance(sampler.get("name"), str):
            raise self.error(where, "name", "expected the sampler's name")

    def check_component(self, role: str, component: Component, files: set[str], where: str) -> None:
        if not is_name(role):
            raise self.error(where, role, f"{role!r} is not a valid name")
        if role == "model":
            raise self.error(where, role, "expected the role of a part beside the model")
        for index, file in enumerate(component.files):
            if file not in files:
                hint = did_you_mean(file, files)
                raise self.error(f"{where}.{role}", f"files[{index}]", f"names no file: {file!r}", hint)
            if file in component.files[:index]:
                raise self.error(f"{where}.{role}", f"files[{index}]", f"{file!r} stands twice")

    def check_file(self, file: File, where: str) -> None:
        if not is_name(file.role):
            raise self.error(where, "role", f"{file.role!r} is not a valid name")
        if file.size is not None and not 0 <= file.size <= MOST_BYTES:
            raise self.error(where, "size", f"expected bytes, got {file.size}")
        if not file.source:
            raise self.error(where, "source", "expected at least one address")
        for index, source in enumerate(file.source):
            problem = source_problem(source)
            if problem:
                raise self.error(where, f"source[{index}]", problem)
        if file.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
            raise self.error(where, "sha256", f"expected 64 hexadecimal digits, got {file.sha256!r}")
        if file.format == "raw" and file.converter is not None:
            raise self.error(where, "converter", "a raw file is kept as it is")
        if file.entry is not None and (file.format != "pytorch" or not file.entry):
            raise self.error(where, "entry", "expected the name of an entry of a pytorch file")

    def table(
        self,
        kind: Any,
        values: Mapping[str, Any],
        table: str,
        hidden: set[str] = frozenset(),  # type: ignore[assignment]
        extra: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> Any:
        fields = {f.name: f for f in dataclasses.fields(kind)}
        hints = _hints(kind)
        writable = (set(fields) - hidden) | extra
        arguments = {}
        for key, value in values.items():
            if key not in fields or (key in hidden and key != "variants"):
                raise self.error(table, key, "unknown key", did_you_mean(key, writable))
            arguments[key] = value if key == "variants" else self.value(hints[key], value, table, key)
        for name, entry in fields.items():
            required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
            if required and name not in arguments:
                raise self.error(table, name, "missing")
        return kind(**arguments)

    def value(self, hint: Any, value: Any, table: str, key: str) -> Any:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self.value(next(h for h in inner if h is not type(None)), value, table, key)
        if origin is Literal:
            if value in inner:
                return value
            raise self.error(table, key, f"expected one of {', '.join(map(repr, inner))}, got {value!r}")
        if origin is tuple:
            if not isinstance(value, list):
                raise self.error(table, key, f"expected a list, got {value!r}")
            return tuple(self.value(inner[0], v, table, f"{key}[{i}]") for i, v in enumerate(value))
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise self.error(table, key, f"expected a table, got {value!r}")
            return self.table(hint, value, f"{table}.{key}".removeprefix("top level."))
        if origin is Mapping and inner[1] is not Any and isinstance(value, dict):
            inside = f"{table}.{key}".removeprefix("top level.")
            return {name: self.value(inner[1], entry, inside, name) for name, entry in value.items()}
        return self.scalar(dict if origin is not None else hint, value, table, key)

    def scalar(self, kind: Any, value: Any, table: str, key: str) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        names = {
            str: "a text",
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            dict: "a table",
        }
        raise self.error(table, key, f"expected {names[kind]}, got {value!r}")
