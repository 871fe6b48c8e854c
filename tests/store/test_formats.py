"""Telling files by their content, and what a safetensors header has to say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save

from zoo.errors import WeightsError
from zoo.store.checkpoints.formats import check_safetensors, looks_like

DOWNLOADS = {
    "HTML page": b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "XML document": b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
    "JSON document": b'{"error": "Entry not found"}',
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
    "empty file": b"",
    "gzip file": b"\x1f\x8b\x08\x00\x00",
    "bzip2 file": b"BZh91AY&SY",
    "xz file": b"\xfd7zXZ\x00\x00",
    "zstd file": b"\x28\xb5\x2f\xfd\x04",
    "tar archive": b"x" * 257 + b"ustar\x0000",
    "HDF5 file": b"\x89HDF\r\n\x1a\n\0",
    "GGUF file": b"GGUF\x03\0\0\0",
    "NumPy array": b"\x93NUMPY\x01\0",
    "plain pickle": b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.",
    "zip archive": b"PK\x03\x04" + b"\0" * 40,
    "unknown content": b"\0\1\2\3",
}


@pytest.mark.parametrize("kind", DOWNLOADS)
def test_kinds_of_files(tmp_path, kind):
    (tmp_path / "model.safetensors").write_bytes(DOWNLOADS[kind])
    assert looks_like(tmp_path / "model.safetensors") == kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xef\xbb\xbf  \r\n<HTML lang='en'>", "HTML page"),
        (b"<!-- saved -->\n" * 20 + b"<!doctype HTML>", "HTML page"),
        (b"<!-- " * 200, "unknown content"),
        (b'[\n  "a"]', "JSON document"),
        (b"{}", "JSON document"),
        (b"{x", "unknown content"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pytorch"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x18.", "plain pickle"),
        (b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{", "unknown content"),
    ],
)
def test_finer_distinctions(tmp_path, content, kind):
    (tmp_path / "file").write_bytes(content)
    assert looks_like(tmp_path / "file") == kind


def test_what_torch_and_safetensors_write(tmp_path):
    path = tmp_path / "blob"
    torch.save({"x": torch.ones(1000)}, path)
    assert looks_like(path) == "pytorch"
    # Also the beginning of a download that was cut off.
    path.write_bytes(path.read_bytes()[:500])
    assert looks_like(path) == "pytorch"
    for protocol in (2, 3, 4, 5):
        torch.save({"x": torch.ones(1)}, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
        assert looks_like(path) == "pytorch"
    path.write_bytes(save({"x": torch.ones(1)}))
    assert looks_like(path) == "safetensors"


def test_files_that_are_not_there(tmp_path):
    for function in (looks_like, check_safetensors):
        with pytest.raises(WeightsError, match="absent: no such file"):
            function(tmp_path / "absent")
        with pytest.raises(WeightsError, match="cannot be read: is a directory"):
            function(tmp_path)


def test_nothing_heavy_is_imported(tmp_path):
    (tmp_path / "x").write_bytes(save({"x": torch.ones(1)}))
    code = (
        "import sys, pathlib; from zoo.store.checkpoints.formats import *; p = pathlib.Path(sys.argv[1]);"
        "print(looks_like(p), check_safetensors(p), {'torch', 'numpy', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "safetensors 1 set()\n"


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_valid_headers(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.ones(2, 3), "b": torch.tensor(1), "c": torch.zeros(0, 4), "d": torch.ones(3).bool()}
    path.write_bytes(save({**tensors, "e": torch.ones(2, dtype=torch.float8_e5m2)}, {"format": "pt"}))
    assert check_safetensors(path) == 5
    path.write_bytes(safetensors({}))
    assert check_safetensors(path) == 0
    path.write_bytes(safetensors({"x": entry(0, 2, [4], "F4")}, b"ab"))
    assert check_safetensors(path) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (safetensors({"x": entry(0, 4, [1])}, b"abc"), "its tensors have 4 bytes, and 3 are there"),
        (safetensors({"x": entry(0, 4, [1])}, b"abcde"), "its tensors have 4 bytes, and 5 are there"),
        (safetensors({"x": entry(0, 8, [1])}, b"a" * 8), "'x' has not the bytes that its shape needs"),
        (safetensors({"x": entry(4, 8, [1])}, b"a" * 8), "'x' begins at byte 4, expected 0"),
        (
            safetensors({"x": entry(0, 4, [1]), "y": entry(0, 4, [1])}, b"abcd"),
            "'y' begins at byte 0, expected 4",
        ),
        (safetensors({"x": entry(4, 0, [1])}), "has not the bytes"),
        (safetensors({"x": entry(0, 4, [-1])}), "'x' is described wrongly"),
        (safetensors({"x": entry(0, 4, [True])}, b"abcd"), "'x' is described wrongly"),
        (safetensors({"x": entry(0, 4, [1] * 65)}, b"abcd"), "'x' is described wrongly"),
        (safetensors({"x": {"dtype": "F32", "shape": [1]}}), "'x' is described wrongly"),
        (safetensors({"x": [1]}), "'x' is described wrongly"),
        (safetensors({"x": entry(0, 4, [1], "F31")}, b"abcd"), "'x' has an unknown number format"),
        (safetensors({"__metadata__": {"a": 1}}), "its metadata are not texts"),
        (safetensors([1, 2]), "its header is not a JSON object"),
        (safetensors(b'{"x": 1, "x": 1}'), "its header is not JSON, or has a name twice"),
        (safetensors(b'{"x": ' + b"9" * 5000 + b"}"), "its header is not JSON"),
        (safetensors(b"[" * 100_000), "its header is not JSON"),
        (safetensors(b'{"x": \xff}'), "its header is not JSON"),
        (safetensors({"x": entry(0, 4, [1])})[:30], "its header has .* bytes, and only 22 are there"),
        (b"\x02\0\0", "looks like: unknown content"),
        (b"\0" * 20, "looks like: unknown content"),
        (b"<html>", "looks like: HTML page"),
        (b"", "looks like: empty file"),
    ],
)
def test_headers_that_do_not_fit_their_file(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"x.safetensors: is not a safetensors file.*{message}") as caught:
        check_safetensors(path)
    assert "\n" not in caught.value.message and caught.value.hint


def test_every_cut_off_file_is_refused(tmp_path):
    whole = save({"x": torch.ones(10), "y": torch.ones(5).half()})
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            check_safetensors(tmp_path / "x")
