"""A small random flow, loaded as users load theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file
from tiny_flow import CARD, random_flow

from zoo.runtime.model import LoadedModel, load
from zoo.session import Session
from zoo_tarflow.model import TarFlow


@pytest.fixture
def flow() -> TarFlow:
    return random_flow()


@pytest.fixture
def tiny_folder(tmp_path: Path, flow: TarFlow) -> Path:
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "tiny.toml").write_text(CARD, encoding="utf-8")
    save_file(flow.state_dict(), folder / "tiny.safetensors")
    return folder


@pytest.fixture
def loaded(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.setenv("ZOO_CARDS", str(tiny_folder))
    return load("tiny", session=Session())
