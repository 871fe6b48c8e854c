"""Damages weights files in a thousand ways and reads them, in a process of its own.

    python -c "from checkpoint_fuzzer import main; main(1000, 'FOLDER')"

Prints what came of it as JSON. What is wrong ends the process: an exception that is no `WeightsError`, or
anything that a reader must not do (see `checkpoint_programs.nothing_executed`).
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import resource
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from checkpoint_programs import name, nothing_executed, storage, tensor, text, with_tensor, write_checkpoint
from safetensors.torch import save
from torch import nn

from zoo.errors import WeightsError
from zoo.runtime.loading import read_tensors

MEMORY = 2**30  #: bytes of address space that reading may take beyond what is there before
RECORDS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")
OPCODES = bytes(range(0x80, 0x99)) + b"().012BCFGIJKLMNPQRSTUVX]abcdeghijlopqrstu}"
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
PIECES = (
    name("os", "system") + b"(" + text("true") + b"tR",
    name("collections", "OrderedDict") + b")R",
    name("torch._utils", "_rebuild_parameter"),
    name("torch", "float8_e4m3fn"),
    storage(),
    tensor(),
    b"}(",
    b"](",
)

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def seeds(folder: Path) -> list[bytes]:
    """Whole files of every kind that is read."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(5, 3)).sum().backward()
    optimiser.step()
    state = model.state_dict()
    training = {
        "state_dict": state,
        "optimizer": optimiser.state_dict(),
        "args": argparse.Namespace(layers=8, path=Path("x")),
        "seed": 2**100,
    }
    base = torch.arange(24.0)
    many = {
        str(dtype): base.to(dtype) for dtype in (torch.bfloat16, torch.bool, torch.float8_e5m2, torch.uint16)
    }
    views = {
        "t": base.reshape(4, 6).t(),
        "tail": base[5:],
        "empty": torch.zeros(0, 2),
        "one": torch.tensor(1),
    }
    files = [_saved(state, pickle_protocol=2), _saved(training, pickle_protocol=4), _saved({**many, **views})]
    files += [_saved(content, _use_new_zipfile_serialization=False) for content in (state, views)]
    program = with_tensor(
        b"(" + b"".join(PIECES[:6]) + b"K\x01M\x02\x01J\x01\0\0\0\x8a\x01\x05G@\0\0\0\0\0\0\0t"
    )
    files.append(
        write_checkpoint(folder / "made.pth", program, {"archive/byteorder": b"little"}).read_bytes()
    )
    return [*files, save({"a": base, "b": base.half().reshape(2, 12)}, {"format": "pt"})]


def _saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


# Ways to damage a file


def flipped(rng: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    length = rng.randrange(len(data))
    return data[length:] if rng.random() < 0.1 else data[:length]


def spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, at = rng.randrange(len(other)), rng.randrange(len(data))
    piece = other[start : start + rng.choice((1, 4, 16, 100, 1000))]
    return data[:at] + piece + data[at + (len(piece) if rng.random() < 0.5 else 0) :]


def renumbered(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Numbers in the records of the zip file, or anywhere in a file that is none."""
    places = [at for record in RECORDS for at in _all(data, record)] or [0]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        at, size = rng.choice(places) + rng.randrange(56), rng.choice((1, 2, 4, 8))
        changed[at : at + size] = _number(rng, size)[: max(0, len(changed) - at)]
    return bytes(changed)


def reprogrammed(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Instructions of the pickle, in a zip file that stays whole, or anywhere in a file that is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except zipfile.BadZipFile:
        return _edited(rng, data)
    pickle = next(member for member in members if member.endswith("data.pkl"))
    members[pickle] = _edited(rng, members[pickle])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return file.getvalue()


def _edited(rng: random.Random, program: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, size = rng.randrange(len(program)), rng.choice((1, 2, 4, 8))
        piece = rng.choice(
            (
                bytes([rng.choice(OPCODES)]),
                bytes(rng.choice(OPCODES) for _ in range(size)),
                rng.choice(PIECES),
                _number(rng, size),
                program[at // 2 : at // 2 + rng.randrange(60)],
                b"",
            )
        )
        program = program[:at] + piece + program[at + rng.choice((0, len(piece), size)) :] + b"."
    return program


def _number(rng: random.Random, size: int) -> bytes:
    value = rng.choice((rng.choice(NUMBERS), rng.randrange(2 ** (8 * size)), rng.randrange(300)))
    return (value % 2 ** (8 * size)).to_bytes(size, "little")


def _all(data: bytes, record: bytes) -> Iterator[int]:
    at = data.find(record)
    while at >= 0:
        yield at
        at = data.find(record, at + 1)


MUTATIONS: tuple[Mutation, ...] = (
    flipped,
    cut,
    spliced,
    renumbered,
    reprogrammed,
    reprogrammed,
    reprogrammed,
)


def attempt(path: Path) -> str:
    """Read a file and touch what comes of it."""
    with nothing_executed():
        try:
            tensors = read_tensors(path)
        except WeightsError as error:
            if "\n" in error.message or str(path) not in error.message or len(error.message) > 2000:
                raise AssertionError(f"a text that cannot be shown: {error.message!r}") from error
            return "refused"
    for value in tensors.values():
        value.contiguous().reshape(-1).view(torch.uint8).sum()
    return "read"


def main(count: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    path, rng = Path(folder) / "file", random.Random(0)
    files = seeds(Path(folder))
    for data in files:
        # Also lets torch import what it imports late.
        path.write_bytes(data)
        for _ in range(2):
            read_tensors(path)
        if attempt(path) != "read":
            raise AssertionError("a file that is whole was refused")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: collections.Counter[str] = collections.Counter()
    for index in range(count):
        data = rng.choice(MUTATIONS)(rng, rng.choice(files), rng.choice(files))
        path.unlink()
        path.write_bytes(data)
        try:
            outcomes[attempt(path)] += 1
        except BaseException:
            (Path(folder) / f"failed-{index}").write_bytes(data)
            print(f"mutation {index} of {count}", file=sys.stderr)
            raise
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({**outcomes, "grown": grown}))
