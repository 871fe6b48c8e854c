"""Zip files made to do harm, or written by other programs: every number of their directory is checked."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile

import pytest
import torch
from checkpoint_programs import (
    NUMBERS,
    mapping,
    name,
    nothing_executed,
    storage,
    tensor,
    text,
    with_tensor,
    write_checkpoint,
)

from zoo.errors import WeightsError
from zoo.store.checkpoints import archives, mapped_tensors, reading
from zoo.store.checkpoints.reading import read_checkpoint

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def with_members(folder, members, program=None):
    return write_checkpoint(folder / "file.pth", program or with_tensor(b"N"), members)


def test_member_names_lead_nowhere(tmp_path):
    members = {
        "../../harm": b"x",
        str(tmp_path / "harm"): b"x",
        "archive/../harm": b"x",
        "C:\\harm": b"x",
    }
    path = with_members(tmp_path, members)
    with nothing_executed():
        assert list(read_checkpoint(path)) == ["w"]
    assert list(tmp_path.iterdir()) == [path]


def test_zip_files_within_are_bytes(tmp_path):
    harm = with_tensor(name("os", "system") + b"(" + text("touch harm") + b"tR")
    inner = write_checkpoint(tmp_path / "inner.zip", harm).read_bytes()
    program = with_tensor(b"\x8e" + len(inner).to_bytes(8, "little") + inner)
    path = with_members(tmp_path, {"archive/inner.pth": inner}, program)
    with nothing_executed():
        assert list(read_checkpoint(path)) == ["w"]


def test_compressed_members_are_not_unpacked(tmp_path):
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), with_tensor(b"N"))
        archive.writestr("archive/data/0", bytes(50 * 2**20))
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="is compressed, and only stored members are read"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_compressed_members_that_nobody_needs_do_no_harm(tmp_path):
    path = write_checkpoint(tmp_path / "file.pth", with_tensor(b"N"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/notes.txt", "x" * 10_000)
    assert list(read_checkpoint(path)) == ["w"]


def test_storages_at_odd_places_are_copied(tmp_path):
    places = set()
    for padding in range(8):
        path = with_members(tmp_path, {}, with_tensor(text("x" * padding)))
        tensor_read = read_checkpoint(path)["w"]
        assert torch.equal(tensor_read, NUMBERS) and tensor_read.data_ptr() % 4 == 0
        places.add(path.read_bytes().index(NUMBERS.numpy().tobytes()) % 8)
    assert places == set(range(8))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other/data.pkl": b"\x80\x02}."}, "it has 2 members"),
        ({"archive/byteorder": b"big"}, "its numbers are in byte order 'big', expected 'little'"),
        ({"archive/byteorder": b"\xff\x1b"}, r"byte order '\\xff\\x1b', expected 'little'"),
        ({"archive/byteorder": b"little" * 5}, "has 30 bytes, expected at most 16"),
    ],
)
def test_members_that_do_not_fit(tmp_path, members, message):
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(with_members(tmp_path, members))


def test_a_byte_order_that_is_ours(tmp_path):
    assert list(read_checkpoint(with_members(tmp_path, {"archive/byteorder": b"little"}))) == ["w"]


def test_a_zip_file_without_a_pickle(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(WeightsError, match="is not a PyTorch checkpoint, it looks like: zip archive"):
        read_checkpoint(tmp_path / "file.pth")


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_PICKLE", 100)
    with pytest.raises(WeightsError, match=r"'archive/data.pkl' has \d+ bytes, expected at most 100"):
        read_checkpoint(with_members(tmp_path, {}))
    monkeypatch.undo()
    monkeypatch.setattr(mapped_tensors, "MOST_TENSORS", 1)
    with pytest.raises(WeightsError, match="it has 2 tensors, expected at most 1"):
        read_checkpoint(with_members(tmp_path, {}, mapping(a=tensor(), b=tensor())))
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MOST_MEMBERS", 1)
    path = write_checkpoint(tmp_path / "file.pth", with_tensor(b"N"))
    with pytest.raises(WeightsError, match=r"it has too many members \(2\)"):
        read_checkpoint(path)


def test_every_cut_off_file_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"x": torch.arange(100.0)}, path)
    whole = path.read_bytes()
    for length in range(4, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError) as caught:
            read_checkpoint(path)
        assert "\n" not in caught.value.message
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="no directory at its end, as when a download was cut off"):
        read_checkpoint(path)


def patched(folder, record, offset, value):
    """The usual file with some bytes of the first zip record of a kind changed."""
    path = write_checkpoint(folder / "file.pth", with_tensor(b"N"))
    data = bytearray(path.read_bytes())
    at = data.index(record) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("record", "offset", "value", "message"),
    [
        (LOCAL, 8, b"\x08\0", "has no valid header"),
        (LOCAL, 6, b"\x01\0", "has no valid header"),
        (LOCAL, 26, b"\x00\x10", "reaches beyond the end of the data"),
        (LOCAL, 26, b"\x11\x00", "has another name in its header"),
        (LOCAL, 28, b"\xff\xff", "reaches beyond the end of the data"),
        (LOCAL, 30, b"X", "has another name in its header"),
        (CENTRAL, 8, b"\x01\0", "is encrypted"),
        (CENTRAL, 10, b"\x08\0", "is compressed"),
        (CENTRAL, 20, b"\xff\xff\xff\x7f" * 2, "reaches beyond the end of the data"),
        (CENTRAL, 24, b"\xff\xff\xff\x7f", "is compressed"),
        (CENTRAL, 28, b"\xff\xff", "its directory is cut off"),
        (CENTRAL, 42, b"\xff\xff\xff\x7f", "begins behind the end of the data"),
        (CENTRAL, 42, b"\x01\0\0\0", "has no valid header"),
        (CENTRAL, 0, b"XX", "its directory is damaged"),
        (END, 4, b"\x01\0", "one part of several"),
        (END, 8, b"\x03\0\x03\0", "its directory is cut off"),
        (END, 12, b"\xff\xff\xff\x7f", "its directory is out of bounds"),
        (END, 16, b"\xff\xff\xff\x7f", "its directory is out of bounds"),
        (END, 16, b"\xff\xff\xff\xff", "its directory is out of bounds"),
        (END, 20, b"\x05\0", "no directory at its end"),
    ],
)
def test_numbers_of_the_zip_directory_are_checked(tmp_path, record, offset, value, message):
    path = patched(tmp_path, record, offset, value)
    with pytest.raises(WeightsError, match=message) as caught:
        read_checkpoint(path)
    assert "is damaged as a zip file" in caught.value.message


def test_a_member_twice_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "file.pth", with_tensor(b"N"), {"archive/data/1": b"x"})
    path.write_bytes(path.read_bytes().replace(b"archive/data/1", b"archive/data/0"))
    with pytest.raises(WeightsError, match="it holds 'archive/data/0' twice"):
        read_checkpoint(path)


def test_storages_may_not_overlap(tmp_path):
    """A member whose header and bytes lie within another's: the file claims to hold more than it has."""
    inner = LOCAL + struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, 12, 12, 14, 0) + b"archive/data/1"
    outer = inner + NUMBERS.numpy().tobytes()
    program = mapping(a=tensor(where=storage(numel=len(outer) // 4)), b=tensor(where=storage(key=text("1"))))
    path = write_checkpoint(tmp_path / "file.pth", program, {"archive/data/0": outer})
    with zipfile.ZipFile(path, "a") as archive:
        at = path.read_bytes().index(inner)
        entry = zipfile.ZipInfo("archive/data/1")
        entry.file_size = entry.compress_size = 12
        entry.header_offset, entry.CRC = at, 0
        archive.filelist.append(entry)
        archive.NameToInfo[entry.filename] = entry
        archive._didModify = True
    with pytest.raises(WeightsError, match="its storages overlap"):
        read_checkpoint(path)


def test_large_files_use_the_wide_directory(tmp_path):
    """torch writes numbers of 64 bits where 32 do not suffice; here they are made where they would."""
    path = write_checkpoint(tmp_path / "file.pth", with_tensor(b"N"))
    data = path.read_bytes()
    start, entries = data.index(CENTRAL), []
    for raw in data[start : data.index(END)].split(CENTRAL)[1:]:
        fields = bytearray(CENTRAL + raw)
        packed, size, header = *struct.unpack_from("<2I", fields, 20), struct.unpack_from("<I", fields, 42)[0]
        fields[20:28], fields[42:46], fields[30:32] = b"\xff" * 8, b"\xff" * 4, struct.pack("<H", 28)
        entries.append(bytes(fields) + struct.pack("<2H3Q", 1, 24, size, packed, header))
    directory = b"".join(entries)
    position = start + len(directory)
    end64 = b"PK\x06\x06" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, 2, 2, len(directory), start)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, position, 1)
    end = END + struct.pack("<4H2IH", 0, 0, 2, 2, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:start] + directory + end64 + locator + end)
    assert torch.equal(read_checkpoint(path)["w"], NUMBERS)
    broken = locator.replace(struct.pack("<Q", position), struct.pack("<Q", 2**63))
    path.write_bytes(data[:start] + directory + end64 + broken + end)
    with pytest.raises(WeightsError, match="its directory is out of bounds"):
        read_checkpoint(path)
