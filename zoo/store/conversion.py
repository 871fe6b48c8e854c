"""Converting a checkpoint: foreign names to ours as safetensors, and back to the authors' names.

Every result is checked by key and shape against the variant's architecture on the meta device before a byte
is written; a file appears complete or not at all. Sources are mapped and safetensors written as a stream, so
that memory holds little more than the pages of the source that were read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.cards import Card, File, Variant
from zoo.errors import (
    DoesNotFit,
    InvalidInput,
    OutputExists,
    OutputNotWritable,
    PluginError,
    WeightsError,
    ZooError,
)
from zoo.io.files import new_file
from zoo.plugins import describe
from zoo.quantities import human_bytes
from zoo.registry import Converter, resolve
from zoo.runtime.devices import checked_dtype, dtype_name
from zoo.runtime.loading import build_meta, check_tensors, convert_tensors, needs_conversion, read_tensors
from zoo.session import Session
from zoo.store.checkpoints.writing import write_tensors, written_dtype

SAFETENSORS = ".safetensors"
PYTORCH = (".pth", ".pt")


@dataclass(frozen=True)
class Conversion:
    """A file that was written: `converter` is None where the names were kept as they were."""

    reference: str
    path: str
    converter: str | None
    tensors: int
    dtypes: tuple[str, ...]
    size: int
    sha256: str


def convert_file(
    session: Session,
    reference: str,
    source: Path,
    destination: Path,
    dtype: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write the tensors of `source` under our names to `destination`, a .safetensors file.

    `source` is a PyTorch checkpoint (only its tensors are read) or safetensors, under the authors' names or
    ours. `dtype` casts the floating-point tensors. Raises `WeightsError` when they do not fit the variant.
    """
    _check_destination(destination, (SAFETENSORS,), overwrite)
    card, variant, module = _opened(session, reference)
    entry = next((file.entry for file in variant.files if file.role == "model"), None)
    tensors, converter = _ours(session, card, variant, module, read_tensors(source, entry), source)
    return _written(card, variant, converter, tensors, destination, dtype, overwrite)


def convert_checkpoint(
    session: Session, card: Card, variant: Variant, file: File, source: Path, destination: Path
) -> tuple[str, int]:
    """Write the tensors of `source`, one of a variant's files, as safetensors: (sha256, size in bytes).

    `destination` is a path that the caller publishes; its suffix does not matter. The model's tensors are
    written under our names after a check against the architecture; those of other roles go through the
    file's converter if it names one. Raises `WeightsError` for a source that cannot be read or does not fit,
    `DoesNotFit` and `OutputNotWritable` where the disk does not take it.
    """
    tensors = read_tensors(source, file.entry)
    if file.role == "model":
        module = build_meta(session.architecture(card, variant), variant.config)
        tensors, _ = _ours(session, card, variant, module, tensors, source, file.converter)
    elif file.converter is not None:
        converter = session.converter(file.converter, _name(card, variant))
        tensors = convert_tensors(converter, tensors, variant.config, str(source))
    _check_room(destination, tensors)
    try:
        return write_tensors(tensors, destination)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputNotWritable(
            f"cannot write to {destination.parent}: {reason}", "Is there room, and may you write there?"
        ) from error


def export_file(
    session: Session,
    reference: str,
    source: Path,
    destination: Path,
    dtype: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write our tensors of `source` under the authors' names to `destination`: .safetensors, .pth or .pt.

    Raises `InvalidInput` when the converter knows no way back, `WeightsError` when `source` does not fit.
    """
    _check_destination(destination, (SAFETENSORS, *PYTORCH), overwrite)
    card, variant, module = _opened(session, reference)
    converter = _converter(session, card, variant)
    if converter.export is None:
        raise InvalidInput(f"converter '{converter.name}' of {_name(card, variant)} has no export")
    tensors = read_tensors(source)
    check_tensors(module, tensors, str(source))
    try:
        theirs: Mapping[str, Tensor] = resolve(converter.export, converter.owner)(
            dict(tensors), variant.config
        )
    except ZooError:
        raise
    except Exception as error:
        raise PluginError(
            f"converter '{converter.name}' of plugin '{converter.owner}' failed: {describe(error)}"
        ) from error
    return _written(card, variant, converter, theirs, destination, dtype, overwrite)


def _opened(session: Session, reference: str) -> tuple[Card, Variant, nn.Module]:
    card, variant = session.resolve(reference)
    return card, variant, build_meta(session.architecture(card, variant), variant.config)


def _ours(
    session: Session,
    card: Card,
    variant: Variant,
    module: nn.Module,
    tensors: dict[str, Tensor],
    source: Path,
    converter_name: str | None = None,
) -> tuple[dict[str, Tensor], Converter | None]:
    """The tensors under our names, checked against the module, and the converter if one was needed."""
    converter = None
    if needs_conversion(module, tensors):
        converter = _converter(session, card, variant, converter_name)
        tensors = convert_tensors(converter, tensors, variant.config, str(source))
    check_tensors(module, tensors, str(source))
    return tensors, converter


def _converter(session: Session, card: Card, variant: Variant, first: str | None = None) -> Converter:
    """The converter called `first`, else that of the model's file, else the variant's."""
    names = [first, *(file.converter for file in variant.files if file.role == "model"), variant.converter]
    name = next((name for name in names if name is not None), None)
    if name is None:
        raise WeightsError(
            f"{_name(card, variant)}: the tensors' names are not ours, and the card names no converter",
            f"zoo show {_name(card, variant)} shows its architecture.",
        )
    return session.converter(name, _name(card, variant))


def _name(card: Card, variant: Variant) -> str:
    return f"{card.method}:{variant.name}"


def _check_destination(path: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """Before gigabytes are read for a file that may not be written."""
    if path.suffix not in suffixes:
        raise InvalidInput(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already", "Choose another path, or pass --overwrite.")


def _written(
    card: Card,
    variant: Variant,
    converter: Converter | None,
    tensors: Mapping[str, Tensor],
    destination: Path,
    dtype: str | None,
    overwrite: bool,
) -> Conversion:
    cast = checked_dtype(dtype) if dtype else None
    with new_file(destination, overwrite) as temporary:
        _check_room(temporary, tensors, cast)
        if destination.suffix == SAFETENSORS:
            digest, size = write_tensors(tensors, temporary, dtype=cast)
        else:
            digest, size = _write_pytorch(tensors, temporary, cast)
    return Conversion(
        reference=_name(card, variant),
        path=str(destination),
        converter=converter.name if converter else None,
        tensors=len(tensors),
        dtypes=tuple(sorted({dtype_name(written_dtype(tensor, cast)) for tensor in tensors.values()})),
        size=size,
        sha256=digest,
    )


def _check_room(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    needed = sum(tensor.numel() * written_dtype(tensor, dtype).itemsize for tensor in tensors.values())
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        missing = human_bytes(needed - free)
        raise DoesNotFit(f"{path.parent} has no room for {human_bytes(needed)}: {missing} more than is free")


def _write_pytorch(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None) -> tuple[str, int]:
    try:
        torch.save(_separate(tensors, dtype), path)
    except RuntimeError as error:
        raise OutputNotWritable(f"cannot write {path}: {error}", "Is there room on the disk?") from error
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _separate(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Contiguous tensors in the dtype asked for, none sharing its memory with another.

    torch.save writes all of the memory that a view belongs to, and what is shared only once.
    """
    separate: dict[str, Tensor] = {}
    seen: set[Any] = set()
    for name, tensor in sorted(tensors.items()):
        whole = tensor.to(written_dtype(tensor, dtype)).contiguous()
        storage = whole.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != whole.numel() * whole.element_size():
            whole = whole.clone()
        seen.add(whole.untyped_storage().data_ptr())
        separate[name] = whole
    return separate
