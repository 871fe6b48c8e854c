"""A memory plan: what a request will take, worked out from its card before any weight is read.

Modules are built on the meta device, where they have shapes and no memory. `place` decides where and in which
number format a variant runs, `plan_memory` what a request takes there stage by stage, and what does not fit
is refused with what would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.cards import Card, Variant
from zoo.errors import DoesNotFit
from zoo.io.request import Request
from zoo.quantities import human_bytes
from zoo.runtime import devices, memory
from zoo.runtime.capabilities import AutoregressiveFlow, TokenLM
from zoo.runtime.components import Components, Part, Staying, check_files, is_used, parts, stage_of
from zoo.runtime.loading import build_meta
from zoo.runtime.mapped_files import mapped_in
from zoo.runtime.memory import MemoryNeed, StageNeed
from zoo.runtime.prepare import find_sampler, sampler_options
from zoo.session import Session
from zoo.store.locate import locate

if TYPE_CHECKING:
    from zoo.runtime.model import LoadedModel

WHEN = {"before": "before its model runs", "with": "while its model runs", "after": "behind its model"}


@dataclass(frozen=True)
class Wish:
    """A request for a variant, and where it is to run.

    paths: the variant's files by role, as far as they are here. options: of the sampler. device, dtype: names
    that the user gave; None is for those that suit. previews: whether somebody looks at what is there in
    between.
    """

    session: Session
    card: Card
    variant: Variant
    request: Request
    options: Any
    paths: Mapping[str, Path]
    device: str | None = None
    dtype: str | None = None
    previews: bool = False

    @property
    def reference(self) -> str:
        """`method:variant`."""
        return f"{self.card.method}:{self.variant.name}"


@dataclass(frozen=True)
class Placement:
    """Where a variant is going to run: its model on the meta device, and its components, none of them made.

    mapped: bytes of the model's weights that are used as they lie in their files. room: bytes that were left
    beside the model and its work on one sample, before it was loaded, for components to stay in.
    """

    reference: str
    module: nn.Module
    device: torch.device
    dtype: torch.dtype
    parts: tuple[Part, ...]
    mapped: int
    room: int = 0

    @cached_property
    def weights(self) -> int:
        """Bytes of the model's weights."""
        return memory.weight_bytes(self.module, self.dtype)

    def working_bytes(self, batch_size: int) -> int:
        """Bytes that the model takes beside its weights, for a batch."""
        return memory.working_bytes(self.module, batch_size, self.dtype, self.device)

    def need(self, wish: Wish) -> MemoryNeed:
        """What the request takes in the largest batches that fit, single samples at the smallest."""
        return _in_fitting_batches(
            self,
            wish.request,
            _used_parts(self.parts, wish.options, wish.previews),
            Staying(self.parts, self.room),
            memory.free_bytes(self.device),
        )


def place(wish: Wish) -> Placement:
    """Device, number formats and shapes of all that a wish needs, nothing of it read.

    Raises `InvalidInput` for a device or number format that is not there, and what building a module raises.
    """
    session, card, variant = wish.session, wish.card, wish.variant
    module = build_meta(session.architecture(card, variant), variant.config)
    asked = devices.DeviceRequest(wish.reference, memory.weight_bytes(module, torch.float32))
    chosen = wish.device or session.plugins.first("choose_device", request=asked) or devices.core_device()
    device = devices.checked_device(chosen)
    given = devices.checked_dtype(wish.dtype) if wish.dtype else None
    dtype = given or model_dtype(module, variant, device)
    others = parts(session, card, variant, wish.paths, device, given, wish.options)
    mapped = min(
        memory.weight_bytes(module, dtype), mapped_in(_model_files(variant, wish.paths), device, dtype)
    )
    placement = Placement(wish.reference, module, device, dtype, tuple(others), mapped)
    return replace(placement, room=_room_beside(placement))


def fitting_place(wish: Wish) -> tuple[Placement, MemoryNeed]:
    """Where a wish is going to run, and what it takes there.

    Raises `DoesNotFit` for one that does not fit, with what would, and what `place` raises.
    """
    placement = place(wish)
    return placement, _checked(wish, placement)


def plan_memory(
    session: Session,
    reference: str,
    requests: Sequence[Request],
    device: str | None = None,
    dtype: str | None = None,
    weights: Path | None = None,
    previews: bool = False,
) -> MemoryNeed:
    """What requests will take on this machine, before anything is loaded: the need of the heaviest.

    Arguments are those of `load`, and whether there will be `previews`. Raises `DoesNotFit` with what would
    fit, and what `load` raises for files that are not here.
    """
    card, variant = session.resolve(reference)
    architecture, paths = session.architecture(card, variant), locate(card, variant, weights)
    placement, needs = None, []
    for request in requests:
        sampler = find_sampler(session, card, variant, architecture, request.sampler, request.task)
        options = sampler_options(sampler, variant, request)
        check_files(session, card, variant, paths, options)
        wish = Wish(session, card, variant, request, options, paths, device, dtype, previews)
        placement = placement or place(wish)
        needs.append(_checked(wish, placement))
    return max(needs, key=lambda need: need.peak)


def _checked(wish: Wish, placement: Placement) -> MemoryNeed:
    need = placement.need(wish)
    try:
        memory.check_weights_fit(placement.module, wish.reference, placement.device, placement.dtype)
        for part in placement.parts:
            if is_used(part.role, part.component, wish.options):
                part.check_fits()
        check_stages(wish.reference, need)
    except DoesNotFit as error:
        from zoo.runtime.memory_advice import advice

        raise DoesNotFit(error.message, advice(wish, placement, need)) from None
    return need


def need_of_loaded(loaded: LoadedModel, request: Request) -> MemoryNeed:
    """What a request will take from now on, with a model that is loaded; raises `DoesNotFit`."""
    made = loaded.components if isinstance(loaded.components, Components) else Components(loaded.model)
    others = tuple(made.parts.values())
    placement = Placement(loaded.reference, loaded.model, loaded.device, loaded.dtype, others, loaded.mapped)
    taken = placement.weights - placement.mapped
    taken += sum(part.bytes - part.mapped for part in others if made.is_loaded(part.role))
    used, free = _used_parts(others, loaded.options(request)), memory.free_bytes(loaded.device) + taken
    need = _in_fitting_batches(placement, request, used, made.staying, free)
    need = replace(need, process=max(0, need.process - taken))
    check_stages(loaded.reference, need)
    return need


def check_stages(reference: str, need: MemoryNeed) -> None:
    """Raise `DoesNotFit` for the stage that lacks most."""
    stage = need.fullest
    missing = stage.missing(need.free)
    if missing:
        raise DoesNotFit(
            f"{reference} needs {human_bytes(stage.needed)} on {need.device} {WHEN[stage.stage]} "
            f"({listing(stage)}), {human_bytes(missing)} more than is free",
            "Close other programs, or choose another --device or a smaller --dtype.",
        )


def listing(stage: StageNeed) -> str:
    """What is in memory in a stage: "model 7.6 GiB, image_tokenizer 5.0 GiB, working memory 1.2 GiB"."""
    held = [f"{role} {human_bytes(size)}" for role, size in stage.held.items() if size]
    return ", ".join([*held, f"working memory {human_bytes(stage.working)}"])


def model_dtype(module: nn.Module, variant: Variant, device: torch.device) -> torch.dtype:
    """The number format of a variant's model where the user names none; see `devices.default_dtype`."""
    blocks: Any = ()
    if isinstance(module, AutoregressiveFlow):
        blocks = module.blocks
    elif isinstance(module, TokenLM):
        blocks = module.language_model.layers
    return devices.default_dtype(variant.dtype, device, memory.heaviest(blocks, torch.float32))


def _room_beside(placement: Placement) -> int:
    free = memory.free_bytes(placement.device)
    beside = [part for part in placement.parts if part.stage == "with" and not part.component.optional]
    work = placement.working_bytes(1)
    work = max([work, *(part.working_bytes for part in beside)])
    for_weights = int(memory.USABLE * free) - placement.weights
    return min(for_weights, int(memory.USABLE * (free - placement.weights)) - work)


def _model_files(variant: Variant, paths: Mapping[str, Path]) -> list[tuple[Path, str | None]]:
    """The files of the model's tensors that are here, each with its entry: all that no component has."""
    others = {file.role for role in variant.components for file in variant.files_of(role)}
    own = [file for file in variant.files if file.role not in others and file.format != "raw"]
    if not own and "model" in paths:
        return [(paths["model"], None)]
    return [(paths[file.role], file.entry) for file in own if file.role in paths]


def _used_parts(others: Sequence[Part], options: Any, previews: bool = False) -> list[Part]:
    """The components that a request uses, each with its stage for it."""
    used = []
    for part in others:
        if is_used(part.role, part.component, options):
            stage = stage_of(part.role, part.architecture, options)
            # What decodes the finished sample decodes what is there of it too; optional ones are too slow.
            if previews and stage == "after" and not part.component.optional:
                stage = "with"
            used.append(part if part.stage == stage else replace(part, stage=stage))
    return used


def _in_fitting_batches(
    placement: Placement, request: Request, used: Sequence[Part], staying: Staying, free: int
) -> MemoryNeed:
    def drawn_in(batch_size: int) -> MemoryNeed:
        return MemoryNeed(
            device=placement.device,
            process=memory.process_bytes(),
            weights=placement.weights,
            mapped=placement.mapped,
            working=placement.working_bytes(batch_size),
            parts=tuple(part.need(batch_size, staying.keeps(part.role)) for part in used),
            dtype=devices.dtype_name(placement.dtype),
            free=free,
            batch_size=batch_size,
            several=request.total > batch_size,
        )

    return _largest(drawn_in, min(request.batch_size or memory.MAX_BATCH, request.total))


def _largest(drawn_in: Callable[[int], MemoryNeed], wanted: int) -> MemoryNeed:
    """The need of the largest batch that fits, of `wanted` samples or a power of two times fewer."""
    need = drawn_in(wanted)
    while need.batch_size > 1 and not need.fits:
        need = drawn_in(need.batch_size // 2)
    return need
