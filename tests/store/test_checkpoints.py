"""Reading what torch.save writes: every kind of tensor, and the right mapping of many kinds of content."""

from __future__ import annotations

import argparse
import importlib
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy
import pytest
import torch
from checkpoint_programs import (
    NUMBERS,
    mapping,
    name,
    nothing_executed,
    number,
    shape,
    tensor,
    text,
    with_tensor,
    write_checkpoint,
)
from torch import nn

from zoo.errors import WeightsError
from zoo.store.checkpoints.mapped_tensors import DTYPES
from zoo.store.checkpoints.reading import read_checkpoint

FORMATS = [dtype for name, dtype in DTYPES.items() if name != "float4_e2m1fn_x2"]


def saved(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path / "file.pth", **options)
    return path / "file.pth"


def through(path: Path, content: object, **options: object) -> dict[str, torch.Tensor]:
    return read_checkpoint(saved(path, content, **options))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in b)


# Tensors


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_every_number_format(tmp_path, dtype):
    raw = (
        torch.arange(48, dtype=torch.uint8) % 2
        if dtype == torch.bool
        else torch.arange(48, dtype=torch.uint8)
    )
    values = raw.view(dtype).reshape(-1, 1)
    read = through(tmp_path, {"x": values})["x"]
    assert read.dtype == dtype and read.shape == values.shape
    assert torch.equal(read.view(torch.uint8), values.view(torch.uint8))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path, protocol):
    state = network().state_dict()
    assert same(through(tmp_path, state, pickle_protocol=protocol), state)
    nested = {
        "state_dict": state,
        "epoch": 3,
        "name": "ü" * 300,
        "seed": 2**100,
        "lr": 1e-3,
        "raw": b"\0" * 300,
    }
    assert same(through(tmp_path, nested, pickle_protocol=protocol), state)


def test_views_scalars_and_empty_tensors(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "nothing": torch.zeros(2, 0, dtype=torch.int8),
        "four": torch.arange(16).reshape(1, 2, 2, 4).permute(3, 1, 0, 2),
    }
    read = through(tmp_path, content)
    assert same(read, content)
    assert read["transposed"].stride() == (1, 6)
    assert read["nothing"].dtype == torch.int8 and read["empty"].shape == (0, 3)


def test_what_is_shared_stays_shared(tmp_path):
    base = torch.arange(8.0)
    read = through(tmp_path, {"all": base, "tail": base[4:], "again": base})
    assert read["all"].data_ptr() == read["again"].data_ptr()
    assert read["tail"].data_ptr() == read["all"].data_ptr() + 16
    read["all"][5] = 50
    assert read["tail"].tolist() == [4, 50, 6, 7]


def test_parameters_become_plain_tensors(tmp_path):
    parameter = nn.Parameter(torch.ones(2))
    parameter.note = "state of its own"
    read = through(tmp_path, {"weight": parameter, "bias": nn.Parameter(torch.zeros(2), requires_grad=False)})
    assert [type(tensor) for tensor in read.values()] == [torch.Tensor, torch.Tensor]
    assert not any(tensor.requires_grad for tensor in read.values())
    assert read["weight"].tolist() == [1, 1]


def test_tensors_lie_in_the_file_and_writing_does_not_reach_it(tmp_path):
    path = saved(tmp_path, {"x": torch.ones(5000), "y": torch.zeros(5000)})
    before = path.read_bytes()
    read = read_checkpoint(path)
    if Path("/proc/self/maps").exists():
        spans = [
            line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
        ]
        ends = [tuple(int(end, 16) for end in span.split("-")) for span in spans]
        assert all(any(a <= tensor.data_ptr() < b for a, b in ends) for tensor in read.values())
    read["x"].zero_()
    del read
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "maker"),
    [
        (lambda: torch.eye(3).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "torch._utils._rebuild_sparse_tensor"),
        (
            lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
            "torch._utils._rebuild_qtensor",
        ),
        (lambda: torch.zeros(3, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (lambda: torch.zeros(3, dtype=torch.complex64).conj(), "torch._utils._rebuild_tensor_v2"),
    ],
    ids=["coo", "csr", "quantised", "meta", "conjugated"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore")
def test_other_kinds_of_tensors_are_refused_by_name(tmp_path, make, maker, zipped):
    value = make()
    with pytest.raises(WeightsError, match=f"tensor 'odd' is made by '{maker}', expected a plain") as caught:
        through(tmp_path, {"good": torch.ones(1), "odd": value}, _use_new_zipfile_serialization=zipped)
    assert "\n" not in caught.value.message and "file.pth" in caught.value.message
    # Where nobody needs them, they do no harm.
    assert list(through(tmp_path, {"state_dict": {"good": torch.ones(1)}, "buffers": {"odd": value}})) == [
        "good"
    ]


class Tagged(torch.Tensor):
    """A subclass, which a reader without the class cannot honour."""


def test_subclasses_of_tensors_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"'odd' is made by 'torch._tensor._rebuild_from_type_v2'"):
        through(tmp_path, {"odd": torch.ones(2).as_subclass(Tagged)})


def test_an_expanded_tensor_is_refused(tmp_path):
    # A few bytes could claim to be terabytes.
    with pytest.raises(
        WeightsError, match=r"'x' of shape \[1000\] and strides \[0\] does not fit into its storage"
    ):
        through(tmp_path, {"x": torch.zeros(1).expand(1000)})


# Content


def test_a_module_s_state_with_its_metadata(tmp_path):
    state = network().state_dict()
    assert isinstance(state, OrderedDict) and hasattr(state, "_metadata")
    assert same(through(tmp_path, state), state)


def test_a_training_checkpoint(tmp_path):
    model = network()
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimiser.step()
    content = {"model": model.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 1, "best": None}
    assert same(through(tmp_path, content), model.state_dict())


def test_non_tensors_beside_tensors_are_left_out(tmp_path):
    content = {
        "x": torch.ones(2),
        "epoch": 4,
        "mean": numpy.float64(0.5),
        "array": numpy.zeros(3),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "generator": torch.Generator,
        "names": ["a", ("b", {"c"})],
        5: "a key that is no text",
    }
    assert same(through(tmp_path, content), {"x": torch.ones(2)})


def test_the_checkpoint_of_a_research_repository(tmp_path, monkeypatch):
    """MDM's kind: weights, a step, and command line arguments that drag classes of the repository along."""
    module = tmp_path / "upstream_options.py"
    module.write_text("class Mode:\n    def __init__(self, level):\n        self.level = level\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    upstream = importlib.import_module("upstream_options")
    arguments = argparse.Namespace(mode=upstream.Mode(3), kind=upstream.Mode, layers=8, seen=numpy.int64(5))
    state = network().state_dict()
    path = saved(tmp_path, {"state_dict": state, "batch_num": 3, "args": arguments}, pickle_protocol=4)
    module.unlink()
    del sys.modules["upstream_options"], upstream, arguments
    with nothing_executed():
        read = read_checkpoint(path)
    assert same(read, state)
    assert "upstream_options" not in sys.modules


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"a": torch.ones(1), "state_dict": {"b": torch.ones(1)}}, ["b"]),
        ({"a": torch.ones(1), "other": {"b": torch.ones(1)}}, ["a"]),
        ({"state_dict": {"b": torch.ones(1)}, "ema": {"c": torch.ones(1)}}, ["b"]),
        ({"weights": {"b": torch.ones(1)}, "config": {"c": 1}, "log": [torch.ones(1)]}, ["b"]),
        (OrderedDict(model=OrderedDict(b=torch.ones(1))), ["b"]),
    ],
    ids=["beside", "direct", "state_dict", "only", "ordered"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_which_mapping_is_taken(tmp_path, content, names, zipped):
    assert list(through(tmp_path, content, _use_new_zipfile_serialization=zipped)) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model": {"b": torch.ones(1)}, "ema": {"c": torch.ones(1)}},
            "several of its entries hold tensors: 'ema', 'model'",
        ),
        ({"run": {"net": {"b": torch.ones(1)}}}, "its tensors are nested too deep, in 'run'/'net'"),
        ({"state_dict": {}, "epoch": 3}, "it holds no tensors"),
        ({}, "it holds no tensors"),
        ([torch.ones(1)], "expected a mapping from names to tensors, got list"),
        (torch.ones(1), "expected a mapping from names to tensors, got a tensor"),
        (None, "expected a mapping from names to tensors, got NoneType"),
        ({3: torch.ones(1)}, "not all names of its tensors are texts"),
        ({"x": torch.ones(1), (1, 2): torch.ones(1)}, "not all names of its tensors are texts"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_content_that_is_no_state_dict(tmp_path, content, message, zipped):
    with pytest.raises(WeightsError, match=message) as caught:
        through(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert caught.value.message.startswith(str(tmp_path / "file.pth"))
    assert "state_dict()" in caught.value.hint


def test_a_whole_model_is_named_and_not_loaded(tmp_path):
    with pytest.raises(WeightsError, match=r"got an object of 'torch.nn.modules.linear.Linear'"):
        through(tmp_path, nn.Linear(2, 2))


# The format before torch 1.6


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_old_format(tmp_path, protocol):
    base = torch.arange(6.0).reshape(2, 3)
    views = {
        "all": base,
        "view": base.t(),
        "half": base.half(),
        "empty": torch.zeros(0, 2),
        "bytes": base.byte(),
    }
    content = {
        "state_dict": {**network().state_dict(), **views},
        "args": argparse.Namespace(layers=8),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
    }
    path = saved(tmp_path, content, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    with nothing_executed():
        read = read_checkpoint(path)
    assert same(read, content["state_dict"])
    assert read["view"].data_ptr() == read["all"].data_ptr()
    before = path.read_bytes()
    read["all"].zero_()
    assert path.read_bytes() == before and read["view"].sum() == 0


def old_file(
    content: bytes, keys: bytes = b"](X\x01\0\0\x000e", numel: int = 3, little: bytes = b"\x88"
) -> bytes:
    """A file of the old format made by hand, with the storage "0" of three numbers."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    facts = b"\x80\x02}X\x0d\0\0\0little_endian" + little + b"s."
    data = numel.to_bytes(8, "little", signed=True) + NUMBERS.numpy().tobytes()
    return magic + pickle.dumps(1001, protocol=2) + facts + content + b"\x80\x02" + keys + b"." + data


def old_tensor(view: bytes = b"N", numel: int = 3, kind: str = "FloatStorage") -> bytes:
    where = (
        b"(" + text("storage") + name("torch", kind) + text("0") + text("cpu") + number(numel) + view + b"tQ"
    )
    return tensor(where=where, sizes=shape(2))


def test_views_of_storages_in_very_old_files(tmp_path):
    view = b"(" + text("v") + number(1) + number(2) + b"t"
    (tmp_path / "x.pth").write_bytes(old_file(mapping(x=old_tensor(view))))
    assert read_checkpoint(tmp_path / "x.pth")["x"].tolist() == [2, 3]


def test_a_module_in_an_old_file_is_not_loaded(tmp_path):
    module = b"(" + text("module") + name("os", "system") + text("file") + text("source") + b"tQ)\x81"
    (tmp_path / "x.pth").write_bytes(old_file(mapping(x=old_tensor(), net=module)))
    with nothing_executed():
        assert list(read_checkpoint(tmp_path / "x.pth")) == ["x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (old_file(mapping(x=old_tensor()), numel=4), "storages are not where they should be"),
        (old_file(mapping(x=old_tensor()), numel=-1), "storages are not where they should be"),
        (old_file(mapping(x=old_tensor(numel=2**40)), numel=2**40), "storages reach beyond the file"),
        (old_file(mapping(x=old_tensor()), keys=b"N"), "not of the known version"),
        (old_file(mapping(x=old_tensor()), keys=b"](X\x01\0\0\x001e"), "a storage that it does not describe"),
        (old_file(mapping(x=old_tensor()), keys=b"](K\x00e"), "a storage that it does not describe"),
        (
            old_file(mapping(x=old_tensor()), keys=b"](X\x01\0\0\x000X\x01\0\0\x000e"),
            "that it does not describe",
        ),
        (old_file(mapping(x=old_tensor()), keys=b"]"), "it has no storage '0'"),
        (old_file(mapping(x=old_tensor(kind="OddStorage"))), "a storage that it does not describe"),
        (old_file(mapping(x=old_tensor()), little=b"\x89"), "byte order 'big', expected 'little'"),
        (
            old_file(mapping(x=old_tensor(b"(" + text("v") + number(2) + number(2) + b"t"))),
            "beyond the end of another",
        ),
        (old_file(mapping(x=old_tensor(b"NN\x86"))), "describes a storage wrongly"),
        (old_file(mapping(x=tensor())), "refers to something that is no storage"),
        (old_file(b"\x80\x02}" + b")" + b"2\x86" * 100 + b"Ns."), "it holds no tensors"),
    ],
)
def test_old_files_that_are_damaged(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with nothing_executed(), pytest.raises(WeightsError, match=message) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert "\n" not in caught.value.message


def test_old_files_that_are_cut_off(tmp_path):
    whole = saved(tmp_path, {"x": torch.ones(100)}, _use_new_zipfile_serialization=False).read_bytes()
    for length in range(20, len(whole), 7):
        (tmp_path / "x.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="is damaged as a PyTorch checkpoint"):
            read_checkpoint(tmp_path / "x.pth")


# Files that are something else


def test_what_bad_downloads_look_like(tmp_path):
    from safetensors.torch import save

    contents = {
        "safetensors": save({"x": torch.ones(1)}),
        "HTML page": b"\n<!doctype HTML><title>Sign in</title>",
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "empty file": b"",
        "gzip file": b"\x1f\x8b\x08\0",
        "unknown content": b"hello",
    }
    for kind, content in contents.items():
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(
            WeightsError, match=f"x.pth: is not a PyTorch checkpoint, it looks like: {kind}"
        ) as caught:
            read_checkpoint(tmp_path / "x.pth")
        assert caught.value.hint
    with pytest.raises(WeightsError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="cannot be read: is a directory"):
        read_checkpoint(tmp_path)


def test_a_program_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "x.pt", with_tensor(b"N"), {"archive/constants.pkl": b"\x80\x02)."})
    with pytest.raises(WeightsError, match="it looks like: TorchScript archive"):
        read_checkpoint(path)


def test_an_entry_by_its_name(tmp_path):
    path = saved(tmp_path, {"model": {"a": torch.ones(1)}, "ema": {"a": torch.zeros(1)}, "step": 3})
    assert read_checkpoint(path, "ema")["a"].item() == 0
    assert read_checkpoint(path, "model")["a"].item() == 1
    with pytest.raises(
        WeightsError, match="has no entry 'step' with tensors; entries that hold some: 'ema', 'model'"
    ):
        read_checkpoint(path, "step")
