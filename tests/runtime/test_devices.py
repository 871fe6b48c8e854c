"""Number formats: what is chosen where none is asked for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tiny_flow import CARD, random_flow

from zoo.runtime import devices
from zoo.runtime.devices import LARGE_BLOCK, default_dtype, last_level_cache
from zoo.runtime.model import load
from zoo.session import Session

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("preferred", "native", "block", "expected"),
    [
        (None, True, LARGE_BLOCK, torch.bfloat16),
        (None, True, LARGE_BLOCK - 1, torch.float32),
        (None, False, LARGE_BLOCK, torch.float32),
        (None, True, 0, torch.float32),
        ("float32", True, LARGE_BLOCK, torch.float32),
    ],
)
def test_default_on_a_cpu(monkeypatch, preferred, native, block, expected) -> None:
    monkeypatch.setattr(devices, "native_bfloat16", lambda: native)
    assert default_dtype(preferred, CPU, block) == expected


def test_the_cache_has_a_size() -> None:
    assert 2**16 <= last_level_cache() <= 2**33


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text(CARD, encoding="utf-8")
    save_file(random_flow().state_dict(), tmp_path / "tiny.safetensors")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path))
    monkeypatch.setattr(devices, "native_bfloat16", lambda: True)


def test_a_flow_with_large_blocks_is_loaded_in_bfloat16_unless_told(tiny, monkeypatch) -> None:
    assert load("tiny", device="cpu", session=Session()).dtype == torch.float32
    # A block of the tiny flow: 2 layers of width 16 and what is around them.
    monkeypatch.setattr(devices, "LARGE_BLOCK", 4 * 2 * (12 * 16**2 + 13 * 16))
    assert load("tiny", device="cpu", session=Session()).dtype == torch.bfloat16
    assert load("tiny", device="cpu", dtype="float32", session=Session()).dtype == torch.float32


def test_the_toy_without_blocks_is_not_taken_for_one(monkeypatch, toy) -> None:
    monkeypatch.setattr(devices, "LARGE_BLOCK", 1)
    monkeypatch.setattr(devices, "native_bfloat16", lambda: True)
    assert load("toy:shapes", device="cpu").dtype == torch.float32
