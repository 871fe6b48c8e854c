"""A hub with a repository, and steps that tests of the hub and of the shared cache have in common."""

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir
from servers.hub import HubServer, use_hub

from zoo.store.hub import client as hub

WEIGHTS = random.Random(2).randbytes(50_000)
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
CONFIG = b'{"width": 8}\n'
NAME = "sub/w.safetensors"
ADDRESS = hub.parse_hub(f"hf://org/model/{NAME}")

#: A digest of the kind that xet names contents by.
XET_HASH = "e" * 64


@pytest.fixture
def server():
    """A hub without repositories."""
    with HubServer() as running:
        yield running


@pytest.fixture
def cache(monkeypatch, tmp_path, server):
    """The cache of this process, whose hub is `server`."""
    return use_hub(monkeypatch, server, tmp_path / "hf")


@pytest.fixture
def model(server):
    """The repository org/model with a small file and a large one."""
    made = server.repository("org/model")
    made.commit({"config.json": CONFIG, NAME: WEIGHTS})
    return made


def theirs(server, cache, name=NAME, **options):
    """The path that the library has for a file."""
    return Path(hf_hub_download("org/model", name, endpoint=server.endpoint, cache_dir=cache, **options))


def arrived(file, content=WEIGHTS):
    """A complete part."""
    part = hub.part_path(file)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    return part


def published(address=ADDRESS, content=WEIGHTS):
    file = hub.describe_file(address)
    hub.publish_file(file, arrived(file, content))
    return file


def entries(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def complaints(cache):
    """What the library finds wrong with the cache."""
    return [str(warning) for warning in scan_cache_dir(cache).warnings]


def no_links(monkeypatch, way="system"):
    """Links are not wanted ("switch"), or the file system has none ("system")."""
    if way == "switch":
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        return

    def refused(*args, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refused)


def shared(cache, *repositories):
    """The layout that the library makes of a content that several repositories have through xet."""
    store = pytest.importorskip("huggingface_hub.utils._shared_blobs", reason="a release without that store")
    for name in repositories:
        blob = cache / f"models--org--{name}" / "blobs" / DIGEST
        blob.parent.mkdir(parents=True)
        blob.write_bytes(WEIGHTS)
        assert store.publish_blob_to_shared_store(
            blob_path=str(blob), xet_hash=XET_HASH, cache_dir=cache, expected_size=len(WEIGHTS)
        )
        pointer = blob.parents[1] / "snapshots" / ("a" * 40) / "w.safetensors"
        pointer.parent.mkdir(parents=True)
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    return cache / "blobs" / "ee" / XET_HASH
