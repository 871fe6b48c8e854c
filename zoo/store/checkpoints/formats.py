"""Telling files by their content, and checking the header of a safetensors file. Imports nothing heavy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from zoo.errors import WeightsError
from zoo.store.checkpoints.archives import Archive, shown

Kind = Literal[
    "safetensors",
    "pytorch",
    "TorchScript archive",
    "zip archive",
    "plain pickle",
    "HTML page",
    "XML document",
    "JSON document",
    "git-lfs pointer",
    "empty file",
    "gzip file",
    "bzip2 file",
    "xz file",
    "zstd file",
    "tar archive",
    "HDF5 file",
    "GGUF file",
    "NumPy array",
    "unknown content",
]

#: What a header may take; a hundred thousand tensors need less. No number of a file makes us read more.
LARGEST_HEADER = 32 * 2**20

MOST_DIMENSIONS = 64  #: torch has no tensors with more

#: Bits of one number in each format that safetensors knows.
BITS: Mapping[str, int] = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_HEAD = 1024
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs.github.com/spec/", "git-lfs pointer"),
    (b"\x1f\x8b", "gzip file"),
    (b"BZh", "bzip2 file"),
    (b"\xfd7zXZ\x00", "xz file"),
    (b"\x28\xb5\x2f\xfd", "zstd file"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"GGUF", "GGUF file"),
    (b"\x93NUMPY", "NumPy array"),
)
# Before torch 1.6 files began with the pickle of a certain number, in protocols 2 and 3, or 4 and 5.
_LEGACY = re.compile(
    rb"\x80(?:[\x02\x03]|[\x04\x05]\x95\r\0\0\0\0\0\0\0)\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_FIRST_MEMBER_IS_PICKLE = re.compile(rb"PK\x03\x04.{26}[^/]{1,255}/data\.pkl", re.DOTALL)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\b")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]\s*[\"\[{\]}\d]")
_PATTERNS: tuple[tuple[re.Pattern[bytes], Kind], ...] = (
    (_PICKLE, "plain pickle"),
    (_XML, "XML document"),
    (_JSON, "JSON document"),
)

_HINTS: Mapping[Kind, str] = {
    "TorchScript archive": "It holds a program. Ask its authors for a state dict.",
    "plain pickle": "It was not written by torch.save. Ask its authors for a state dict.",
    "HTML page": "Servers send one where a login is needed, or the address is wrong.",
    "XML document": "Servers send such a text instead of a file that is gone or not public.",
    "JSON document": "It may be a server's error, or the index of several files: open it and look.",
    "git-lfs pointer": "It names a file that git did not fetch. Run: git lfs pull",
    "empty file": "The download did not begin. Get it again.",
    "gzip file": "Unpack it first: gunzip FILE",
    "tar archive": "Unpack it first: tar xf FILE",
    "bzip2 file": "Unpack it first: bunzip2 FILE",
    "xz file": "Unpack it first: unxz FILE",
    "zstd file": "Unpack it first: unzstd FILE",
    "zip archive": "Unpack it first, if it holds a checkpoint.",
}
_USUAL_HINT = "Weights are read from safetensors and PyTorch checkpoints (.pth, .pt, .bin, .ckpt)."
_DAMAGED = "Download it again, and compare its size and sha256 with the published ones."


def looks_like(path: Path) -> Kind:
    """What a file is by its first bytes, and for a zip file by its directory; its name does not matter.

    A cheap look for choosing a reader: "safetensors" and "pytorch" may still turn out to be damaged. Raises
    `WeightsError` when the file is not there or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            return _zip_kind(path, file, head) if head.startswith(b"PK\x03\x04") else _kind(head)
    except OSError as error:
        raise cannot_be_read(path, error) from error


def is_legacy(path: Path) -> bool:
    """Whether a "pytorch" file is of the format before torch 1.6, which is no zip file."""
    try:
        with path.open("rb") as file:
            return _LEGACY.match(file.read(64)) is not None
    except OSError as error:
        raise cannot_be_read(path, error) from error


def wrong_format(path: Path, kind: Kind, expected: str) -> WeightsError:
    """The error for a file that is something else than `expected`, with what to do about it."""
    return WeightsError(f"{path}: is not {expected}, it looks like: {kind}", _HINTS.get(kind, _USUAL_HINT))


def cannot_be_read(path: Path, error: OSError) -> WeightsError:
    """The error for a file that the system does not give."""
    if isinstance(error, FileNotFoundError):
        return WeightsError(f"{path}: no such file", "Check the path.")
    reason = (error.strerror or type(error).__name__).lower()
    return WeightsError(f"{path}: cannot be read: {reason}", "Give the path of a file that you may read.")


def damaged_checkpoint(path: Path, problem: str) -> WeightsError:
    """The error for a PyTorch checkpoint that is not as torch.save writes them."""
    return WeightsError(f"{path}: is damaged as a PyTorch checkpoint: {problem}", _DAMAGED)


def check_safetensors(path: Path) -> int:
    """The number of tensors of a safetensors file whose header fits the file, byte for byte.

    Reads the header alone. Raises `WeightsError` for a file that is cut off, too long, or no safetensors:
    the tensors have to fill the rest of the file without gaps, each with the bytes that its shape needs.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
            size = path.stat().st_size
            length = int.from_bytes(head, "little")
            if len(head) < 8 or not 2 <= length <= LARGEST_HEADER:
                raise wrong_format(path, looks_like(path), "a safetensors file")
            if length > size - 8:
                raise _not_safetensors(path, f"its header has {length} bytes, and only {size - 8} are there")
            text = file.read(length)
    except OSError as error:
        raise cannot_be_read(path, error) from error
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        # The decoder's message would quote the text, which is not ours to print.
        raise _not_safetensors(path, "its header is not JSON, or has a name twice") from error
    try:
        return _check_header(header, size - 8 - length)
    except ValueError as error:
        raise _not_safetensors(path, str(error)) from error


def _kind(head: bytes) -> Kind:
    if not head:
        return "empty file"
    if _is_safetensors(head):
        return "safetensors"
    if _LEGACY.match(head):
        return "pytorch"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar archive"
    if _MARKUP.match(head) and _HTML.search(head):
        return "HTML page"
    return next((kind for pattern, kind in _PATTERNS if pattern.match(head)), "unknown content")


def _is_safetensors(head: bytes) -> bool:
    # A text would promise a header of exabytes: its bytes 4 to 7 are not zero.
    return 2 <= int.from_bytes(head[:8], "little") <= LARGEST_HEADER and head[8:9] == b"{"


def _zip_kind(path: Path, file: BinaryIO, head: bytes) -> Kind:
    try:
        names = Archive(path, file).names
    except WeightsError:
        # torch.save writes data.pkl first, so the beginning of a download tells too.
        return "pytorch" if _FIRST_MEMBER_IS_PICKLE.match(head) else "zip archive"
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if not folders:
        return "zip archive"
    program = any(name == f"{folders[0]}constants.pkl" for name in names)
    return "TorchScript archive" if program else "pytorch"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands there twice")
    return table


def _check_header(header: Any, room: int) -> int:
    """The number of tensors; raises `ValueError` saying what is wrong with the header."""
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not texts")
    end = 0
    for start, stop, name in sorted(_extent(name, entry) for name, entry in header.items()):
        if start != end:
            raise ValueError(f"tensor {shown(name)} begins at byte {start}, expected {end}")
        end = stop
    if end != room:
        raise ValueError(f"its tensors have {end} bytes, and {room} are there")
    return len(header)


def _extent(name: str, entry: Any) -> tuple[int, int, str]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown(name)} is described wrongly")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {shown(name)} has an unknown number format")
    if not _are_counts(shape, MOST_DIMENSIONS) or not _are_counts(offsets, 2) or len(offsets) != 2:
        raise ValueError(f"tensor {shown(name)} is described wrongly")
    if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * BITS[dtype]:
        raise ValueError(f"tensor {shown(name)} has not the bytes that its shape needs")
    return offsets[0], offsets[1], name


def _are_counts(values: Any, most: int) -> bool:
    if not isinstance(values, list) or len(values) > most:
        return False
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _not_safetensors(path: Path, problem: str) -> WeightsError:
    return WeightsError(f"{path}: is not a safetensors file: {problem}", _DAMAGED)
