"""A small prompt file, the files that the toy method makes of it, and what lies in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.io.metadata import read_provenance

PROMPTS = """\
# three lines of prompts
a red circle

{"class": "blue ring", "num": 2, "seed": 9}
a green cross
"""
NAMES = [
    "line00002-toy-shapes-a-red-circle-seed0.png",
    "line00004-toy-shapes-blue-ring-seed10.png",
    "line00004-toy-shapes-blue-ring-seed9.png",
    "line00005-toy-shapes-a-green-cross-seed0.png",
]


@pytest.fixture
def prompts(toy):
    path = Path("prompts.txt")
    path.write_text(PROMPTS)
    return path


def pictures(folder="out"):
    """Name -> bytes of everything in a folder, except for the manifest."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "manifest.jsonl"}


def by_prompt(folder):
    """(what, seed) -> bytes: what was drawn, wherever it stood in its file."""
    made = {path: read_provenance(path) for path in Path(folder).glob("*.png")}
    return {(p.prompt, p.class_name, p.seed): path.read_bytes() for path, p in made.items()}


def manifest(folder="out"):
    return [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


@pytest.fixture
def watched(prompts, monkeypatch):
    """The (prompt, seed) of every batch that is drawn, in order."""
    import zoo_toy.sampling as sampling

    original, drawn = sampling.sample, []

    def sample(loaded, batch, options, noise, on_step):
        drawn.append([(item.prompt, item.negative, item.seed) for item in batch.items])
        return original(loaded, batch, options, noise, on_step)

    monkeypatch.setattr(sampling, "sample", sample)
    return drawn
