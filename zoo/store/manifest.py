"""Manifests: what "pulled" means. One JSON document for each variant, written last and in one step.

    {"schema": 1, "reference": "tarflow:afhq256", "pulled": "<UTC time>", "zoo": "<version>",
     "files": [{"role": "model", "path": "../../blobs/sha256-...", "sha256": "...", "size": 0,
                "format": "safetensors", "digest_from": "card", "source": "https://...", "revision": null,
                "shared": false, "original": null}],
     "missing": []}

A path is absolute or starts at the manifest's folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.errors import WeightsError
from zoo.store.layout import home, manifest_path, manifests
from zoo.store.publishing import write_json

SCHEMA = 1

#: Who said what the content should be: the card, the hub's metadata, or nobody (the first pull is believed).
DigestFrom = Literal["card", "hub", "first pull"]


@dataclass(frozen=True)
class Original:
    """The downloaded file that a stored file was converted from; `path` only where it was kept."""

    sha256: str
    size: int
    path: Path | None = None
    shared: bool = False


@dataclass(frozen=True)
class Stored:
    """One file of a pulled variant, as it lies on this machine.

    `sha256` and `size` are those of the file at `path`; `source` is the address it came from and `revision`
    the commit there. `shared` marks a file of the Hugging Face cache that was there before: never removed.
    """

    role: str
    path: Path
    sha256: str
    size: int
    format: str
    digest_from: DigestFrom
    source: str
    revision: str | None = None
    shared: bool = False
    original: Original | None = None

    @property
    def verified(self) -> bool:
        """Whether somebody other than the server of the file vouched for its content."""
        return self.digest_from != "first pull"

    @property
    def downloaded_sha256(self) -> str:
        """The digest of the file as it was downloaded."""
        return self.original.sha256 if self.original else self.sha256

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path on this machine that belongs to the file."""
        kept = self.original.path if self.original else None
        return (self.path,) if kept is None else (self.path, kept)


@dataclass(frozen=True)
class Manifest:
    """A pulled variant.

    missing: roles of files of optional components that are not here, since no source had them.
    """

    method: str
    variant: str
    pulled: str
    zoo: str
    files: tuple[Stored, ...]
    missing: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """`method:variant`."""
        return f"{self.method}:{self.variant}"

    @property
    def size(self) -> int:
        """Bytes on this machine, kept originals included."""
        kept = (file.original for file in self.files if file.original and file.original.path)
        return sum(file.size for file in self.files) + sum(original.size for original in kept)

    def file(self, role: str) -> Stored | None:
        """The file of a role."""
        return next((file for file in self.files if file.role == role), None)


def read_manifest(method: str, variant: str) -> Manifest | None:
    """The manifest of a variant, None if it was not pulled; raises `WeightsError` for a damaged one."""
    path = manifest_path(method, variant)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, method, variant, str(error)) from error
    try:
        if document["schema"] != SCHEMA:
            raise _damaged(path, method, variant, f"its schema is {document['schema']!r}, expected {SCHEMA}")
        files = tuple(_file(entry, path.parent) for entry in document["files"])
        # Written only since there are optional components.
        missing = tuple(str(role) for role in document.get("missing", ()))
        return Manifest(method, variant, str(document["pulled"]), str(document["zoo"]), files, missing)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, method, variant, f"{type(error).__name__}: {error}") from error


def write_manifest(manifest: Manifest) -> Path:
    """Make a variant "pulled"; every file it names is complete and in its place by now."""
    path = manifest_path(manifest.method, manifest.variant)
    document = {
        "schema": SCHEMA,
        "reference": manifest.reference,
        "pulled": manifest.pulled,
        "zoo": manifest.zoo,
        "files": [_plain(file, path.parent) for file in manifest.files],
        "missing": list(manifest.missing),
    }
    write_json(path, document)
    return path


def all_manifests() -> Iterator[Manifest]:
    """Every readable manifest of the store, by reference."""
    for path in sorted(manifests().glob("*/*.json")):
        try:
            manifest = read_manifest(path.parent.name, path.stem)
        except WeightsError:
            continue
        if manifest is not None:
            yield manifest


def _file(entry: Mapping[str, Any], folder: Path) -> Stored:
    values = dict(entry)
    original = values.pop("original", None)
    values["path"] = _absolute(values["path"], folder)
    if original is not None:
        kept = original.get("path")
        place = None if kept is None else _absolute(kept, folder)
        values["original"] = Original(**{**original, "path": place})
    known = {field.name for field in dataclasses.fields(Stored)}
    return Stored(**{name: value for name, value in values.items() if name in known})


def _plain(file: Stored, folder: Path) -> dict[str, Any]:
    values = dataclasses.asdict(file)
    values["path"] = _relative(file.path, folder)
    if file.original is not None and file.original.path is not None:
        values["original"]["path"] = _relative(file.original.path, folder)
    return values


def _absolute(path: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / path))


def _relative(path: Path, folder: Path) -> str:
    """Relative inside the store, so that the store can be moved; absolute for files elsewhere."""
    return os.path.relpath(path, folder) if path.is_relative_to(home()) else str(path)


def _damaged(path: Path, method: str, variant: str, problem: str) -> WeightsError:
    return WeightsError(
        f"{path}: is damaged: {problem}",
        f"zoo rm {method}:{variant} forgets it; zoo pull {method}:{variant} gets it again.",
    )
