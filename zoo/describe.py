"""Cards and variants as plain mappings, for listings and documents. Imports neither torch nor a plugin."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cards import Card, File, State, Variant
from zoo.catalogue import Catalogue, state_of
from zoo.errors import WeightsError, ZooError
from zoo.store.locate import is_pulled

if TYPE_CHECKING:
    from zoo.store.manifest import Manifest, Stored


def summary(card: Card, variant: Variant, state: State) -> dict[str, Any]:
    """One variant in short: what `zoo list` shows.

    `size` is what a pulled variant takes on this machine, else what its card says. `verified` tells whether
    somebody vouched for every file of a pulled variant; it is None for the others.
    """
    manifest = _manifest(card, variant) if state == "pulled" else None
    return {
        "reference": f"{card.method}:{variant.name}",
        "method": card.method,
        "variant": variant.name,
        "title": card.title,
        "summary": variant.summary,
        "tasks": list(card.tasks),
        "state": state,
        "verified": all(file.verified for file in manifest.files) if manifest else None,
        "size": manifest.size if manifest else size_of(card, variant),
        "params": variant.params,
        "licence": variant.licence.weights if variant.licence else None,
        "default": variant.name == card.default,
        "origin": card.origin,
    }


def details(catalogue: Catalogue, card: Card, variant: Variant) -> dict[str, Any]:
    """Everything a card says about a variant, with the facts of its method and where its files are."""
    document = summary(card, variant, state_of(card, variant))
    manifest = _manifest(card, variant)
    overridden = catalogue.overrides.get(card.method)
    document |= {
        "method_summary": card.summary,
        "method_notes": card.notes,
        "tags": list(card.tags),
        "paper": _table(card.paper),
        "code": _table(card.code),
        "architecture": variant.architecture,
        "config": dict(variant.config),
        "sampler": dict(variant.sampler),
        "task_samplers": {task: dict(sampler) for task, sampler in variant.tasks.items()},
        "classes": list(variant.classes),
        "licence": _table(variant.licence),
        "metrics": [_table(metric) for metric in variant.metrics],
        "files": [_file(file, card, manifest) for file in variant.files],
        "pulled": _pulled(manifest, card, variant) if manifest else None,
        "recipe": variant.recipe,
        "converter": variant.converter,
        "dtype": variant.dtype,
        "components": {role: _component(variant, role) for role in variant.components},
        "captions": variant.captions,
        "aliases": list(variant.aliases),
        "notes": variant.notes,
        "variants": list(card.variants),
        "card": str(card.path) if card.path else None,
        "overrides": str(overridden) if overridden else None,
    }
    return document


def size_of(card: Card, variant: Variant) -> int | None:
    """Bytes of all files: as the card says, else as they lie here; None where neither is known."""
    sizes = [
        file.size if file.size is not None else _size_here(file.local(card.folder)) for file in variant.files
    ]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def _size_here(path: Path | None) -> int | None:
    try:
        return path.stat().st_size if path else None
    except OSError:
        return None


def _manifest(card: Card, variant: Variant) -> Manifest | None:
    """The manifest of a pulled variant; None for a damaged one too, which using the variant reports."""
    if not is_pulled(card.method, variant.name):
        return None
    from zoo.store.manifest import read_manifest

    try:
        return read_manifest(card.method, variant.name)
    except WeightsError:
        return None


def _component(variant: Variant, role: str) -> dict[str, Any]:
    """A component as its card has it, with the roles of all files that it is made of."""
    component = variant.components[role]
    return {
        "architecture": component.architecture,
        "config": dict(component.config),
        "files": [file.role for file in variant.files_of(role)],
        "dtype": component.dtype,
        "optional": component.optional,
    }


def _file(file: File, card: Card, manifest: Manifest | None) -> dict[str, Any]:
    stored = manifest.file(file.role) if manifest else None
    local = stored.path if stored else file.local(card.folder)
    return {**dataclasses.asdict(file), "source": list(file.source), "path": str(local) if local else None}


def _pulled(manifest: Manifest, card: Card, variant: Variant) -> dict[str, Any]:
    """What lies here, since when, and when its terms were accepted."""
    from zoo.store.licences import accepted, terms_of

    terms = terms_of(card, variant)
    acceptance = None
    if terms is not None:
        with contextlib.suppress(ZooError):  # A damaged record is reported by the next pull.
            acceptance = accepted(terms)
    return {
        "at": manifest.pulled,
        "zoo": manifest.zoo,
        "size": manifest.size,
        "licence_accepted": acceptance.date if acceptance else None,
        "files": [_stored(file, variant) for file in manifest.files],
        "missing": list(manifest.missing),
    }


def _stored(stored: Stored, variant: Variant) -> dict[str, Any]:
    kept = stored.original
    document = {
        **dataclasses.asdict(stored),
        "path": str(stored.path),
        "verified": stored.verified,
        "first_pulled": None if stored.verified else _first_pulled(stored, variant),
    }
    if kept is not None:
        document["original"]["path"] = str(kept.path) if kept.path else None
    return document


def _first_pulled(stored: Stored, variant: Variant) -> str | None:
    """Since when the content of a file is believed."""
    from zoo.store.trust import first_pull

    file = next((file for file in variant.files if file.role == stored.role), None)
    with contextlib.suppress(ZooError):
        known = first_pull(file.source[0] if file else stored.source)
        return known.date if known else None
    return None


def _table(entry: Any) -> dict[str, Any] | None:
    return None if entry is None else dataclasses.asdict(entry)
