"""Writing safetensors as a stream: the bytes of the library's own files, and little memory."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo.errors import WeightsError
from zoo.store.checkpoints import writing
from zoo.store.checkpoints.formats import check_safetensors
from zoo.store.checkpoints.writing import FORMATS, write_tensors


def read(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def same(a, b):
    return set(a) == set(b) and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and torch.equal(a[name].reshape(-1).view(torch.uint8), b[name].reshape(-1).view(torch.uint8))
        for name in b
    )


def of_every_format():
    return {
        f"{index}": torch.randint(0, 2, (6, 8), dtype=torch.uint8).view(dtype)
        for index, dtype in enumerate(FORMATS)
    }


def test_every_number_format_is_read_back(tmp_path):
    tensors = of_every_format()
    assert len(tensors) >= 15
    digest, size = write_tensors(tensors, tmp_path / "x")
    assert same(read(tmp_path / "x"), tensors)
    data = (tmp_path / "x").read_bytes()
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert check_safetensors(tmp_path / "x") == len(tensors)


@pytest.mark.parametrize("metadata", [None, {}, {"author": "é\n"}])
def test_the_bytes_are_those_of_the_library(tmp_path, metadata):
    usual = (torch.int64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.bool)
    tensors = {
        **{f"a.{index}": torch.arange(3).to(dtype) for index, dtype in enumerate(usual)},
        **{f"b.{index}": torch.arange(5).to(dtype) for index, dtype in enumerate(usual[::-1])},
        'é "\\\n\x01\u2028': torch.tensor(1.0),
        "empty": torch.zeros(0, 3),
    }
    write_tensors(tensors, tmp_path / "ours", metadata)
    save_file(
        tensors, tmp_path / "theirs", metadata={"format": "pt"} if metadata is None else metadata or None
    )
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert same(read(tmp_path / "ours"), tensors)


def test_metadata_are_read_back(tmp_path):
    write_tensors({"x": torch.ones(1)}, tmp_path / "x", {"b": "2", "a": "1"})
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert file.metadata() == {"a": "1", "b": "2"}


def test_the_order_of_the_input_does_not_matter(tmp_path):
    tensors = of_every_format()
    first = write_tensors(tensors, tmp_path / "a", {"x": "1", "y": "2"})
    again = write_tensors(dict(reversed(tensors.items())), tmp_path / "b", {"y": "2", "x": "1"})
    assert first == again and (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_are_aligned(tmp_path):
    tensors = {"a": torch.ones(3, dtype=torch.int8), "b": torch.ones(1).double(), "c": torch.ones(1).half()}
    write_tensors(tensors, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    for name, tensor in tensors.items():
        assert (8 + length + header[name]["data_offsets"][0]) % tensor.element_size() == 0


@pytest.mark.parametrize("piece", [8, 24, 100, 2**20])
def test_large_tensors_go_in_pieces(tmp_path, monkeypatch, piece):
    base = torch.arange(5 * 7 * 6).float().reshape(5, 7, 6)
    tensors = {
        "whole": base,
        "turned": base.permute(2, 0, 1),
        "steps": base[::2, 1:, ::3],
        "row": base[0, 0],
        "column": base[:, 0, 0],
        "wide": base.reshape(1, -1).t().contiguous().t(),
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 4, 2),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(2, 0),
        "flipped": torch.complex(base[0], base[1]).t().conj(),
        "imaginary": torch.complex(base[0], base[1]).conj().imag,
    }
    monkeypatch.setattr(writing, "PIECE", piece)
    write_tensors(tensors, tmp_path / "x")
    plain = {name: tensor.resolve_conj().resolve_neg().contiguous() for name, tensor in tensors.items()}
    assert same(read(tmp_path / "x"), plain)
    sizes = [len(data) for tensor in tensors.values() for data in writing._data(tensor, tensor.dtype)]
    assert max(sizes) <= max(piece, 8)


def test_a_cast_goes_in_pieces_too(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PIECE", 16)
    tensors = {"a": torch.arange(100.0).reshape(4, 25).t(), "n": torch.arange(5), "h": torch.ones(3).half()}
    write_tensors(tensors, tmp_path / "x", dtype=torch.bfloat16)
    written = read(tmp_path / "x")
    assert {name: tensor.dtype for name, tensor in written.items()} == {
        "a": torch.bfloat16,
        "n": torch.int64,
        "h": torch.bfloat16,
    }
    assert torch.equal(written["a"], tensors["a"].bfloat16()) and written["n"].tolist() == [0, 1, 2, 3, 4]


def test_parameters_and_shared_tensors(tmp_path):
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    tensors = {"weight": parameter, "tied": parameter, "part": parameter.detach()[1]}
    write_tensors(tensors, tmp_path / "x")
    assert same(read(tmp_path / "x"), {name: tensor.detach() for name, tensor in tensors.items()})


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_tensors({"x": torch.ones(1000)}, tmp_path / "x")
    digest, size = write_tensors({"x": torch.ones(1)}, tmp_path / "x")
    assert (tmp_path / "x").stat().st_size == size
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: {"x": torch.zeros(2, dtype=torch.complex128)},
            "'x': it is complex128, which cannot be written",
        ),
        (lambda: {"x": torch.eye(2).to_sparse()}, "'x': it is sparse, quantised or without data"),
        (lambda: {"x": torch.zeros(2, device="meta")}, "'x': it is sparse, quantised or without data"),
        (lambda: {"__metadata__": torch.zeros(2)}, "'__metadata__': it has a name that cannot be written"),
        (lambda: {"\ud800": torch.zeros(2)}, "it has a name that cannot be written"),
        (lambda: {3: torch.zeros(2)}, "'3': it has a name that cannot be written"),
    ],
)
def test_what_cannot_be_written(tmp_path, make, message):
    with pytest.raises(
        WeightsError, match=f"cannot write tensor {message}" if message[0] == "'" else message
    ):
        write_tensors(make(), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_refuses(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_tensors({"x": torch.ones(1)}, tmp_path / "absent" / "x")
