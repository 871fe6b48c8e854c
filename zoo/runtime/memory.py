"""How much memory a run needs, and the batch size that fits."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


def weight_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of parameters and buffers in a number format."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors)


def plannable(device: torch.device) -> int:
    """Bytes that a run may plan with now."""
    return int(USABLE * available_memory(device))


def working_bytes(module: nn.Module, batch_size: int, dtype: torch.dtype) -> int:
    """Bytes that running a module takes beside its weights; 0 for one that does not tell."""
    return module.sampling_memory(batch_size, dtype) if isinstance(module, MemoryEstimate) else 0


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


def fitting_batch(model: nn.Module, wanted: int, device: torch.device, dtype: torch.dtype) -> int:
    """The largest batch up to `wanted` whose working memory fits; raises `DoesNotFit` when one does not."""
    batch = wanted
    if not isinstance(model, MemoryEstimate):
        return batch
    free = plannable(device)
    while batch > 1 and model.sampling_memory(batch, dtype) > free:
        batch //= 2
    needed = model.sampling_memory(batch, dtype)
    if needed > free:
        raise DoesNotFit(
            f"sampling one at a time needs {human_bytes(needed)} on {device}, "
            f"{human_bytes(needed - free)} more than is free",
            "Close other programs, choose another --device, or --dtype bfloat16.",
        )
    return batch


@dataclass(frozen=True)
class PartNeed:
    """What a component takes: its weights, its work, and whether it stays while the model runs."""

    role: str
    weights: int
    working: int
    stays: bool


@dataclass(frozen=True)
class MemoryNeed:
    """What a run takes on its device, in bytes; on a CPU with all that the process holds already.

    mapped: the part of `weights` that is read into memory only when the model first runs.
    """

    device: torch.device
    process: int
    weights: int
    mapped: int
    working: int
    parts: tuple[PartNeed, ...] = ()

    @property
    def peak(self) -> int:
        """The most at any time: while a component works, or while the model does."""
        kept = sum(part.weights for part in self.parts if part.stays)
        passing = [part.weights + part.working for part in self.parts if not part.stays]
        most = kept + max([self.mapped + self.working, *passing])
        return most + (self.process if self.device.type == "cpu" else self.weights - self.mapped)


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
