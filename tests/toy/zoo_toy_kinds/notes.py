"""Notes: artifacts of a kind that the core has never heard of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from zoo.errors import InvalidInput, OutputExists
from zoo.io.artifacts import Image, Provenance
from zoo.io.files import write_file
from zoo.io.kinds import chosen_format


@dataclass(frozen=True, eq=False)
class Note:
    """A grey level in 255 steps, in a file or in a folder of one file."""

    level: int
    provenance: Provenance | None = None

    kind: ClassVar[str] = "note"
    formats: ClassVar[dict[str, tuple[str, ...]]] = {"plain": (".note", ".txt"), "pile": ("",)}

    def picture(self):
        # Without provenance, as a plugin may leave it.
        return Image(torch.full((1, 8, 8), self.level / 255))

    def save(self, path, format=None, metadata=True, overwrite=False):
        made = None if self.provenance is None or not metadata else self.provenance.to_dict()
        data = json.dumps({"level": self.level, "made": made}).encode()
        if chosen_format(self.formats, path, format, "note") == "plain":
            return write_file(path, data, overwrite)
        if Path(path).exists() and not overwrite:
            raise OutputExists(f"{path} exists already")
        write_file(Path(path, "note.json"), data, overwrite)
        return Path(path)

    @classmethod
    def read(cls, path):
        source = Path(path, "note.json") if Path(path).is_dir() else Path(path)
        try:
            values = json.loads(source.read_text())
            made = None if values["made"] is None else Provenance.from_dict(values["made"])
            return cls(values["level"], made)
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"{path} is no note") from error
