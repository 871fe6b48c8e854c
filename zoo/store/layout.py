"""Where things lie in the store. Only paths: nothing here reads, writes or imports anything heavy.

blobs/sha256-<hex>               complete files, named by their content
parts/<name>.part                files on their way here, with a journal beside each
parts/<name>.bad                 files whose content was not what was promised, kept for inspection
models/<method>/<variant>.json   manifests: the only definition of "pulled"
locks/                           one lock for each variant and one for the store; they hold nothing
licences.json                    what was accepted, when, and the digest of the text
first-pulls.json                 digests of files for which nobody publishes one
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The store: `$ZOO_HOME`, else the platform's cache folder."""
    if os.environ.get("ZOO_HOME"):
        return Path(os.environ["ZOO_HOME"]).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("zoo", appauthor=False))


def blobs() -> Path:
    """The folder of complete files."""
    return home() / "blobs"


def blob_path(sha256: str) -> Path:
    """Where the file with this content lies, or would."""
    return blobs() / f"sha256-{sha256}"


def parts() -> Path:
    """The folder of files that are on their way, or were refused."""
    return home() / "parts"


def manifests() -> Path:
    """The folder of manifests."""
    return home() / "models"


def manifest_path(method: str, variant: str) -> Path:
    """The manifest whose existence means "pulled"."""
    return manifests() / method / f"{variant}.json"


def locks() -> Path:
    """The folder of locks."""
    return home() / "locks"


def licences_path() -> Path:
    """The record of accepted licences."""
    return home() / "licences.json"


def first_pulls_path() -> Path:
    """The record of digests that were taken on trust."""
    return home() / "first-pulls.json"
