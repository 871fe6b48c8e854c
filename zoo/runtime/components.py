"""The modules that a variant needs beside its model: found in its card, made when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.cards import Card, Component, File, Variant
from zoo.errors import PluginError, WeightsError
from zoo.registry import Architecture, resolve
from zoo.runtime import devices, memory
from zoo.runtime.capabilities import ReadsFiles
from zoo.runtime.loading import assign, build, build_meta, convert_tensors, read_tensors
from zoo.runtime.texts import RememberedTexts, TextEncoder
from zoo.session import Session


@dataclass(frozen=True)
class Part:
    """A component of a variant that can be made: its facts, its files here, and where it shall run.

    paths: every file of the variant by role; `files` are those of them that the component is made of.
    """

    session: Session
    reference: str
    role: str
    component: Component
    architecture: Architecture
    files: tuple[File, ...]
    paths: Mapping[str, Path]
    device: torch.device
    asked_dtype: torch.dtype | None = None

    @property
    def tensor_files(self) -> tuple[File, ...]:
        """Those of its files that hold tensors."""
        return tuple(file for file in self.files if file.format != "raw")

    @cached_property
    def shapes(self) -> nn.Module:
        """The module without memory, or, where no tensors have to be read for it, as it is."""
        if not self.tensor_files:
            return build(self.architecture, self.component.config)
        return build_meta(self.architecture, self.component.config)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The number format asked for, else the card's or the device's, or bfloat16 where it is too large."""
        preferred = self.asked_dtype or devices.default_dtype(self.component.dtype, self.device)
        fits = memory.weight_bytes(self.shapes, preferred) <= memory.plannable(self.device)
        return preferred if fits or self.asked_dtype else torch.bfloat16

    @property
    def bytes(self) -> int:
        """What its weights take."""
        return memory.weight_bytes(self.shapes, self.dtype)

    @property
    def working_bytes(self) -> int:
        """What using it takes beside its weights, as far as it tells."""
        return memory.working_bytes(self.shapes, 1, self.dtype)

    def stays(self, room: int) -> bool:
        """Whether it is kept once it was made, where so many bytes are free beside the running model.

        On a CPU weights are mapped, and to map them again costs next to nothing; what a GPU holds has to be
        copied there, so it stays as long as everything fits.
        """
        return not self.tensor_files or (self.device.type != "cpu" and self.bytes <= room)

    def check_fits(self) -> None:
        """Raise `DoesNotFit` if the device has no room for it even alone."""
        memory.check_weights_fit(self.shapes, f"{self.role} of {self.reference}", self.device, self.dtype)

    def make(self) -> nn.Module:
        """The module on its device; raises `WeightsError` for files that do not fit it."""
        if self.tensor_files:
            module = build_meta(self.architecture, self.component.config)
            source = " and ".join(str(self.paths[file.role]) for file in self.tensor_files)
            assign(module, self._tensors(module, source), self.device, self.dtype, source)
        else:
            module = build(self.architecture, self.component.config).to(self.device, self.dtype)
            module.eval().requires_grad_(False)
        raw = {file.role: self.paths[file.role] for file in self.files if file.format == "raw"}
        if raw:
            if not isinstance(module, ReadsFiles):
                raise PluginError(
                    f"architecture '{self.architecture.name}' of plugin '{self.architecture.owner}' reads no "
                    f"files, and the card of {self.reference} gives it: {', '.join(raw)}"
                )
            module.read_files(raw)
        return module

    def _tensors(self, module: nn.Module, source: str) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for file in self.tensor_files:
            read = read_tensors(self.paths[file.role], file.entry)
            twice = sorted(set(read) & set(tensors))
            if twice:
                raise WeightsError(f"{source}: two of them hold the tensor {twice[0]}")
            tensors |= read
        # Cards name one converter for all of a component's files.
        converter = self.tensor_files[0].converter
        if converter is None or set(tensors) == set(module.state_dict()):
            return tensors
        entry = self.session.converter(converter, self.reference)
        return convert_tensors(entry, tensors, self.component.config, source)


class Components(Mapping[str, Any]):
    """The modules of a variant by role: the model at once, the others when they are first asked for.

    A component that offers `text-encoder` stands here as `RememberedTexts`. `staying` are the roles that are
    kept once they were made: all but text encoders that had better go.
    """

    def __init__(self, model: nn.Module, parts: Iterable[Part] = (), room: int = 0) -> None:
        """room: bytes that are free on the device beside the model, its weights and its work."""
        self.parts = {part.role: part for part in parts}
        self.staying: set[str] = set()
        self._made: dict[str, Any] = {"model": model}
        for role, part in self.parts.items():
            reads_texts = "text-encoder" in part.architecture.offers
            if not reads_texts or part.stays(room):
                self.staying.add(role)
                room -= part.bytes
            if reads_texts:
                make = cast(Callable[[], TextEncoder], part.make)
                self._made[role] = RememberedTexts(make, role in self.staying)

    def __getitem__(self, role: str) -> Any:
        if role not in self._made and role in self.parts:
            self._made[role] = self.parts[role].make()
        return self._made[role]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._made, *self.parts]))

    def __len__(self) -> int:
        return len({*self._made, *self.parts})

    @property
    def reads_texts(self) -> bool:
        """Whether there is a text encoder."""
        return any(isinstance(made, RememberedTexts) for made in self._made.values())

    def expect(self, texts: Iterable[str]) -> None:
        """Texts that the text encoders will be asked for."""
        coming = tuple(texts)
        for made in self._made.values():
            if isinstance(made, RememberedTexts):
                made.expect(coming)


def check_components(session: Session, card: Card, variant: Variant) -> None:
    """Raise `PluginError` for a component that cannot be made here, such as for a package that is missing."""
    for role in variant.components:
        architecture = session.component(card, variant, role)
        for target in (architecture.config, architecture.build):
            resolve(target, architecture.owner)


def parts(
    session: Session,
    card: Card,
    variant: Variant,
    paths: Mapping[str, Path],
    device: torch.device,
    dtype: torch.dtype | None,
) -> list[Part]:
    """The components of a variant, none made yet; raises `DoesNotFit` for one that is too large alone."""
    reference = f"{card.method}:{variant.name}"
    found = []
    for role, component in variant.components.items():
        architecture = session.component(card, variant, role)
        files = variant.files_of(role)
        part = Part(session, reference, role, component, architecture, files, paths, device, dtype)
        part.check_fits()
        found.append(part)
    return found
