"""Components beside the model: made when they are used, of their own files, in their own number format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.errors import DoesNotFit, PluginError, WeightsError
from zoo.io.artifacts import Image
from zoo.io.request import Request
from zoo.runtime import memory
from zoo.runtime.components import Components
from zoo.runtime.model import LoadedModel, load
from zoo.runtime.prepare import prepare
from zoo.runtime.texts import EncodedTexts
from zoo.session import Session


@dataclasses.dataclass(frozen=True)
class Empty:
    """No settings."""


class Painter(nn.Module):
    """The model: one colour."""

    def __init__(self, config):
        super().__init__()
        self.colour = nn.Parameter(torch.zeros(3))


class Scribe(nn.Module):
    """A text encoder: a number for each letter, times a weight, plus what its raw file says."""

    made = 0
    width = 2

    def __init__(self, config):
        super().__init__()
        type(self).made += 1
        self.weight = nn.Parameter(torch.ones(self.width))
        self.extra = 0.0

    def read_files(self, files):
        self.extra = float(files["table"].read_text())

    def encode(self, texts, most_tokens, most_characters=0):
        (text,) = texts
        features = self.weight * len(text) + self.extra
        return EncodedTexts(features.view(1, 1, 2), torch.ones(1, 1), torch.ones(1, dtype=torch.int64))

    def sampling_memory(self, batch_size, dtype, device):
        return 1000


class Plain(nn.Module):
    """A component without files."""

    def __init__(self, config):
        super().__init__()
        self.register_buffer("level", torch.tensor([0.25]))


def paint(loaded, batch, options, noise, on_step):
    """Pictures whose red is what the text encoder says, and whose green is the plain component's."""
    said = loaded.components["text_encoder"].encode([prompt or "" for prompt in batch.prompts], 8)
    green = loaded.components["plain"].level.float()
    return [
        Image(
            torch.stack([features[0, 0].float() / 100, green[0], features[0, 1].float() / 100]).view(3, 1, 1)
        )
        for features in said.features
    ]


def halved(tensors, config):
    return {"weight": tensors["theirs"] / 2}


COMPONENTS = {
    "text_encoder": {"architecture": "scribe", "files": ["scribe", "table"]},
    "plain": {"architecture": "plain"},
}


@pytest.fixture
def opened(tmp_path: Path):
    """A session with one card and a plugin's entries; arguments change the card's components and files."""

    def make(components=COMPONENTS, scribe=None, **changes) -> Session:
        (tmp_path / "table.txt").write_text("5", encoding="utf-8")
        save_file({"colour": torch.zeros(3)}, tmp_path / "model.safetensors")
        save_file(scribe or {"weight": torch.tensor([1.0, 2.0])}, tmp_path / "scribe.safetensors")
        files = [
            {"role": "model", "source": ["model.safetensors"]},
            {"role": "scribe", "source": ["scribe.safetensors"], "converter": "halved"},
            {"role": "again", "source": ["scribe.safetensors"], "converter": "halved"},
            {"role": "table", "source": ["table.txt"], "format": "raw"},
        ]
        variant = {
            "summary": "S",
            "architecture": "painter",
            "sampler": {"name": "paint"},
            "components": components,
            "files": files,
        }
        document = {"schema": 1, "method": "parts", "title": "T", "summary": "S", "tasks": ["text-to-image"]}
        card = {**document, "default": "one", "variant": {"one": variant}}
        session = Session(Catalogue({"parts": parse_card(card, tmp_path / "parts.toml")}))
        register = session.registry.callbacks("test")
        offers = {"scribe": ("text-encoder", "reads-files", "memory-estimate"), **changes}
        for name, build in {"painter": Painter, "scribe": Scribe, "plain": Plain}.items():
            register["register_architectures"](name, build, config=Empty, offers=offers.get(name, ()))
        register["register_samplers"]("paint", paint, options=Empty)
        register["register_converters"]("halved", halved)
        Scribe.made = 0
        return session

    return make


def opened_model(session: Session, **more) -> LoadedModel:
    return load("parts:one", device="cpu", session=session, **more)


def kept(components: Components) -> set[str]:
    return {role for role in components.parts if components.staying.keeps(role)}


def colours(loaded: LoadedModel, *prompts: str) -> list[list[float]]:
    drawn = loaded.sample(Request(prompts=prompts))
    return [[round(value, 6) for value in image.pixels.flatten().tolist()] for image in drawn]


def test_components_are_made_of_their_files(opened):
    loaded = opened_model(opened())
    # Red: 3 letters, weight 1, plus 5 of the raw file; blue: the same with weight 2; green: without a file.
    assert colours(loaded, "abc") == [[0.08, 0.25, 0.11]]
    assert list(loaded.components) == ["model", "text_encoder", "plain"]
    assert len(loaded.components) == 3


def test_foreign_tensors_go_through_the_files_converter(opened):
    loaded = opened_model(opened(scribe={"theirs": torch.tensor([2.0, 8.0])}))
    assert colours(loaded, "abc") == [[0.08, 0.25, 0.17]]


def test_a_text_encoder_is_made_once_for_all_prompts_and_let_go(opened):
    loaded = opened_model(opened())
    Scribe.made = 0
    assert not loaded.components["text_encoder"].loaded
    first = colours(loaded, "a", "bb", "a", "ccc")
    assert first == [[0.06, 0.25, 0.07], [0.07, 0.25, 0.09], [0.06, 0.25, 0.07], [0.08, 0.25, 0.11]]
    assert (Scribe.made, loaded.components["text_encoder"].loaded) == (1, False)
    assert colours(loaded, "bb", "a") == [first[1], first[0]]
    assert Scribe.made == 1


def test_batches_do_not_make_it_again(opened):
    loaded = opened_model(opened())
    Scribe.made = 0
    list(loaded.sample(Request(prompts=["a", "bb", "ccc"], batch_size=1)))
    assert Scribe.made == 1


def test_the_dtype_is_the_cards_the_users_or_what_fits(opened, monkeypatch):
    components = {**COMPONENTS, "text_encoder": {**COMPONENTS["text_encoder"], "dtype": "bfloat16"}}
    parts = opened_model(opened(components)).components.parts
    assert (parts["text_encoder"].dtype, parts["plain"].dtype) == (torch.bfloat16, torch.float32)
    parts = opened_model(opened(components), dtype="float32").components.parts
    assert parts["text_encoder"].dtype == torch.float32
    # It takes 8 bytes in float32, and of 9 that are free 7 may be planned with.
    part = opened_model(opened()).components.parts["text_encoder"]
    monkeypatch.setattr(memory, "available_memory", lambda device: 9)
    assert (part.dtype, dataclasses.replace(part).dtype) == (torch.float32, torch.bfloat16)


def test_a_component_that_is_too_large_alone_is_refused_before_anything_is_read(opened, monkeypatch):
    # The model takes 12 bytes in float32, the encoder 80.
    monkeypatch.setattr(memory, "available_memory", lambda device: 16)
    monkeypatch.setattr(Scribe, "width", 20)
    with pytest.raises(DoesNotFit, match="text_encoder of parts:one needs 40 B on cpu in bfloat16"):
        opened_model(opened())
    with pytest.raises(DoesNotFit, match="text_encoder of parts:one needs 80 B on cpu in float32"):
        opened_model(opened(), dtype="float32")


def test_what_a_run_takes_counts_the_larger_of_encoder_and_model(opened):
    loaded = opened_model(opened())
    need = loaded.memory_need(Request(prompts=["a"]))
    assert (need.weights, need.mapped, need.working) == (12, 12, 0)
    encoder, plain = need.parts
    assert (encoder.role, encoder.weights, encoder.working, encoder.stays) == ("text_encoder", 8, 1000, False)
    assert (plain.role, plain.weights, plain.stays) == ("plain", 4, True)
    assert need.process > 10**7
    assert need.peak == need.process + 4 + 1008


def test_the_peak_on_a_gpu_has_the_model_in_it_all_the_time():
    encoder = memory.PartNeed("text_encoder", 500, 20, stays=False, stage="before")
    need = memory.MemoryNeed(torch.device("cuda"), 7, 100, 0, 50, (encoder,))
    assert need.peak == 100 + 520
    vae = memory.PartNeed("vae", 30, 0, stays=True, stage="with")
    kept = memory.MemoryNeed(torch.device("cuda"), 7, 100, 0, 50, (vae,))
    assert kept.peak == 100 + 30 + 50


def test_files_for_an_architecture_that_reads_none_are_an_error(opened):
    components = {
        "text_encoder": COMPONENTS["text_encoder"],
        "plain": {"architecture": "plain", "files": ["table"]},
    }
    loaded = opened_model(opened(components))
    with pytest.raises(PluginError, match=r"'plain' of plugin 'test' reads no files.*table"):
        loaded.components["plain"]


def test_tensors_that_stand_in_two_files_are_an_error(opened, tmp_path):
    components = {"text_encoder": {"architecture": "scribe", "files": ["scribe", "again"]}}
    loaded = opened_model(opened(components))
    with pytest.raises(WeightsError, match="two of them hold the tensor weight"):
        list(loaded.sample(Request(prompts=["a"])))


def test_an_unknown_architecture_of_a_component_is_told_before_loading(opened):
    session = opened({"plain": {"architecture": "plane"}})
    with pytest.raises(PluginError, match="no plugin provides the architecture 'plane'") as caught:
        prepare(session, "parts:one", Request())
    assert "plain" in caught.value.hint


def test_a_text_encoder_stays_on_a_gpu_as_long_as_it_fits_beside_the_model(opened, monkeypatch):
    on_cpu = opened_model(opened()).components
    assert kept(on_cpu) == {"plain"}, "weights of a CPU are mapped again when they are needed"
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    there = {"device": torch.device("cuda"), "asked_dtype": torch.float32}
    parts = [dataclasses.replace(part, **there) for part in on_cpu.parts.values()]
    assert [part.bytes for part in parts] == [8, 4]
    assert kept(Components(on_cpu["model"], parts, room=12)) == {"text_encoder", "plain"}
    assert kept(Components(on_cpu["model"], parts, room=11)) == {"plain"}, "4 bytes go to what has to stay"


def test_weights_that_no_file_holds_are_told_before_anything_is_loaded(opened):
    components = {**COMPONENTS, "bare": {"architecture": "painter"}}
    with pytest.raises(WeightsError, match=r"the bare of parts:one has weights.*names no file"):
        opened_model(opened(components))
