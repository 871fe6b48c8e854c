"""Which device and number format to run on, and how much memory there is."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from zoo.errors import InvalidInput, did_you_mean

#: Bytes of a block in float32 above which its weights are read from memory for every token, so that halving
#: them nearly halves the time of a token.
LARGE_BLOCK = 50_000_000

#: The size of the last-level cache where the system does not tell.
USUAL_CACHE = 32 * 2**20

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class DeviceRequest:
    """What is about to run: `reference`, and `bytes` that its weights take in float32."""

    reference: str
    bytes: int


def core_device() -> str:
    """The core's choice: cuda, mps, cpu."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def checked_device(name: str) -> torch.device:
    """A device that exists on this machine; raises `InvalidInput`."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInput(f"'{name}' is not a device, expected cuda, cuda:N, mps or cpu") from None
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise InvalidInput(f"device '{name}' is not on this machine", "Use --device cpu, or see: zoo doctor")
    return device


def checked_dtype(name: str) -> torch.dtype:
    """A number format by name; raises `InvalidInput`."""
    if name not in DTYPES:
        hint = did_you_mean(name, DTYPES)
        raise InvalidInput(f"'{name}' is not a number format, expected one of: {', '.join(DTYPES)}", hint)
    return DTYPES[name]


def default_dtype(preferred: str | None, device: torch.device, block_bytes: int = 0) -> torch.dtype:
    """The card's preference, else bfloat16 where it pays, else float32; never float16.

    It pays on CUDA devices that have it, and on CPUs that have it for models that decode token by token
    through blocks of at least `LARGE_BLOCK`: `block_bytes` is the weight of the largest in float32, 0 for
    other models.
    """
    if preferred is not None:
        return checked_dtype(preferred)
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    if device.type == "cpu" and block_bytes >= LARGE_BLOCK and native_bfloat16():
        return torch.bfloat16
    return torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.float32` -> "float32"."""
    return str(dtype).removeprefix("torch.")


@cache
def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


@cache
def last_level_cache() -> int:
    """Bytes of the CPU's largest cache, as the system tells."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = file.read_text().strip()
            sizes.append(int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1))
        except (OSError, ValueError, IndexError):
            continue
    return max(sizes, default=USUAL_CACHE)


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: on the GPU, or in RAM within this process's limits."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [_meminfo_available(), _cgroup_available(), _address_space_available()]
    return min([limit for limit in limits if limit is not None], default=2**62)


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_available() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def _address_space_available() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return max(0, limit - pages * resource.getpagesize())
