from dataclasses import replace

import pytest
import torch

from zoo.io.artifacts import Image, Provenance


@pytest.fixture
def provenance():
    return Provenance(
        reference="tarflow:shapes",
        weights="sha256:" + "ab" * 32,
        revision="v1",
        prompt='un café, 赤い円 and "quotes" \U0001f7e5',
        seed=7,
        sampler="tarflow",
        options={"guidance": 2.0, "steps": [1, 2], "schedule": {"kind": "cosine"}},
        size=(23, 37),
        dtype="float32",
        device="cpu",
        zoo_version="0.1.0",
    )


@pytest.fixture
def picture(provenance):
    """Every channel takes many 8-bit levels, and height, width and channels all differ."""
    levels = torch.randint(0, 256, (3, 23, 37), generator=torch.Generator().manual_seed(0))
    return Image(levels / 255, provenance)


@pytest.fixture
def sized(provenance):
    """Make a plain picture of a level and a size, whose provenance has the given seed."""

    def make(level, height, width, seed=0, channels=3):
        return Image(torch.full((channels, height, width), level), replace(provenance, seed=seed))

    return make
