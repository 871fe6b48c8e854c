"""Finding a variant's files on this machine. Never touches the network.

The places, in this order: what the user gave, the manifest of a pulled variant, the folder of the card.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cards import Card, File, Variant
from zoo.errors import InvalidInput, NotFound, NotPulled, WeightsError
from zoo.references import is_name, parse_reference
from zoo.store.layout import manifest_path, manifests

if TYPE_CHECKING:
    # Reading manifests needs json and hashlib; `zoo list` shall not pay for them where nothing was pulled.
    from zoo.catalogue import Catalogue
    from zoo.store.manifest import Manifest

SAFETENSORS = ".safetensors"


def is_pulled(method: str, variant: str) -> bool:
    """Whether the store holds the variant."""
    return manifest_path(method, variant).is_file()


def locate(card: Card, variant: Variant, weights: Path | None = None) -> dict[str, Path]:
    """The files of a variant by role.

    `weights` replaces the model's file, or all files when it is a folder that holds `<role>.safetensors`, as
    `zoo cp` makes it; beside a single file, those of other components are the variant's own. Raises
    `NotPulled` with the way to get the files, `WeightsError` when a file is gone or the card names one that
    it did not name when the variant was pulled. Files of optional components may be missing: see
    `absent_component`.
    """
    if weights is not None:
        return _given(card, variant, weights)
    if not variant.files:
        raise NotPulled(*_unpublished(card, variant))
    pulled = _pulled(card, variant)
    if pulled is not None:
        return pulled
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


def absent_component(reference: str, component: str) -> NotPulled:
    """The error for an optional component that is asked for, and that the pull or a copy left out."""
    return NotPulled(
        f"the {component} of {reference} is not on this machine: its files are not among those that are here",
        f"zoo pull {reference} looks for them again. Without it: leave out the option that asks for it.",
    )


def identity(card: Card, variant: Variant, path: Path) -> str | None:
    """`sha256:<digest>` of a file that `locate` found, as its manifest or card says; None if neither does."""
    if is_pulled(card.method, variant.name):
        from zoo.store.manifest import read_manifest

        manifest = read_manifest(card.method, variant.name)
        for stored in manifest.files if manifest else ():
            if stored.path == path:
                return f"sha256:{stored.sha256}"
    for file in variant.files:
        if file.sha256 is not None and file.local(card.folder) == path:
            return f"sha256:{file.sha256}"
    return None


def gone(reference: str, path: Path) -> WeightsError:
    """The error for a file of a pulled variant that is not there, or not any more."""
    return WeightsError(
        f"{path}: is gone, though the manifest of {reference} names it",
        f"zoo pull {reference} gets it again; zoo rm {reference} forgets it.",
    )


@dataclass(frozen=True)
class Unreadable:
    """A manifest that cannot be read, or a folder of manifests; then `reference` is None."""

    path: Path
    reference: str | None
    error: WeightsError

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.reference or str(self.path)


@dataclass(frozen=True)
class PulledHere:
    """The whole store: every manifest, and those that cannot be read and may name any file."""

    manifests: tuple[Manifest, ...]
    damaged: tuple[Unreadable, ...]

    @property
    def size(self) -> int:
        """Bytes of all files, each counted once whoever uses it."""
        sizes: dict[Path, int] = {}
        for manifest in self.manifests:
            for file in manifest.files:
                sizes[file.path] = file.size
                if file.original is not None and file.original.path is not None:
                    sizes[file.original.path] = file.original.size
        return sum(sizes.values())


def pulled_here() -> PulledHere:
    """Every manifest of the store, by reference."""
    found: list[Manifest] = []
    damaged: list[Unreadable] = []
    for method, variant in _manifest_names(damaged):
        from zoo.store.manifest import read_manifest

        try:
            manifest = read_manifest(method, variant)
        except WeightsError as error:
            path = manifest_path(method, variant)
            damaged.append(Unreadable(path, f"{method}:{variant}", error))
        else:
            if manifest is not None:
                found.append(manifest)
    return PulledHere(tuple(found), tuple(damaged))


def meant(text: str, catalogue: Catalogue) -> tuple[str, str]:
    """Method and variant that a reference means on this machine; raises `NotFound`.

    A pulled variant is found by its own name also where its card, or the plugin that brought it, is gone.
    """
    reference = parse_reference(text)
    if reference.revision is None and reference.variant and is_pulled(reference.method, reference.variant):
        return reference.method, reference.variant
    try:
        card, variant = resolved(text, catalogue)
    except NotFound as error:
        names = [name for method, name in _manifest_names([]) if method == reference.method]
        if names and reference.variant is None:
            pulled = ", ".join(f"{reference.method}:{name}" for name in names)
            raise NotFound(error.message, f"There is no card of it; pulled are: {pulled}") from error
        raise
    return card.method, variant.name


def resolved(text: str, catalogue: Catalogue) -> tuple[Card, Variant]:
    """Card and variant of a reference, by the cards; by the plugins only where no card answers."""
    try:
        return catalogue.resolve(text)
    except NotFound:
        # Only now is it worth to import plugins: one may answer for references that no card file knows.
        from zoo.session import Session

        return Session(catalogue).resolve(text)


def _manifest_names(damaged: list[Unreadable]) -> Iterator[tuple[str, str]]:
    """Method and variant of every manifest. Folders that cannot be listed are added to `damaged`."""
    folders = [Path(entry.path) for entry in _entries(manifests(), damaged) if is_name(entry.name)]
    for folder in sorted(folders):
        for entry in sorted(_entries(folder, damaged), key=lambda entry: entry.name):
            name, suffix = os.path.splitext(entry.name)
            if suffix == ".json" and is_name(name):
                yield folder.name, name


def _entries(folder: Path, damaged: list[Unreadable]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except NotADirectoryError:
        return []
    except OSError as error:
        # A link that leads nowhere, such as to a disk that is not there, may hold manifests as well.
        if not isinstance(error, FileNotFoundError) or os.path.lexists(folder):
            reason = (error.strerror or str(error)).lower()
            text = f"{folder}: cannot be read: {reason}"
            hint = "Check its permissions, and that its disk is mounted."
            damaged.append(Unreadable(folder, None, WeightsError(text, hint)))
        return []


def _given(card: Card, variant: Variant, weights: Path) -> dict[str, Path]:
    if weights.is_file():
        needed = {file.role for role in variant.components for file in variant.files_of(role)}
        return {**(locate(card, variant) if needed else {}), "model": weights}
    if not weights.is_dir():
        raise InvalidInput(f"{weights}: no such file", "--weights takes a weights file, or a folder of them.")
    found = {role: _of_role(role, weights) for role in [file.role for file in variant.files] or ["model"]}
    needed = found.keys() - variant.optional_files.keys()
    missing = [f"{role}{SAFETENSORS}" for role, path in found.items() if path is None and role in needed]
    if missing:
        raise InvalidInput(
            f"{weights}: has no {', '.join(missing)}",
            "The folder holds one <role>.safetensors each, as zoo cp makes it.",
        )
    return {role: path for role, path in found.items() if path is not None}


def _of_role(role: str, folder: Path) -> Path | None:
    """`<role>.safetensors`, or the one file with another suffix, as roles without tensors have it."""
    usual = folder / f"{role}{SAFETENSORS}"
    if usual.is_file():
        return usual
    others = [path for path in folder.iterdir() if path.stem == role and path.suffix and path.is_file()]
    return others[0] if len(others) == 1 else None


def _pulled(card: Card, variant: Variant) -> dict[str, Path] | None:
    """The stored files by role; None where there is no manifest."""
    if not is_pulled(card.method, variant.name):
        return None
    from zoo.store.manifest import read_manifest

    manifest = read_manifest(card.method, variant.name)
    if manifest is None:  # Removed since the line above.
        return None
    left_out = set(manifest.missing) & set(variant.optional_files)
    for role in (file.role for file in variant.files):
        if manifest.file(role) is None and role not in left_out:
            raise WeightsError(
                f"{manifest.reference} was pulled without the file '{role}', which its card names by now",
                f"zoo pull {manifest.reference} gets it.",
            )
    for file in manifest.files:
        if not os.path.isfile(file.path):
            raise gone(manifest.reference, file.path)
    return {file.role: file.path for file in manifest.files}


def built_in_alternative(card: Card) -> str | None:
    """A variant of the same method that ships with the package, the default if it does."""
    for variant in sorted(card.variants.values(), key=lambda variant: variant.name != card.default):
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
    lines = [f"zoo pull {reference}"]
    if len(files) == 1:
        (file,) = files
        name = address(file).rsplit("/", 1)[-1].partition("@")[0]
        role = f"{file.role}=" if len(variant.files) > 1 else ""
        lines.append(f"Or by hand: download {address(file)}")
        lines.append(f"then: zoo pull {reference} --from {role}{name}")
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
