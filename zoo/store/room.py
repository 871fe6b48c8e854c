"""Whether everything that a pull brings fits on the disks, asked before the first byte."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import DoesNotFit
from zoo.quantities import human_bytes


@dataclass(frozen=True)
class Claim:
    """Bytes that will be written into a folder, which need not exist yet."""

    folder: Path
    size: int


def check_room(claims: Iterable[Claim], what: str) -> None:
    """Raise `DoesNotFit` if the claims on one disk are more than it has free."""
    wanted: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for claim in claims:
        there = _existing(claim.folder)
        device = os.stat(there).st_dev
        wanted[device] += claim.size
        folders.setdefault(device, there)
    for device, size in wanted.items():
        free = shutil.disk_usage(folders[device]).free
        if size > free:
            raise DoesNotFit(
                f"{what} needs {human_bytes(size)} in {folders[device]}, which has {human_bytes(free)} free: "
                f"{human_bytes(size - free)} too little",
                "zoo prune removes what no model uses; ZOO_HOME and HF_HOME choose another disk; "
                "--no-space-check tries anyway.",
            )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
