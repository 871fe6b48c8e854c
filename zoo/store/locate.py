"""Finding a variant's files on this machine. Never touches the network.

A pulled variant is one with a manifest: `models/<method>/<variant>.json` in the store, written last and
atomically. It maps every role to the file that holds it: {"files": [{"role": ..., "path": ...}, ...]}.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from zoo.cards import Card, File, Variant
from zoo.errors import InvalidInput, NotPulled, WeightsError


def home() -> Path:
    """The store: `$ZOO_HOME`, else the platform's cache folder."""
    if os.environ.get("ZOO_HOME"):
        return Path(os.environ["ZOO_HOME"]).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("zoo", appauthor=False))


def manifest_path(method: str, variant: str) -> Path:
    """The manifest whose existence means "pulled"."""
    return home() / "models" / method / f"{variant}.json"


def is_pulled(method: str, variant: str) -> bool:
    """Whether the store holds the variant."""
    return manifest_path(method, variant).is_file()


def locate(card: Card, variant: Variant, weights: Path | None = None) -> dict[str, Path]:
    """The files of a variant by role.

    `weights` replaces the model's file, or all files when it is a folder that holds `<role>.safetensors`.
    Raises `NotPulled` with the way to get the files, `WeightsError` when a file is gone.
    """
    if weights is not None:
        return _given(variant, weights)
    if not variant.files:
        raise NotPulled(*_unpublished(card, variant))
    if is_pulled(card.method, variant.name):
        return _from_manifest(card.method, variant.name)
    found = {file.role: file.local(card.folder) for file in variant.files}
    if any(path is None for path in found.values()):
        raise NotPulled(*_how_to_get(card, variant))
    paths = {role: path for role, path in found.items() if path is not None}
    for path in paths.values():
        if not path.is_file():
            raise WeightsError(
                f"{path}: the weights of {card.method}:{variant.name} are missing", "Reinstall zoo."
            )
    return paths


def _given(variant: Variant, weights: Path) -> dict[str, Path]:
    if weights.is_file():
        return {"model": weights}
    if not weights.is_dir():
        raise InvalidInput(f"{weights}: no such file", "--weights takes a weights file, or a folder of them.")
    roles = [file.role for file in variant.files] or ["model"]
    paths = {role: weights / f"{role}.safetensors" for role in roles}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise InvalidInput(
            f"{weights}: has no {', '.join(missing)}", "The folder holds one <role>.safetensors each."
        )
    return paths


def _from_manifest(method: str, variant: str) -> dict[str, Path]:
    path = manifest_path(method, variant)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {entry["role"]: path.parent / entry["path"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: is damaged: {error}", f"Delete it to forget that {method}:{variant} was pulled."
        ) from error


def built_in_alternative(card: Card) -> str | None:
    """A variant of the same method that ships with the package."""
    for variant in card.variants.values():
        if variant.files and all(file.local(card.folder) is not None for file in variant.files):
            return f"{card.method}:{variant.name}"
    return None


def _unpublished(card: Card, variant: Variant) -> tuple[str, str]:
    reference = f"{card.method}:{variant.name}"
    hint = f"Train it and use --weights FILE; zoo show {reference} gives its configuration."
    alternative = built_in_alternative(card)
    if alternative:
        hint = f"Try the built-in {alternative}: zoo sample {alternative}\n{hint}"
    return f"nobody has published weights of {reference}", hint


def _how_to_get(card: Card, variant: Variant) -> tuple[str, str]:
    reference = f"{card.method}:{variant.name}"
    files = [file for file in variant.files if file.local(card.folder) is None]
    lines = [f"Download {address(file)}" for file in files]
    name = address(files[0]).rsplit("/", 1)[-1].partition("@")[0]
    lines.append(f"then: zoo sample {reference} --weights {name}")
    alternative = built_in_alternative(card)
    if alternative:
        lines.append(f"Without a download: zoo sample {alternative}")
    return f"the weights of {reference} are not on this machine", "\n".join(lines)


def address(file: File) -> str:
    """The first source of a file as an address that a browser opens."""
    source = file.source[0]
    if not source.startswith("hf://"):
        return source
    path, _, revision = source.removeprefix("hf://").partition("@")
    org, repository, name = path.split("/", 2)
    return f"https://huggingface.co/{org}/{repository}/resolve/{revision or 'main'}/{name}"
