"""`zoo convert`: there and back, and nothing half-written."""

from __future__ import annotations

import errno
import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.errors import WeightsError
from zoo.runtime.loading import build_meta
from zoo.session import Session
from zoo.store.conversion import convert_file

REFERENCE = "tarflow:mnist"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Random weights under our names."""
    session = Session()
    card, variant = session.resolve(REFERENCE)
    module = build_meta(session.architecture(card, variant), variant.config)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) for name, tensor in module.state_dict().items()
    }
    path = tmp_path_factory.mktemp("weights") / "ours.safetensors"
    save_file(tensors, path)
    return path


def same(a, b):
    assert set(a) == set(b)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back(zoo, ours, tmp_path, suffix):
    theirs, back = tmp_path / f"theirs{suffix}", tmp_path / "back.safetensors"
    exported = zoo("convert", REFERENCE, ours, theirs, "--export", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["converter"] == "apple-tarflow"
    assert exported.json["sha256"] == hashlib.sha256(theirs.read_bytes()).hexdigest()
    assert exported.json["size"] == theirs.stat().st_size
    names = torch.load(theirs, weights_only=True) if suffix == ".pth" else load_file(theirs)
    assert "blocks.0.attn_blocks.0.attention.qkv.weight" in names
    converted = zoo("convert", REFERENCE, theirs, back, "--json")
    assert converted.code == 0, converted.err
    assert converted.json["reference"] == REFERENCE
    assert same(load_file(back), load_file(ours))


def test_ours_are_only_written_anew(zoo, ours, tmp_path):
    result = zoo("convert", REFERENCE, ours, tmp_path / "again.safetensors")
    assert result.code == 0
    assert "The names were ours already" in result.err
    assert same(load_file(tmp_path / "again.safetensors"), load_file(ours))
    assert (
        zoo("convert", REFERENCE, ours, tmp_path / "q.safetensors", "-q").out
        == f"{tmp_path / 'q.safetensors'}\n"
    )


def test_the_same_input_gives_the_same_file(zoo, ours, tmp_path):
    for name in ("a", "b"):
        zoo("convert", REFERENCE, ours, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_numbers_in_another_format(zoo, ours, tmp_path):
    result = zoo("convert", REFERENCE, ours, tmp_path / "half.safetensors", "--dtype", "float16", "--json")
    assert result.json["dtypes"] == ["float16"]
    half = load_file(tmp_path / "half.safetensors")
    assert all(torch.equal(half[name], tensor.half()) for name, tensor in load_file(ours).items())


def test_nothing_is_overwritten_silently(zoo, ours, tmp_path):
    target = tmp_path / "kept.safetensors"
    target.write_bytes(b"kept")
    result = zoo("convert", REFERENCE, ours, target)
    assert result.code == 1
    assert "exists already" in result.err
    assert "--overwrite" in result.err
    assert target.read_bytes() == b"kept"
    assert zoo("convert", REFERENCE, ours, target, "--overwrite").code == 0
    assert same(load_file(target), load_file(ours))
    # A file may be replaced by its own conversion.
    assert zoo("convert", REFERENCE, target, target, "--overwrite", "--dtype", "bfloat16").code == 0
    assert load_file(target)["prior_variance"].dtype == torch.bfloat16


def other_shape(tensors):
    tensors["prior_variance"] = tensors["prior_variance"][:3]
    return tensors


def too_few(tensors):
    del tensors["prior_variance"]
    return tensors


def too_many(tensors):
    return {**tensors, "surplus": torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other_shape, "wrong shape of prior_variance: expected [49, 16], got [3, 16]"),
        (too_few, "missing tensor prior_variance"),
        (too_many, "unexpected tensor surplus"),
    ],
)
@pytest.mark.parametrize("export", [False, True])
def test_what_does_not_fit_is_not_written(zoo, ours, tmp_path, change, expected, export):
    source, folder = tmp_path / "source.safetensors", tmp_path / "out"
    folder.mkdir()
    save_file(change(load_file(ours)), source)
    result = zoo("convert", REFERENCE, source, folder / "x.safetensors", *(["--export"] if export else []))
    assert result.code == 1
    assert expected in result.err
    assert str(source) in result.err
    assert list(folder.iterdir()) == []


def test_files_that_cannot_be_read(zoo, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    torch.save({"run": {"model": {"x": torch.zeros(1)}}}, tmp_path / "nested.pth")
    for name, text in [
        ("bad.safetensors", "is not a safetensors file"),
        ("bad.pth", "is not a weights file, it looks like: unknown content"),
        ("gone.pth", "no such file"),
        ("gone.safetensors", "no such file"),
        ("nested.pth", "nested too deep, in 'run'/'model'"),
    ]:
        result = zoo("convert", REFERENCE, tmp_path / name, tmp_path / "x.safetensors")
        assert result.code == 1, name
        assert text in result.err
        assert "Traceback" not in result.err
    assert not (tmp_path / "x.safetensors").exists()


def test_a_pickle_that_would_run_code_is_not_opened(zoo, tmp_path):
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    torch.save({"x": Harm()}, tmp_path / "harmful.pth")
    result = zoo("convert", REFERENCE, tmp_path / "harmful.pth", tmp_path / "x.safetensors")
    assert result.code == 1
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([REFERENCE, "in", "out.pth"], 2, "expected a name that ends in .safetensors"),
        (
            [REFERENCE, "in", "out.bin", "--export"],
            2,
            "expected a name that ends in .safetensors or .pth or .pt",
        ),
        (["tarflow:mnst", "in", "out.safetensors"], 3, "tarflow:mnist"),
        ([REFERENCE, "in"], 2, "Missing argument 'OUTPUT'"),
        ([REFERENCE, "in", "out.safetensors", "--dtype", "int8"], 2, "'int8' is not one of"),
    ],
)
def test_mistakes(zoo, arguments, code, text):
    result = zoo("convert", *arguments)
    assert result.code == code
    assert text in result.err


def test_foreign_names_without_a_converter(zoo, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    result = zoo("convert", "toy:plain", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert result.code == 1
    assert "the card names no converter" in result.err


def test_tensors_that_share_memory_are_written_apart(toy, tmp_path):
    both = torch.arange(16.0).reshape(4, 4)
    tensors = {"linear.weight": both.t(), "linear.bias": both[0], "count": torch.tensor(7)}
    torch.save(tensors, tmp_path / "shared.pth")
    convert_file(Session(), "toy:plain", tmp_path / "shared.pth", tmp_path / "x.safetensors")
    written = load_file(tmp_path / "x.safetensors")
    assert torch.equal(written["linear.weight"], both.t())
    assert torch.equal(written["linear.bias"], both[0])
    assert written["count"].item() == 7


def test_a_full_disk_is_said_before_a_byte_is_written(ours, tmp_path, monkeypatch):
    from zoo.errors import DoesNotFit
    from zoo.store import conversion

    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DoesNotFit, match="more than is free"):
        convert_file(Session(), REFERENCE, ours, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(ours, tmp_path, monkeypatch):
    from zoo.errors import OutputNotWritable
    from zoo.store import conversion

    def fail(tensors, path, **_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(conversion, "write_tensors", fail)
    with pytest.raises(OutputNotWritable, match=r"x\.safetensors: no space left on device"):
        convert_file(Session(), REFERENCE, ours, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_converter_s_refusal_names_the_file(tmp_path):
    torch.save({"blocks.0.attn_mask": torch.zeros(2, 2)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"odd\.pth"):
        convert_file(Session(), REFERENCE, tmp_path / "odd.pth", tmp_path / "x.safetensors")
