"""The modules that a variant needs beside its model: found in its card, made when they are first used.

Which of them a request uses, and when, its sampler's options say where they have the methods of
`UsesComponents`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from zoo.cards import Card, Component, File, Variant
from zoo.errors import PluginError, WeightsError
from zoo.registry import Architecture, resolve
from zoo.runtime import devices, memory
from zoo.runtime.capabilities import ReadsFiles
from zoo.runtime.loading import assign, build, build_meta, convert_tensors, read_tensors
from zoo.runtime.mapped_files import mapped_in
from zoo.runtime.memory import Stage
from zoo.runtime.texts import RememberedTexts, TextEncoder
from zoo.session import Session
from zoo.store.locate import absent_component


@runtime_checkable
class UsesComponents(Protocol):
    """Options of a sampler that does not use every component, or not for every request."""

    def uses(self, role: str) -> bool:
        """Whether a request with these options needs the component of this role."""
        ...


@runtime_checkable
class StagesComponents(Protocol):
    """Options of a sampler that uses components at other times than while the model runs."""

    def stage_of(self, role: str) -> Stage:
        """When the component of this role is used: "before" the model runs, "with" it, or "after" it.

        What previews alone need earlier is used "after": a plan for a run with previews knows.
        """
        ...


def is_used(role: str, component: Component, options: Any) -> bool:
    """Whether a request needs a component, as its sampler's options say; else all but optional ones."""
    return options.uses(role) if isinstance(options, UsesComponents) else not component.optional


def stage_of(role: str, architecture: Architecture, options: Any) -> Stage:
    """When a component is used: texts are read before, all else is where the options do not say otherwise."""
    if "text-encoder" in architecture.offers:
        return "before"
    return options.stage_of(role) if isinstance(options, StagesComponents) else "with"


@dataclass(frozen=True)
class Part:
    """A component of a variant that can be made: its facts, its files here, and where it shall run.

    paths: every file of the variant by role; `files` are those of them that the component is made of.
    stage: when it is used.
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
    stage: Stage = "with"

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
        """The number format asked for, else the card's, else the device's, or bfloat16 if it is too large."""
        preferred = self.asked_dtype or devices.default_dtype(self.component.dtype, self.device)
        if self.asked_dtype or self.component.dtype:
            return preferred
        fits = memory.weight_bytes(self.shapes, preferred) <= memory.plannable(self.device)
        return preferred if fits else torch.bfloat16

    @property
    def bytes(self) -> int:
        """What its weights take."""
        return memory.weight_bytes(self.shapes, self.dtype)

    @cached_property
    def mapped(self) -> int:
        """How much of that is used as it lies in files; 0 where these are not here."""
        files = [(self.paths[file.role], file.entry) for file in self.tensor_files if file.role in self.paths]
        return min(self.bytes, mapped_in(files, self.device, self.dtype))

    @property
    def working_bytes(self) -> int:
        """What using it takes beside its weights, as far as it tells: for one sample."""
        return self.working_for(1)

    def working_for(self, batch_size: int) -> int:
        """The same for a batch; texts are read one by one."""
        together = 1 if self.stage == "before" else batch_size
        return memory.working_bytes(self.shapes, together, self.dtype, self.device)

    def stays(self, room: int) -> bool:
        """Whether it is kept once it was made, where so many bytes are free beside the running model.

        What is used while the model runs has to stay, and so does what was not read from files. A text
        encoder goes on a CPU: its weights are mapped, and to map them again costs next to nothing. What is
        left stays where there is room, so that it need not be read for every batch.
        """
        if not self.tensor_files or self.stage == "with":
            return True
        if self.stage == "before":
            return self.device.type != "cpu" and self.bytes <= room
        return self.room_taken <= room

    @property
    def room_taken(self) -> int:
        """What it takes from the running model if it stays: all while it is used, else what is not mapped."""
        return self.bytes - (0 if self.stage == "with" else self.mapped)

    def need(self, batch_size: int, stays: bool) -> memory.PartNeed:
        """What it takes for a batch."""
        working, dtype = self.working_for(batch_size), devices.dtype_name(self.dtype)
        return memory.PartNeed(self.role, self.bytes, working, stays, self.stage, self.mapped, dtype)

    def check_fits(self) -> None:
        """Raise `DoesNotFit` if the device has no room for it even alone."""
        memory.check_weights_fit(self.shapes, f"{self.role} of {self.reference}", self.device, self.dtype)

    def make(self) -> nn.Module:
        """The module on its device; raises `NotPulled`, and `WeightsError` for files that do not fit it."""
        if any(file.role not in self.paths for file in self.files):
            raise absent_component(self.reference, self.role)
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


class Staying:
    """Which components are kept once they were made, where so many bytes are free beside the running model.

    Room goes to what has to stay, then to the others in their order. Optional ones get what is left when they
    are asked about for the first time: until then nobody may need even their packages.
    """

    def __init__(self, parts: Iterable[Part], room: int) -> None:
        self._parts = {part.role: part for part in parts}
        self._room = room
        self._kept: dict[str, bool] = {}
        needed = [part for part in self._parts.values() if not part.component.optional]
        for part in sorted(needed, key=lambda part: part.stage != "with"):
            self.keeps(part.role)

    def keeps(self, role: str) -> bool:
        """Whether the component of a role is kept."""
        if role not in self._kept:
            part = self._parts[role]
            self._kept[role] = part.stays(self._room)
            self._room -= part.room_taken if self._kept[role] else 0
        return self._kept[role]


class Components(Mapping[str, Any]):
    """The modules of a variant by role: the model at once, the others when they are first asked for.

    A component that offers `text-encoder` stands here as `RememberedTexts`. `staying` tells which are kept
    once they were made. Any other is held by those who use it, a sampler for the time of a batch, and made
    again when it is asked for and nobody holds it.
    """

    def __init__(self, model: nn.Module, parts: Iterable[Part] = (), room: int = 0) -> None:
        """room: bytes that are free on the device beside the model, its weights and its work."""
        self.parts = {part.role: part for part in parts}
        self.staying = Staying(self.parts.values(), room)
        self._made: dict[str, Any] = {"model": model}
        self._passing: WeakValueDictionary[str, Any] = WeakValueDictionary()
        for role, part in self.parts.items():
            if "text-encoder" in part.architecture.offers:
                make = cast(Callable[[], TextEncoder], part.make)
                keep = not part.component.optional and self.staying.keeps(role)
                self._made[role] = RememberedTexts(make, keep)

    def __getitem__(self, role: str) -> Any:
        if role in self._made:
            return self._made[role]
        made = self._passing.get(role)
        if made is None:
            made = self.parts[role].make()
            (self._made if self.staying.keeps(role) else self._passing)[role] = made
        return made

    def __contains__(self, role: object) -> bool:
        return role in self._made or role in self.parts

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._made, *self.parts]))

    def __len__(self) -> int:
        return len({*self._made, *self.parts})

    def is_loaded(self, role: str) -> bool:
        """Whether the module of a role is in memory now."""
        made = self._made.get(role, self._passing.get(role))
        return made.loaded if isinstance(made, RememberedTexts) else made is not None

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


def check_components(session: Session, card: Card, variant: Variant, options: Any = None) -> None:
    """Raise `PluginError` for a component that cannot be made here, such as for a package that is missing.

    options: those of the sampler, which say what it uses.
    """
    for role, component in variant.components.items():
        if is_used(role, component, options):
            architecture = session.component(card, variant, role)
            for target in (architecture.config, architecture.build):
                resolve(target, architecture.owner)


def check_files(
    session: Session, card: Card, variant: Variant, paths: Mapping[str, Path], options: Any = None
) -> None:
    """Raise for a component that a request needs and whose weights are not here.

    paths: the variant's files that are here, by role. options: those of the sampler. Raises `NotPulled` where
    the variant was pulled without a file, and `WeightsError` where the card names none for a component that
    has weights, which would be random.
    """
    reference = f"{card.method}:{variant.name}"
    for role, component in variant.components.items():
        if not is_used(role, component, options):
            continue
        files = variant.files_of(role)
        if any(file.role not in paths for file in files):
            raise absent_component(reference, role)
        if all(file.format == "raw" for file in files):
            module = build_meta(session.component(card, variant, role), component.config)
            if next(module.parameters(), None) is not None:
                raise WeightsError(
                    f"the {role} of {reference} has weights, and its card names no file that holds them",
                    f"Name a file of the role {role} in the card; beside it, --weights takes a folder of "
                    "<role>.safetensors.",
                )


def parts(
    session: Session,
    card: Card,
    variant: Variant,
    paths: Mapping[str, Path],
    device: torch.device,
    dtype: torch.dtype | None,
    options: Any = None,
) -> list[Part]:
    """The components of a variant, none made yet; `options` of the sampler say when they are used."""
    reference = f"{card.method}:{variant.name}"
    found = []
    for role, component in variant.components.items():
        architecture = session.component(card, variant, role)
        files, stage = variant.files_of(role), stage_of(role, architecture, options)
        found.append(
            Part(session, reference, role, component, architecture, files, paths, device, dtype, stage)
        )
    return found
