"""Checkpoint files made by hand: zip files of any pickle, and a watch that sees what Python executes."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

#: The numbers of the storage "0" in every file that `write_checkpoint` makes.
NUMBERS = torch.tensor([1.0, 2.0, 3.0])

FORBIDDEN = (
    *("exec", "compile", "import", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"),
    *("subprocess.Popen", "socket.connect", "socket.bind", "pickle.find_class", "webbrowser.open"),
    *("os.mkdir", "os.remove", "os.rename", "os.chmod", "os.link", "os.symlink", "ctypes.dlopen"),
)


def text(value: str) -> bytes:
    """Push a text."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def number(value: int) -> bytes:
    """Push an integer of any size."""
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    """Push a global."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def storage(kind: bytes | None = None, key: bytes | None = None, numel: int = 3) -> bytes:
    """Push a storage: the three numbers, if nothing else is said."""
    kind = name("torch", "FloatStorage") if kind is None else kind
    key = text("0") if key is None else key
    return b"(" + text("storage") + kind + key + text("cpu") + number(numel) + b"tQ"


def shape(*sizes: int) -> bytes:
    """Push a tuple of integers."""
    return b"(" + b"".join(map(number, sizes)) + b"t"


def tensor(
    where: bytes | None = None, offset: int = 0, sizes: bytes | None = None, steps: bytes | None = None
) -> bytes:
    """Push a tensor: the three numbers, if nothing else is said."""
    arguments = [
        storage() if where is None else where,
        number(offset),
        shape(3) if sizes is None else sizes,
        shape(1) if steps is None else steps,
    ]
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(arguments) + b"\x89}tR"


def mapping(**entries: bytes) -> bytes:
    """A whole pickle of a mapping."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def with_tensor(value: bytes) -> bytes:
    """A pickle of a mapping with a good tensor "w" and something else."""
    return mapping(w=tensor(), other=value)


def write_checkpoint(path: Path, program: bytes, members: dict[str, bytes] | None = None) -> Path:
    """A zip file with this pickle, the storage "0", and further members."""
    contents = {"archive/data.pkl": program, "archive/data/0": NUMBERS.numpy().tobytes(), **(members or {})}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in contents.items():
            archive.writestr(zipfile.ZipInfo(member), data)
    return path


class _Watch:
    """Sees audit events while it is armed; Python has no way to remove a hook, so that there is only one."""

    def __init__(self) -> None:
        self.armed, self.seen = False, []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {arguments!r:.200}")


_watch: _Watch | None = None


@contextmanager
def nothing_executed() -> Iterator[None]:
    """Fails if the block imports, compiles, executes or starts anything, or opens a file for writing."""
    global _watch
    _watch = _watch or _Watch()
    modules = set(sys.modules)
    _watch.seen.clear()
    _watch.armed = True
    try:
        yield
    finally:
        _watch.armed = False
    assert _watch.seen == []
    assert set(sys.modules) == modules
