"""Files made to do harm: nothing is executed, nothing is written, and nothing grows beyond the file."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import tracemalloc

import pytest
import torch
from checkpoint_programs import (
    NUMBERS,
    mapping,
    name,
    nothing_executed,
    number,
    shape,
    storage,
    tensor,
    text,
    with_tensor,
    write_checkpoint,
)

from zoo.errors import WeightsError
from zoo.store.checkpoints.pickle_machine import Inert, Malformed, Name, Table, interpret
from zoo.store.checkpoints.reading import read_checkpoint

SYSTEM = name("os", "system")
COMMAND = b"(" + text("touch harm") + b"t"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own, in which nothing appears."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path
    assert list((tmp_path / "work").iterdir()) == []


def read(folder, program, members=None):
    path = write_checkpoint(folder / "file.pth", program, members)
    with nothing_executed():
        return read_checkpoint(path)


def refused(folder, program, message, members=None):
    with pytest.raises(WeightsError, match=message) as caught:
        read(folder, program, members)
    assert "\n" not in caught.value.message and caught.value.hint
    assert caught.value.message.startswith(str(folder / "file.pth"))
    assert len(caught.value.message) < len(str(folder)) + 400


class Reduced:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALLS = [
    Reduced(os.system, "touch harm"),
    Reduced(eval, "open('harm', 'w')"),
    Reduced(builtins.exec, "open('harm', 'w')"),
    Reduced(subprocess.Popen, ["touch", "harm"]),
    Reduced(open, "harm", "w"),
    Reduced(__import__, "antigravity"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.call[0].__name__)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_not_made(folder, call, protocol):
    path = folder / "file.pth"
    torch.save({"w": NUMBERS, "other": call}, path, pickle_protocol=protocol)
    with nothing_executed():
        assert list(read_checkpoint(path)) == ["w"]
    torch.save({"w": call}, path, pickle_protocol=protocol)
    with nothing_executed(), pytest.raises(WeightsError, match="it holds no tensors"):
        read_checkpoint(path)
    torch.save(call, path, pickle_protocol=protocol)
    with nothing_executed(), pytest.raises(WeightsError, match="got an object of"):
        read_checkpoint(path)


@pytest.mark.parametrize("act", [lambda: compile("1", "x", "eval"), lambda: os.system("true")])
def test_the_watch_sees_what_it_is_for(act):
    with pytest.raises(AssertionError), nothing_executed():
        act()


@pytest.mark.parametrize(
    "value",
    [
        SYSTEM + COMMAND + b"R",
        SYSTEM + COMMAND + b"\x81",
        SYSTEM + COMMAND + b"}" + text("x") + b"Ns\x92",
        SYSTEM + COMMAND + b"}\x92",
        b"(" + SYSTEM + text("touch harm") + b"o",
        b"(" + text("touch harm") + b"ios\nsystem\n",
        text("os") + text("system") + b"\x93" + COMMAND + b"R",
        name("webbrowser", "open") + COMMAND + b"R",
        name("antigravity", "fly"),
        name("functools", "partial") + b"(" + SYSTEM + text("touch harm") + b"tR)R",
        SYSTEM + b"(tR}" + text("__setstate__") + SYSTEM + b"sb",
        name("zoo.store", "X") + b")\x81}" + text("__class__") + SYSTEM + b"s}\x86b",
        name("collections", "OrderedDict") + b")R" + SYSTEM + COMMAND + b"Rb",
        name("builtins", "dict") + b")R(" + text("a") + b"Nu",
        name("builtins", "list") + b")R(NNe",
        name("builtins", "set") + b")R(NN\x90",
        name("numpy.core.multiarray", "scalar") + b"(" + name("numpy", "dtype") + text("f8") + b"tR",
        b"\x82\x01",
        b"\x83\x01\x01",
        b"\x84\x01\x01\x01\x01" + COMMAND + b"R",
        b"\x8f(K\x01K\x02\x90",
        b"(K\x01K\x02\x91",
        b"(I01\nL5L\nF1.5\nV\\u0041\nS'x'\nlp5\n0g5\n",
        name("torch", "device") + b"(" + text("cpu") + b"tR",
        name("torch", "Size") + b"((K\x01tt" + b"R",
        name("torch", "load") + COMMAND + b"R",
        name("torch.storage", "_load_from_bytes") + b"(C\x03abctR",
    ],
)
def test_every_way_to_make_an_object_makes_nothing(folder, value):
    tensors = read(folder, with_tensor(value))
    assert list(tensors) == ["w"] and torch.equal(tensors["w"], NUMBERS)


def test_a_tensor_by_an_unknown_function_is_refused(folder):
    unknown = name("upstream.quant", "rebuild") + b"(" + tensor() + b"tR"
    refused(
        folder, with_tensor(unknown), r"tensor 'other' is made by 'upstream.quant.rebuild', expected a plain"
    )
    partial = name("functools", "partial") + b"(" + tensor() + b"tR)R"
    refused(folder, with_tensor(partial), r"tensor 'other' is made by 'functools.partial'")


@pytest.mark.parametrize(
    "identity",
    [
        b"N",
        b")",
        text("storage"),
        b"(" + text("storage") + b"t",
        b"(" + text("module") + name("os", "system") + text("a") + text("b") + b"K\x01t",
        b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + b"K\x03t",
        b"(" + text("storage") + name("torch", "FloatStorage") + b"K\x00" + text("cpu") + b"K\x03t",
        b"("
        + text("storage")
        + name("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + b"J\xff\xff\xff\xfft",
        b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"\x88t",
        b"("
        + text("storage")
        + name("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + number(2**70)
        + b"t",
    ],
)
def test_identities_of_storages_have_one_form(folder, identity):
    refused(folder, with_tensor(identity + b"Q"), "its pickle is not valid: it (refers|describes)")


def test_identities_as_lines_are_refused(folder):
    refused(folder, with_tensor(b"Pstorage\n"), "refers to something that is no storage")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            tensor(sizes=shape(4)),
            r"of shape \[4\] and strides \[1\] does not fit into its storage of 3 numbers",
        ),
        (tensor(offset=1), "does not fit into its storage"),
        (tensor(sizes=shape(2), steps=shape(3)), "does not fit into its storage"),
        (tensor(sizes=shape(2**40), steps=shape(0)), "does not fit into its storage"),
        (tensor(sizes=shape(2**40, 2**40), steps=shape(0, 0)), "larger than any memory"),
        (tensor(sizes=shape(0, 2**61, 8), steps=shape(1, 1, 1)), "larger than any memory"),
        (tensor(sizes=shape(-1)), "describes a tensor's shape wrongly"),
        (tensor(sizes=shape(2), steps=shape(-1)), "describes a tensor's shape wrongly"),
        (tensor(offset=-1), "describes a tensor wrongly"),
        (tensor(sizes=shape(3), steps=shape(1, 1)), "describes a tensor's shape wrongly"),
        (tensor(sizes=shape(*[1] * 65), steps=shape(*[1] * 65)), "describes a tensor's shape wrongly"),
        (tensor(sizes=b"(\x88t"), "describes a tensor's shape wrongly"),
        (tensor(sizes=b"]"), "describes a tensor's shape wrongly"),
        (tensor(where=b"N"), "describes a tensor wrongly"),
        (tensor(where=storage(numel=4)), "the storage of 'other' has 12 bytes, expected 16"),
        (tensor(where=storage(numel=2**61)), "the storage of 'other' has 12 bytes"),
        (tensor(where=storage(key=text("1"))), "it has no storage '1'"),
        (tensor(where=storage(key=text("../data.pkl"))), r"it has no storage '../data.pkl'"),
        (
            tensor(where=storage(name("torch", "DoubleStorage"))),
            "the storage of 'other' has 12 bytes, expected 24",
        ),
        (
            tensor(where=storage(name("torch", "QInt8Storage"))),
            "format 'qint8', which cannot be read",
        ),
        (tensor(where=storage(name("os", "FloatStorage"))), "format 'os.FloatStorage', which cannot be read"),
        (name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + b"tR", "describes a tensor wrongly"),
        (
            name("torch._utils", "_rebuild_parameter") + b"(NNNtR",
            "'other' is made by 'torch._utils._rebuild_par",
        ),
        (name("torch._utils", "_rebuild_tensor_v2") + b"NR", "calls with arguments that are no tuple"),
        (b"NNR", "calls something that has no name"),
    ],
)
def test_tensors_stay_within_their_storage(folder, value, message):
    refused(folder, with_tensor(value), message)


def test_a_tensor_may_be_smaller_than_its_storage(folder):
    read_back = read(folder, with_tensor(tensor(offset=1, sizes=shape(2, 1), steps=shape(1, 2**50))))
    assert read_back["other"].tolist() == [[2.0], [3.0]]


# Bombs


@pytest.mark.parametrize(
    "value",
    [
        b"]" * 10**6 + b"a" * (10**6 - 1),
        b")" + b"\x85" * 300_000,
        b"}" + b"K\x00}" * 100_000 + b"s" * 100_000,
        # Each level holds the one below twice: 2 ** 1000 lists for who walks along, or compares.
        b"]" + (b"2" + b"\x86") * 1000,
        b"]q\x01" + b"](h\x01h\x01eq\x01" * 1000 + b"0" * 1000,
        b"}" + b")" + b"2\x86" * 100 + b"Ns",
        b"}" + b"(" + b"".join(number(n * (2**61 - 1)) + b"N" for n in range(20_000)) + b"u",
        b"]q\x00h\x00a",
        b"}q\x00" + text("self") + b"h\x00s",
    ],
    ids=[
        "lists",
        "tuples",
        "tables",
        "doubling tuples",
        "doubling lists",
        "hashing",
        "collisions",
        "loop",
        "own",
    ],
)
def test_deep_and_wide_objects_cost_what_their_bytes_cost(folder, value):
    assert list(read(folder, with_tensor(value))) == ["w"]


def test_a_deep_pile_on_its_own_is_refused(folder):
    refused(folder, b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", "expected a mapping from names")
    refused(folder, b"\x80\x02" + b"}" * 10**5 + b".", "it holds no tensors")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\x8e" + struct.pack("<Q", 2**62), "is cut off at byte"),
        (b"\x8e" + struct.pack("<Q", 2**64 - 1), "is cut off at byte"),
        (b"\x8d" + struct.pack("<Q", 2**40), "is cut off at byte"),
        (b"\x96" + struct.pack("<Q", 2**40), "is cut off at byte"),
        (b"B" + struct.pack("<I", 2**32 - 1), "is cut off at byte"),
        (b"X" + struct.pack("<I", 2**32 - 1), "is cut off at byte"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1), "is cut off at byte"),
        (b"\x8b" + struct.pack("<i", -1), "negative length"),
        (b"j\xff\xff\xff\xff", "recalls an object that it did not store"),
        (b"g99999999999999999999999\n", "is not a number"),
        (b"g-1\n", "is not a number"),
        (b"I" + b"x" * 10 + b"\n", "is not decimal"),
        (b"c" + b"x" * 100, "is cut off"),
        (b"\x97", "unknown instruction 0x97"),
        (b"\xff", "unknown instruction 0xff"),
        (b"\x80\x06", "of protocol 6"),
        (b"X\x02\0\0\0\xff\xff", "is not UTF-8"),
        (b"NNa", "appends to something that is no list"),
        (b"NNNs", "sets items of something that is no mapping"),
        (b"}(Nu", "a key has no value"),
        (b"t", "goes back to a mark that it did not set"),
        (b"(R", "takes from an empty stack"),
        (b"(o", "makes an object of nothing"),
        (b"NN\x93", "a name is not text"),
        (b"N)R", "calls something that has no name"),
        (name("collections", "OrderedDict") + b"(NtR", "something else than pairs"),
    ],
)
def test_programs_that_mean_nothing(folder, value, message):
    tracemalloc.start()
    try:
        refused(folder, with_tensor(value), message)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_huge_index_into_the_memo_allocates_nothing(folder):
    tracemalloc.start()
    try:
        assert list(read(folder, with_tensor(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff"))) == ["w"]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_steps_are_bounded(folder):
    assert interpret(b"N0" * 49 + b"N.", Inert, Inert, most_steps=100) == (None, 100)
    with pytest.raises(Malformed, match="more steps than any checkpoint needs"):
        interpret(b"N0" * 50 + b"N.", Inert, Inert, most_steps=100)


def test_copies_of_a_list_are_bounded(folder):
    pairs = b"](" + b"NN\x86" * 2000 + b"eq\x07"
    copies = (name("collections", "OrderedDict") + b"(h\x07tR0") * 2100
    refused(folder, with_tensor(pairs + copies), "more steps than any checkpoint needs")


def test_one_mapping_under_many_names_is_looked_at_once(folder):
    inner = b"}(" + b"NN" * 100_000 + b"uq\x07"
    entries = b"".join(text(f"{index}") + b"h\x07" for index in range(100_000))
    refused(folder, b"\x80\x02" + inner + b"0}(" + entries + b"u.", "it holds no tensors")


def test_a_cycle_of_mappings_ends(folder):
    refused(folder, b"\x80\x02}q\x00" + text("a") + b"}" + text("b") + b"h\x00ss.", "it holds no tensors")


def test_numbers_of_any_length_are_harmless(folder):
    long = b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6
    decimal = b"I" + b"9" * 10**6 + b"\n"
    assert list(read(folder, with_tensor(b"(" + long + decimal + b"t"))) == ["w"]
    refused(folder, with_tensor(tensor(offset=2**2000)), "describes a tensor wrongly")


def test_what_the_machine_builds():
    program = b"\x80\x04}\x94(" + text("a") + b"K\x01" + text("a") + b"(K\x02K\x03tu."
    table, end = interpret(b"before" + program + b"after", Inert, Inert, start=6)
    assert end == 6 + len(program)
    assert isinstance(table, Table) and table == [("a", 1), ("a", (2, 3))]
    assert interpret(b"cm\nn\n.", Inert, Inert)[0] == Name("m", "n")
    content = [
        None,
        True,
        False,
        0,
        -1,
        255,
        65535,
        2**31,
        -(2**63),
        1.5,
        "é",
        b"b",
        bytearray(b"c"),
        (1, 2, 3, 4),
    ]
    for protocol in range(6):
        expected = [bytes(value) if isinstance(value, bytearray) else value for value in content]
        built, _ = interpret(pickle.dumps(content, protocol), lambda *_: "made", Inert)
        known = [a for a, b in zip(expected, built, strict=True) if b != "made"]
        assert [b for b in built if b != "made"] == known and len(known) >= len(content) - 2


# Names


def test_names_are_harmless_in_messages(folder):
    nasty = "a\n\x1b[2J" + "x" * 10_000
    refused(folder, mapping(**{nasty: tensor(offset=5)}), r"tensor 'a\\n\\x1b\[2Jx+\.\.\.' of shape")
    refused(folder, with_tensor(name("m\x1b" * 5000, "n" * 5000) + b"(" + storage() + b"tR"), "is made by 'm")


def test_names_have_to_be_texts(folder):
    surrogate = b"X\x03\0\0\0\xed\xa0\x80"
    refused(folder, b"\x80\x02}" + surrogate + tensor() + b"s.", "has a name that is not valid text")


def test_of_equal_names_the_last_counts(folder):
    program = b"\x80\x02}(" + text("w") + tensor(sizes=shape(1)) + text("w") + tensor() + b"u."
    assert read(folder, program)["w"].tolist() == [1, 2, 3]
    assert "\n" not in "".join(read(folder, program))
