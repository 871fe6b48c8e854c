"""Converting a variant's files on their way into the store, and what the conversion leaves behind."""

from __future__ import annotations

import argparse
import errno
import hashlib

import pytest
import torch
from checkpoint_programs import nothing_executed
from safetensors.torch import load_file, save_file
from toy_method import tensors

from zoo.cards import File
from zoo.errors import DoesNotFit, OutputNotWritable, WeightsError
from zoo.runtime.loading import build_meta, read_tensors
from zoo.session import Session
from zoo.store import conversion
from zoo.store.conversion import convert_checkpoint, convert_file
from zoo_tarflow.convert import export

MODEL = File(role="model", source=("https://example.org/model.pth",), format="pytorch")


@pytest.fixture
def convert(toy, tmp_path):
    """Convert content of torch.save as a file of the toy method: (tensors, digest, size)."""
    session = Session()

    def call(content, file=MODEL, reference="toy:shapes", name="model.pth"):
        card, variant = session.resolve(reference)
        source, destination = tmp_path / name, tmp_path / ".convert-1.part"
        torch.save(content, source)
        digest, size = convert_checkpoint(session, card, variant, file, source, destination)
        data = destination.read_bytes()
        assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))
        return load_file(destination)

    return call


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in b)


def test_our_names_are_kept(convert):
    assert same(convert(tensors()), tensors())
    assert same(convert({"state_dict": tensors(), "args": argparse.Namespace(a=1)}, name="blob"), tensors())


def test_safetensors_in_place_of_a_checkpoint(convert, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", save_file)
    assert same(convert(tensors()), tensors())


def test_what_does_not_fit_the_architecture_is_not_written(convert, tmp_path):
    with pytest.raises(
        WeightsError, match=r"model.pth: does not fit the architecture: wrong shape of linear.w"
    ):
        convert({**tensors(), "linear.weight": torch.eye(5)})
    with pytest.raises(WeightsError, match="missing tensor count"):
        convert({name: tensor for name, tensor in tensors().items() if name != "count"})
    with pytest.raises(WeightsError, match="the card names no converter"):
        convert({"theirs": torch.ones(1)})
    assert not (tmp_path / ".convert-1.part").exists()


@pytest.mark.parametrize("converter", ["apple-tarflow", None])
def test_their_names_go_through_the_converter_of_the_file_or_the_card(convert, converter):
    session = Session()
    card, variant = session.resolve("tarflow:mnist")
    module = build_meta(session.architecture(card, variant), variant.config)
    ours = {name: torch.randn(tensor.shape) for name, tensor in module.state_dict().items()}
    theirs = export(ours, variant.config)
    file = File(role="model", source=("x",), format="pytorch", converter=converter)
    assert same(convert({"state_dict": theirs}, file, "tarflow:mnist"), ours)


def test_files_of_other_roles(convert):
    other = File(role="vae", source=("https://example.org/vae.pth",), format="pytorch")
    assert same(convert({"x": torch.arange(3)}, other), {"x": torch.arange(3)})
    named = File(role="vae", source=("x",), format="pytorch", converter="apple-tarflow")
    assert same(convert({"var": torch.ones(2)}, named), {"prior_variance": torch.ones(2)})
    with pytest.raises(WeightsError, match=r"model.pth: converter 'apple-tarflow' refuses it"):
        convert({"blocks.0.attn_mask": torch.zeros(2, 2)}, named)


def test_nothing_is_executed(toy, tmp_path):
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    session = Session()
    card, variant = session.resolve("toy:shapes")
    convert_file(session, "toy:shapes", saved(tmp_path, tensors()), tmp_path / "x.safetensors")
    source = saved(tmp_path, {"state_dict": tensors(), "harm": Harm()})
    before = set(tmp_path.iterdir())
    convert_checkpoint(session, card, variant, MODEL, source, tmp_path / "y.part")
    assert set(tmp_path.iterdir()) == {*before, tmp_path / "y.part"}
    with nothing_executed():
        assert set(read_tensors(source)) == set(tensors())


def saved(folder, content):
    torch.save(content, folder / "source.pth")
    return folder / "source.pth"


def test_a_disk_that_does_not_take_it(convert, monkeypatch, tmp_path):
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: argparse.Namespace(free=10))
    with pytest.raises(DoesNotFit, match="has no room for 88 B: 78 B more than is free"):
        convert(tensors())
    monkeypatch.undo()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(conversion, "write_tensors", full)
    session = Session()
    card, variant = session.resolve("tarflow:mnist")
    with pytest.raises(OutputNotWritable, match=r"cannot write to .*: no space left on device"):
        other = File(role="other", source=("x",))
        convert_checkpoint(
            session, card, variant, other, saved(tmp_path, {"x": torch.ones(1)}), tmp_path / "x"
        )


def test_a_cast_needs_room_for_what_it_makes(toy, tmp_path, monkeypatch):
    source = saved(tmp_path, tensors())
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: argparse.Namespace(free=60))
    done = convert_file(Session(), "toy:shapes", source, tmp_path / "x.safetensors", dtype="float16")
    assert done.dtypes == ("float16", "int64") and done.tensors == 3
    with pytest.raises(DoesNotFit):
        convert_file(Session(), "toy:shapes", source, tmp_path / "y.safetensors")
