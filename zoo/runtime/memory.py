"""How much memory a run needs, and the batch size that fits."""

from __future__ import annotations

import torch
from torch import nn

from zoo.errors import DoesNotFit
from zoo.runtime.capabilities import MemoryEstimate
from zoo.runtime.devices import available_memory, dtype_name

#: Batches larger than this gain no speed on any device measured, and finish their first picture later.
MAX_BATCH = 64

#: Share of the free memory that a run may plan with; the rest is for what no estimate sees.
USABLE = 0.8


def weight_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of parameters and buffers in a number format."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors)


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def check_weights_fit(module: nn.Module, reference: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raise `DoesNotFit` before anything is loaded, with what is missing and what would help."""
    needed, free = weight_bytes(module, dtype), int(USABLE * available_memory(device))
    if needed > free:
        smaller = "" if dtype.itemsize <= 2 else "--dtype bfloat16 halves it. "
        raise DoesNotFit(
            f"{reference} needs {human_bytes(needed)} on {device} in {dtype_name(dtype)}, "
            f"{human_bytes(needed - free)} more than is free",
            f"{smaller}Close other programs, or choose another --device.",
        )


def fitting_batch(model: nn.Module, wanted: int, device: torch.device, dtype: torch.dtype) -> int:
    """The largest batch up to `wanted` whose working memory fits; raises `DoesNotFit` when one sample does not."""
    batch = min(wanted, MAX_BATCH)
    if not isinstance(model, MemoryEstimate):
        return batch
    free = int(USABLE * available_memory(device))
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that an allocation failed, on the GPU or in RAM."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
