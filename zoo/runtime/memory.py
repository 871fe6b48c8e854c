"""How much memory a run needs, stage by stage, and the batch size that fits.

On a GPU everything lies in its memory. On a CPU, weights whose number format is that of their file are used
as they lie there: they take memory when they are read, and the system drops them when others need the room.
Weights that are converted have been read and hold memory of their own from the beginning.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zoo.errors import DoesNotFit
from zoo.quantities import human_bytes
from zoo.runtime.capabilities import MemoryEstimate
from zoo.runtime.devices import available_memory, dtype_name

#: The batch size where none is asked for: larger ones finish their first picture later and gain no speed.
MAX_BATCH = 64

#: Share of the free memory that a run may plan with; the rest is for what no estimate sees.
USABLE = 0.8

#: When a run uses a component: before its model runs, while it does, or behind it.
Stage = Literal["before", "with", "after"]
STAGES: tuple[Stage, ...] = ("before", "with", "after")


def weight_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of parameters and buffers in a number format."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors)


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device now, with what torch keeps of a GPU's memory for later."""
    kept = 0
    if device.type == "cuda" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return available_memory(device) + kept


def plannable(device: torch.device) -> int:
    """Bytes that a run may plan with now."""
    return int(USABLE * free_bytes(device))


def working_bytes(module: nn.Module, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Bytes that running a module on a device takes beside its weights; 0 for one that does not tell."""
    return module.sampling_memory(batch_size, dtype, device) if isinstance(module, MemoryEstimate) else 0


def heaviest(modules: Iterable[nn.Module], dtype: torch.dtype) -> int:
    """Bytes of the largest of some modules in a number format; 0 where there are none."""
    return max((weight_bytes(module, dtype) for module in modules), default=0)


def check_weights_fit(module: nn.Module, reference: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raise `DoesNotFit` before anything is loaded, with what is missing and what would help."""
    needed, free = weight_bytes(module, dtype), plannable(device)
    if needed > free:
        smaller = "" if dtype.itemsize <= 2 else "--dtype bfloat16 halves it. "
        raise DoesNotFit(
            f"{reference} needs {human_bytes(needed)} on {device} in {dtype_name(dtype)}, "
            f"{human_bytes(needed - free)} more than is free",
            f"{smaller}Close other programs, or choose another --device.",
        )


@dataclass(frozen=True)
class PartNeed:
    """What a component takes: its weights and its work, when, and whether it stays once it was made.

    stage: when it is used. mapped: the part of `weights` that lies in its file. dtype: its number format.
    """

    role: str
    weights: int
    working: int
    stays: bool
    stage: Stage
    mapped: int = 0
    dtype: str = ""


@dataclass(frozen=True)
class StageNeed:
    """What is in memory in one stage of a run, in bytes.

    held: weights by role. resting: how many of these are in their files and not used now, so that the system
    may drop them.
    """

    stage: Stage
    held: Mapping[str, int]
    resting: int
    working: int

    @property
    def needed(self) -> int:
        """What has to be there."""
        return sum(self.held.values()) - self.resting + self.working

    def missing(self, free: int) -> int:
        """How much is too little where `free` bytes are free; 0 where it fits.

        Weights may take `USABLE` of what is free, and work as much of what they leave.
        """
        weights = self.needed - self.working
        return max(0, weights - int(USABLE * free), self.working - int(USABLE * (free - weights)))


@dataclass(frozen=True)
class MemoryNeed:
    """What a run takes on its device, in bytes; on a CPU with all that the process holds already.

    process: what the process holds without the run's weights. weights, mapped, working: of the model, as in
    `PartNeed`, and so is `dtype`. free: what is free without the run's weights. several: whether more than
    one batch is drawn, so that what stays from one is there in the next.
    """

    device: torch.device
    process: int
    weights: int
    mapped: int
    working: int
    parts: tuple[PartNeed, ...] = ()
    dtype: str = ""
    free: int = 0
    batch_size: int = 1
    several: bool = False

    @property
    def taken(self) -> int:
        """The most that the run takes at any time, weights that the system might drop included."""
        return max(sum(stage.held.values()) + stage.working for stage in self.stages)

    @property
    def peak(self) -> int:
        """`taken`, and on a CPU what the process holds."""
        return self.taken + (self.process if self.device.type == "cpu" else 0)

    @property
    def stages(self) -> tuple[StageNeed, ...]:
        """What is in memory when: while the model runs, and in each other stage that uses a component."""
        used = {"with", *(part.stage for part in self.parts)}
        return tuple(self.at(stage) for stage in STAGES if stage in used)

    def at(self, stage: Stage) -> StageNeed:
        """What is in memory in a stage."""
        used = self._used(stage)
        there = [part for part in self.parts if part in used or self._rests(part, stage)]
        # Until the model runs for the first time, nobody has read what lies in its file.
        model = self.weights - (self.mapped if stage == "before" else 0)
        resting = sum(part.mapped for part in there if part not in used)
        return StageNeed(
            stage,
            {"model": model} | {part.role: part.weights for part in there},
            resting + (self.mapped if stage == "after" else 0),
            max([self.working if stage == "with" else 0, *(part.working for part in used)]),
        )

    @property
    def fullest(self) -> StageNeed:
        """The stage that lacks most, or needs most where none lacks anything."""
        return max(self.stages, key=lambda stage: (stage.missing(self.free), stage.needed))

    @property
    def fits(self) -> bool:
        """Whether every stage fits in what is free."""
        return not self.fullest.missing(self.free)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a document."""
        return {
            "device": str(self.device),
            "free": self.free,
            "peak": self.peak,
            "weights": self.weights,
            "working": self.working,
            "batch_size": self.batch_size,
            "stages": [
                {"stage": stage.stage, "needed": stage.needed, "working": stage.working}
                | {"weights": dict(stage.held)}
                for stage in self.stages
            ],
            "components": [asdict(part) for part in self.parts],
        }

    def _used(self, stage: Stage) -> list[PartNeed]:
        used = [part for part in self.parts if part.stage == stage]
        passing = [part for part in used if not part.stays]
        if stage != "before" or not passing:
            return used
        # What reads texts is let go before the next one is made.
        heaviest = max(passing, key=lambda part: part.weights + part.working)
        return [part for part in used if part.stays or part is heaviest]

    def _rests(self, part: PartNeed, stage: Stage) -> bool:
        return part.stage != stage and part.stays and (part.stage != "after" or self.several)


def process_bytes() -> int:
    """RAM that this process holds now, mapped files included where they were read."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()


def one_does_not_fit(reference: str, device: torch.device) -> DoesNotFit:
    """The error for a model that runs out of memory with a single sample."""
    return DoesNotFit(
        f"{reference}: memory ran out on {device} with a single sample",
        "Close other programs, choose another --device, or --dtype bfloat16.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that an allocation failed, on the GPU or in RAM."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    texts = ("can't allocate memory", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
