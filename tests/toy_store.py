"""A store with pulled models that were never downloaded: blobs and manifests written by hand."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from toy_method import tensors

from zoo.store.layout import blob_path, home
from zoo.store.manifest import Manifest, Original, Stored, write_manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_VARIANT = """
[variant.{name}]
summary = "{name}"
architecture = "toy"
config = {{ size = 8 }}
sampler = {{ name = "toy" }}
"""

_FILE = """
[[variant.{name}.files]]
role = "{role}"
source = ["{source}"]
"""

CARD = (
    """
schema = 1
method = "shelf"
title = "Shelf"
summary = "Toys that were pulled"
tasks = ["unconditional"]
default = "one"
renamed = { former = "one" }
"""
    + "".join(
        _VARIANT.format(name=name)
        + ('licence = { weights = "Terms", accept = true }\n' if name == "two" else "")
        + _FILE.format(name=name, role="model", source=f"https://example.org/{name}.safetensors")
        for name in ("one", "two", "three")
    )
    + _VARIANT.format(name="pair")
    + _FILE.format(name="pair", role="model", source="https://example.org/model.safetensors")
    + _FILE.format(name="pair", role="extra", source="https://example.org/extra.safetensors")
    + _VARIANT.format(name="built")
    + _FILE.format(name="built", role="model", source="built.safetensors")
)


def sha256(content: bytes) -> str:
    """The digest in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def weights(mark: int = 0) -> bytes:
    """A safetensors file that the toy architecture takes; another `mark` is another content."""
    return save({**tensors(), "linear.bias": tensors()["linear.bias"] + mark})


def age(*paths: Path, hours: float = 2) -> None:
    """Make files look as if nobody had changed them for so long."""
    then = time.time() - hours * 3600
    for path in paths:
        os.utime(path, (then, then), follow_symlinks=False)


class Shelf:
    """The store of the test, the card of the method `shelf`, and a Hugging Face cache of its own."""

    def __init__(self, cards: Path, cache: Path) -> None:
        self.cards, self.cache = cards, cache

    def blob(self, content: bytes) -> Path:
        """A complete file in the store."""
        return self.file(blob_path(sha256(content)), content)

    def file(self, path: Path, content: bytes = b"something") -> Path:
        """A file, with the folders above it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def cached(self, content: bytes, repository: str = "acme--model", name: str = "model.bin") -> Path:
        """A file in the Hugging Face cache: the link of its snapshot."""
        folder = self.cache / f"models--{repository}"
        blob = self.file(folder / "blobs" / sha256(content), content)
        pointer = folder / "snapshots" / COMMIT / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        return pointer

    def stored(self, role: str, content: bytes, **facts: Any) -> Stored:
        """A file of a manifest; it lies in the blobs unless `path` says where."""
        values: dict[str, Any] = {
            "path": facts.get("path") or self.blob(content),
            "sha256": sha256(content),
            "size": len(content),
            "format": "safetensors",
            "digest_from": "card",
            "source": f"https://example.org/{role}.safetensors",
        }
        return Stored(role=role, **{**values, **facts})

    def original(self, content: bytes, path: Path | None = None, **facts: Any) -> Original:
        """A kept download; it lies in the blobs unless `path` says where."""
        return Original(sha256(content), len(content), path or self.blob(content), **facts)

    def pull(self, variant: str, *files: Stored | bytes, method: str = "shelf") -> Manifest:
        """Make a variant pulled: bytes become its model."""
        stored = tuple(self.stored("model", file) if isinstance(file, bytes) else file for file in files)
        manifest = Manifest(method, variant, "2026-01-02T03:04:05+00:00", "0.1", stored)
        write_manifest(manifest)
        return manifest


def tree() -> dict[str, bytes]:
    """Every file of the store by its path, without the locks: they hold nothing."""
    return {
        str(path.relative_to(home())): path.read_bytes()
        for path in sorted(home().rglob("*"))
        if path.is_file() and path.parent.name != "locks"
    }


@pytest.fixture
def shelf(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    cards = tmp_path / "shelf-cards"
    cards.mkdir()
    (cards / "shelf.toml").write_text(CARD, encoding="utf-8")
    (cards / "built.safetensors").write_bytes(weights())
    monkeypatch.setenv("ZOO_CARDS", str(cards))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return Shelf(cards, tmp_path / "hf" / "hub")
