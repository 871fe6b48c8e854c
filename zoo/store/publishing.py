"""Making files appear in one step: another process sees all of a file or none of it, also after a crash."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def publish(part: Path, target: Path) -> None:
    """Give the complete file `part` its final name: on disk first, then in the folder, then the folder."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)
    sync_folder(target.parent)


def write_json(target: Path, document: Any) -> None:
    """Write a small document in one step; readers see the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(6)}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make a renaming or removal in `folder` last; some file systems cannot, and need not."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
