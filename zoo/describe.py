"""Cards and variants as plain mappings, for listings and documents. Imports neither torch nor a plugin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from zoo.cards import Card, File, State, Variant
from zoo.catalogue import Catalogue, state_of


def summary(card: Card, variant: Variant, state: State) -> dict[str, Any]:
    """One variant in short: what `zoo list` shows."""
    return {
        "reference": f"{card.method}:{variant.name}",
        "method": card.method,
        "variant": variant.name,
        "title": card.title,
        "summary": variant.summary,
        "tasks": list(card.tasks),
        "state": state,
        "size": size_of(card, variant),
        "params": variant.params,
        "licence": variant.licence.weights if variant.licence else None,
        "default": variant.name == card.default,
        "origin": card.origin,
    }


def details(catalogue: Catalogue, card: Card, variant: Variant) -> dict[str, Any]:
    """Everything a card says about a variant, with the facts of its method and where its files are."""
    document = summary(card, variant, state_of(card, variant))
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
        "classes": list(variant.classes),
        "licence": _table(variant.licence),
        "metrics": [_table(metric) for metric in variant.metrics],
        "files": [_file(file, card) for file in variant.files],
        "recipe": variant.recipe,
        "converter": variant.converter,
        "dtype": variant.dtype,
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


def _file(file: File, card: Card) -> dict[str, Any]:
    local = file.local(card.folder)
    return {**dataclasses.asdict(file), "source": list(file.source), "path": str(local) if local else None}


def _table(entry: Any) -> dict[str, Any] | None:
    return None if entry is None else dataclasses.asdict(entry)
