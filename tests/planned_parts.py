"""A method with components of given sizes, for memory plans: nothing of it is ever computed on a device."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.io.artifacts import Image
from zoo.runtime import memory
from zoo.session import Session

GIB = 2**30

#: The sizes of ILLUME+ 3B and what stands behind it.
MODEL, TOKENIZER, DECODER = 4_070_000_000, 1_345_978_979, 2_650_000_000

#: Number formats of the files, where they are not bfloat16.
FILES = {"tokenizer": torch.float32}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """numbers: of the weights. working: bytes for each sample."""

    numbers: int = 1
    working: int = 0


class Sized(nn.Module):
    """So many numbers, and so much work."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.numbers))

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        return batch_size * self.config.working


class WithoutTensors(nn.Module):
    """Such as a tokenizer of texts."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()


@dataclasses.dataclass(frozen=True)
class Options:
    """What is made: a picture by one of two decoders, or a text by none."""

    decoder: Literal["pixel", "diffusion", "none"] = "pixel"
    bits: Literal[8, 16] = 8

    def uses(self, role: str) -> bool:
        if role == "tokenizer":
            return self.decoder != "none"
        return role != "decoder" or self.decoder == "diffusion"

    def stage_of(self, role: str) -> memory.Stage:
        return "after" if role in ("tokenizer", "decoder") else "with"


@dataclasses.dataclass(frozen=True)
class PlainOptions:
    """Nothing to say about components."""


def draw(loaded: Any, batch: Any, options: Options, noise: Any, on_step: Any) -> list[Image]:
    """Grey pictures, for which the components that the options use are asked."""
    read = [loaded.components[role].weight[0] for role in ("tokenizer", "decoder") if options.uses(role)]
    return [Image(torch.full((3, 1, 1), 0.5) + sum(read)) for _ in batch.items]


def write_file(path: Path, numbers: int, dtype: torch.dtype) -> None:
    """A file of one tensor "weight" of zeros, of any size: a file system keeps no zeros."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    size = numbers * dtype.itemsize
    entry = {"dtype": names[dtype], "shape": [numbers], "data_offsets": [0, size]}
    header = json.dumps({"weight": entry}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


def session_of(
    folder: Path, files: Mapping[str, torch.dtype] = FILES, **changes: Mapping[str, Any]
) -> Session:
    """A session with the variant `planned:one`; changes are keys of its components, and "model" its config.

    files: the number formats of the files that are written, by role.
    """
    components: dict[str, dict[str, Any]] = {
        "words": {"architecture": "without-tensors"},
        "tokenizer": {
            "architecture": "sized",
            "config": {"numbers": TOKENIZER, "working": GIB // 4},
            "dtype": "float32",
        },
        "decoder": {
            "architecture": "sized",
            "config": {"numbers": DECODER, "working": GIB // 2},
            "optional": True,
        },
    }
    model = {"numbers": MODEL, "working": GIB, **changes.pop("model", {})}
    for role, change in changes.items():
        components[role.replace("_", "-")] = {**components.get(role, {}), **change}
    names = ["model", *(role for role in components if role != "words")]
    variant = {
        "summary": "S",
        "architecture": "sized",
        "config": model,
        "sampler": {"name": "draw"},
        "components": components,
        "files": [{"role": name, "source": [f"{name}.safetensors"]} for name in names],
    }
    document = {"schema": 1, "method": "planned", "title": "T", "summary": "S", "tasks": ["text-to-image"]}
    card = {**document, "default": "one", "variant": {"one": variant}}
    for name in names:
        numbers = (model if name == "model" else components[name]["config"])["numbers"]
        write_file(folder / f"{name}.safetensors", numbers, files.get(name, torch.bfloat16))
    session = Session(Catalogue({"planned": parse_card(card, folder / "planned.toml")}))
    register = session.registry.callbacks("test")
    offers = ("memory-estimate",)
    register["register_architectures"]("sized", Sized, config=Sizes, offers=offers)
    register["register_architectures"]("reader", Sized, config=Sizes, offers=(*offers, "text-encoder"))
    register["register_architectures"]("without-tensors", WithoutTensors, config=Sizes)
    register["register_architectures"]("lacking", "absent_package:Decoder", config=Sizes)
    register["register_samplers"]("draw", draw, options=Options)
    register["register_samplers"]("plain", draw, options=PlainOptions)
    return session


def machine(monkeypatch: pytest.MonkeyPatch, **free: float) -> None:
    """A machine with GPUs of which none exists: GiB that are free, by the name of a device.

    `cpu` is 64 where it is not given.
    """
    cards = sorted(name for name in free if name != "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)

    def available(device: torch.device) -> int:
        name = f"cuda{device.index or 0}" if device.type == "cuda" else "cpu"
        return int(free.get(name, 64) * GIB)

    monkeypatch.setattr(memory, "available_memory", available)
