"""From a checkpoint of the authors' form to pictures, with a small network."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_mdm import INNER, OUTER, inline_toml, small_nested, small_text_encoder, small_unet

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel, load
from zoo.session import Session
from zoo_mdm.convert import export
from zoo_mdm.model import Network

CARD = f"""
schema = 1
method = "small"
title = "Small networks"
summary = "for tests"
tasks = ["text-to-image"]
default = "nested"

[variant.plain]
summary = "random weights"
architecture = "mdm-unet"
sampler = {{ name = "ddim", steps = 3, threshold = "clip" }}
converter = "apple-mdm"
dtype = "float32"
config = {inline_toml(INNER)}

[variant.nested]
summary = "random weights"
architecture = "mdm-nested-unet"
sampler = {{ name = "ddim", steps = 3, guidance = 2.0, threshold = "dynamic_if", eta = 1.0 }}
dtype = "float32"
config = {inline_toml(OUTER)}
[[variant.nested.files]]
role = "model"
source = ["nested.safetensors"]
"""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "small.toml").write_text(CARD, encoding="utf-8")
    save_file(small_nested().state_dict(), folder / "nested.safetensors")
    monkeypatch.setenv("ZOO_CARDS", str(folder))
    return Session()


@pytest.fixture
def nested(session: Session) -> LoadedModel:
    loaded = load("small:nested", device="cpu", session=session)
    components = {**loaded.components, "text_encoder": small_text_encoder()}
    return dataclasses.replace(loaded, components=components)


class Settings:
    """Stands for a class of the authors' code, which is not there when a checkpoint is read."""

    def __reduce__(self) -> Any:
        return (Settings._refuse, ())

    @staticmethod
    def _refuse() -> None:
        raise AssertionError("a checkpoint's own code was run")


def test_a_checkpoint_of_the_authors_is_read_without_running_it(session: Session, tmp_path: Path) -> None:
    network: Network = small_unet()
    config = dict(session.resolve("small:plain")[1].config)
    path = tmp_path / "vis_model.pth"
    arguments = argparse.Namespace(unet_config=Settings())
    state = export(network.state_dict(), config)
    torch.save({"state_dict": state, "batch_num": 3, "loss": 0.1, "args": arguments}, path)
    loaded = load("small:plain", device="cpu", weights=path, session=session)
    ours = network.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in loaded.model.state_dict().items())


def test_a_picture_does_not_depend_on_the_batch(nested: LoadedModel) -> None:
    prompts = ["a red circle", "blue", "a blue square a red circle"]
    together = list(nested.sample(Request(prompts=prompts, seed=5)))
    assert [tuple(picture.pixels.shape) for picture in together] == [(3, 16, 16)] * 3
    for index, prompt in enumerate(prompts):
        (alone,) = nested.sample(Request(prompts=[prompt], seed=5 + index))
        torch.testing.assert_close(alone.pixels, together[index].pixels, atol=1e-4, rtol=0)


def test_prompt_guidance_and_levels_count(nested: LoadedModel) -> None:
    def drawn(prompt: str = "a red circle", **more: Any) -> torch.Tensor:
        (picture,) = nested.sample(Request(prompts=[prompt], **more))
        return picture.pixels

    usual = drawn()
    assert torch.equal(drawn(), usual)
    assert not torch.allclose(drawn("a blue square"), usual, atol=1e-3)
    assert not torch.allclose(drawn(guidance=1.0), usual, atol=1e-3)
    both = drawn(options={"all_levels": True})
    assert both.shape == (3, 16, 32)
    torch.testing.assert_close(both[..., 16:], usual)


def test_without_its_text_encoder_a_model_says_what_is_missing(session: Session) -> None:
    loaded = load("small:nested", device="cpu", session=session)
    with pytest.raises(InvalidInput, match="has no text encoder"):
        list(loaded.sample(Request(prompts=["a"])))
