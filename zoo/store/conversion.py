"""Converting a checkpoint: foreign names to ours as safetensors, and back to the authors' names.

Every result is checked by key and shape against the variant's architecture on the meta device before a byte
is written; a file appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.cards import Card, Variant
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
    tensors = read_tensors(source)
    converter = None
    if needs_conversion(module, tensors):
        converter = _converter(session, card, variant)
        tensors = convert_tensors(converter, tensors, variant.config, str(source))
    check_tensors(module, tensors, str(source))
    return _written(card, variant, converter, tensors, destination, dtype, overwrite)


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


def _converter(session: Session, card: Card, variant: Variant) -> Converter:
    names = [file.converter for file in variant.files if file.role == "model"] + [variant.converter]
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
    separate = _separate(tensors, checked_dtype(dtype) if dtype else None)
    with new_file(destination, overwrite) as temporary:
        _check_room(temporary, sum(tensor.numel() * tensor.element_size() for tensor in separate.values()))
        try:
            if destination.suffix == SAFETENSORS:
                # One entry only: the order of several changes, and the same input shall give the same file.
                save_file(separate, temporary, metadata={"format": "pt"})
            else:
                torch.save(separate, temporary)
        except (SafetensorError, RuntimeError) as error:
            raise OutputNotWritable(
                f"cannot write {destination}: {error}", "Is there room on the disk?"
            ) from error
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = temporary.stat().st_size
    return Conversion(
        reference=_name(card, variant),
        path=str(destination),
        converter=converter.name if converter else None,
        tensors=len(separate),
        dtypes=tuple(sorted({dtype_name(tensor.dtype) for tensor in separate.values()})),
        size=size,
        sha256=digest,
    )


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        missing = human_bytes(needed - free)
        raise DoesNotFit(f"{path.parent} has no room for {human_bytes(needed)}: {missing} more than is free")


def _separate(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Contiguous tensors in the dtype asked for, none sharing its memory with another."""
    separate: dict[str, Tensor] = {}
    seen: set[Any] = set()
    for name, tensor in sorted(tensors.items()):
        cast = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        whole = cast.contiguous()
        storage = whole.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != whole.numel() * whole.element_size():
            whole = whole.clone()
        seen.add(whole.untyped_storage().data_ptr())
        separate[name] = whole
    return separate
