"""Variants of the toy method whose weights lie on servers, and their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from toy_method import tensors

from zoo.store.download.patience import Policy
from zoo.store.progress import PlannedFile

MIB = 1 << 20

#: Small pieces and short times, so that everything that happens to gigabytes happens to a few megabytes.
QUICK = Policy(connections=4, piece=MIB, silence=1.0, attempts=4, pause=0.01, longest_pause=0.05)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Far:
    """Writes the card of the method `far`, whose variants are toys with weights elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variants: dict[str, list[dict]] = {}
        self.licences: dict[str, str] = {}

    def variant(self, name: str, *files: dict, licence: str = "") -> str:
        """A variant with these files; returns its reference."""
        self.variants[name] = [{"role": "model", **file} for file in files]
        self.licences[name] = licence
        self.write()
        return f"far:{name}"

    def write(self) -> None:
        lines = ["schema = 1", 'method = "far"', 'title = "Far"', 'summary = "Toys on servers"']
        lines += ['tasks = ["unconditional"]', f'default = "{next(iter(self.variants))}"']
        for name, files in self.variants.items():
            lines += [f"[variant.{name}]", 'summary = "far"', 'architecture = "toy"', "config = { size = 8 }"]
            lines += ['sampler = { name = "toy" }', self.licences[name]]
            for file in files:
                lines.append(f"[[variant.{name}.files]]")
                # What JSON writes for texts, numbers and lists of texts is TOML as well.
                lines += [f"{key} = {json.dumps(value)}" for key, value in file.items()]
        (self.folder / "far.toml").write_text("\n".join(lines), encoding="utf-8")


class Listener:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.files: list[PlannedFile] = []
        self.progress: list[tuple[str, int, int | None]] = []
        self.steps: list[tuple[str, str]] = []
        self.texts: list[str] = []

    def planned(self, files: Sequence[PlannedFile]) -> None:
        self.files = list(files)

    def advanced(self, role: str, done: int, total: int | None) -> None:
        self.progress.append((role, done, total))

    def working(self, role: str, what: str) -> None:
        self.steps.append((role, what))

    def said(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def far(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Far:
    folder = tmp_path / "far-cards"
    folder.mkdir()
    monkeypatch.setenv("ZOO_CARDS", str(folder))
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("zoo.store.download.patience.Policy.__init__.__defaults__", _defaults(), raising=True)
    return Far(folder)


def _defaults() -> tuple:
    return tuple(getattr(QUICK, name) for name in Policy.__dataclass_fields__)


def toy_safetensors() -> bytes:
    """The toy's weights as a safetensors file."""
    return save(tensors())


def large_safetensors(megabytes: int = 5) -> bytes:
    """A safetensors file with the toy's weights among others that nothing asks for."""
    generator = torch.Generator().manual_seed(megabytes)
    ballast = torch.randint(0, 256, (megabytes * MIB,), dtype=torch.uint8, generator=generator)
    return save({**tensors(), "ballast": ballast})


def toy_checkpoint(path: Path, **more: object) -> bytes:
    """The toy's weights as a PyTorch checkpoint, with other things beside them."""
    torch.save({"state_dict": tensors(), **more} if more else tensors(), path)
    return path.read_bytes()
