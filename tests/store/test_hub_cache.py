"""The Hugging Face cache: what huggingface_hub puts there is found, and goes with what only it needed."""

import hashlib
import os
import shutil
import socket
from pathlib import Path

import pytest
from hub_cases import (
    ADDRESS,
    CONFIG,
    DIGEST,
    NAME,
    WEIGHTS,
    arrived,
    complaints,
    entries,
    no_links,
    published,
    shared,
    theirs,
)
from huggingface_hub import snapshot_download
from servers.crashing import every_crash

from zoo.errors import InvalidInput
from zoo.store.hub import client as hub

# Finding


def test_a_download_of_the_library_is_found(server, cache, model):
    assert hub.find_cached(ADDRESS) is None
    pointer = theirs(server, cache)
    asked = len(server.requests)
    found = hub.find_cached(ADDRESS)
    assert found is not None
    assert (found.pointer, found.commit, found.size) == (pointer, model.refs["main"], len(WEIGHTS))
    assert (found.sha256, found.git_sha1) == (DIGEST, None)
    assert found.blob == cache / "models--org--model" / "blobs" / DIGEST
    assert hub.find_cached(ADDRESS, model.refs["main"]) is not None
    assert hub.find_cached(ADDRESS, "v1") is None
    assert hub.find_cached(ADDRESS, "0" * 40) is None
    assert len(server.requests) == asked


def test_a_snapshot_of_the_library_is_found(server, cache, model):
    snapshot_download("org/model", endpoint=server.endpoint, cache_dir=cache)
    small = hub.find_cached(hub.parse_hub("hf://org/model/config.json"))
    assert small is not None
    assert small.git_sha1 == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert small.sha256 is None
    assert hub.find_cached(ADDRESS) is not None
    assert hub.find_cached(hub.parse_hub("hf://org/model/sub")) is None


def test_nobody_is_asked_when_the_file_is_here(monkeypatch, server, cache, model):
    theirs(server, cache)

    def forbidden(*args, **options):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    assert hub.find_cached(ADDRESS) is not None


def test_without_links_the_file_itself_is_found(monkeypatch, server, cache, model):
    no_links(monkeypatch)
    with pytest.warns(UserWarning, match="symlinks"):
        pointer = theirs(server, cache)
    assert not pointer.is_symlink()
    found = hub.find_cached(ADDRESS)
    assert found is not None
    assert (found.pointer, found.blob, found.sha256, found.git_sha1) == (pointer, pointer, None, None)


@pytest.mark.parametrize("text", ["../../..", "", "main", "a" * 39, "a" * 40 + "/..", "\xff"])
def test_a_damaged_ref_leads_nowhere(server, cache, model, text):
    theirs(server, cache)
    (cache / "models--org--model" / "refs" / "main").write_bytes(text.encode("latin-1"))
    assert hub.find_cached(ADDRESS) is None


def test_a_link_to_nothing_is_no_file(server, cache, model):
    theirs(server, cache).resolve().unlink()
    assert hub.find_cached(ADDRESS) is None


# Removing


def test_the_only_file_leaves_nothing(server, cache, model):
    file = published()
    assert hub.remove_cached(file.pointer) == len(WEIGHTS)
    assert entries(cache) == []
    assert hub.remove_cached(file.pointer) == 0
    assert hub.find_cached(ADDRESS) is None


def test_other_files_stay(server, cache, model):
    snapshot_download("org/model", endpoint=server.endpoint, cache_dir=cache)
    pointer = theirs(server, cache)
    assert hub.remove_cached(pointer) == len(WEIGHTS)
    assert not pointer.parent.exists()
    assert theirs(server, cache, "config.json", local_files_only=True).read_bytes() == CONFIG
    assert complaints(cache) == []


def test_a_content_that_another_snapshot_has_stays(server, cache, model):
    first = theirs(server, cache)
    model.commit({"config.json": b"{}"})
    second = theirs(server, cache)
    assert first != second
    assert hub.remove_cached(second) == 0
    assert first.read_bytes() == WEIGHTS
    assert not second.parent.parent.exists()
    assert not (cache / "models--org--model" / "refs" / "main").exists()
    assert complaints(cache) == []
    assert hub.remove_cached(first) == len(WEIGHTS)
    assert not (cache / "models--org--model").exists()


def test_only_refs_to_the_snapshot_that_goes_are_forgotten(server, cache, model):
    model.commit({NAME: b"other"}, branch="dev/other")
    theirs(server, cache)
    theirs(server, cache, revision="dev/other")
    assert hub.remove_cached(theirs(server, cache, revision="dev/other")) == len(b"other")
    assert entries(cache / "models--org--model" / "refs") == ["main"]
    assert theirs(server, cache, local_files_only=True).read_bytes() == WEIGHTS


def test_a_part_of_another_file_keeps_its_place(server, cache, model):
    file = published()
    other = file.blob.with_name("0" * 64 + ".zoo-part")
    other.write_bytes(b"half")
    hub.remove_cached(file.pointer)
    assert other.read_bytes() == b"half"
    assert complaints(cache) == []


def test_only_files_of_the_cache_are_removed(server, cache, model, tmp_path):
    file = published()
    outside = tmp_path / "outside" / "models--a--b" / "snapshots" / ("a" * 40)
    outside.mkdir(parents=True)
    (outside / "w.bin").write_bytes(b"w")
    led_out = file.folder / "snapshots" / ("d" * 40)
    led_out.symlink_to(outside)
    refused = [
        outside / "w.bin",
        led_out / "w.bin",
        led_out,
        file.blob,
        file.folder / "refs" / "main",
        file.folder,
        file.pointer.parent,
        file.folder / "snapshots" / file.commit,
        file.folder / "snapshots",
        cache,
        file.pointer / ".." / ".." / ".." / "..",
        cache / "models--org--model" / "snapshots" / "main" / "w.bin",
        cache / "datasets--org--model" / "snapshots" / ("a" * 40) / "w.bin",
        file.folder / "snapshots" / file.commit / ".." / ".." / "refs" / "main",
    ]
    before = entries(tmp_path)
    for path in refused:
        with pytest.raises(InvalidInput, match="Hugging Face cache"):
            hub.remove_cached(path)
    assert entries(tmp_path) == before


def remove_from(cache, pointer):
    """A removal in a process of its own."""
    os.environ["HF_HUB_CACHE"] = cache
    hub.remove_cached(Path(pointer))


def test_a_removal_that_is_killed_does_no_harm(monkeypatch, server, cache, model, tmp_path):
    whole = tmp_path / "whole"
    pointer = theirs(server, whole).relative_to(whole)

    def arguments(at):
        shutil.copytree(whole, tmp_path / str(at), symlinks=True)
        return [tmp_path / str(at), tmp_path / str(at) / pointer]

    outcomes = list(every_crash("test_hub_cache:remove_from", arguments))
    assert len(outcomes) > 5
    for outcome in outcomes:
        ours = tmp_path / str(outcome.at)
        if (ours / "models--org--model" / "snapshots").exists():
            assert complaints(ours) == []
        assert theirs(server, ours).read_bytes() == WEIGHTS
        assert complaints(ours) == []
        monkeypatch.setenv("HF_HUB_CACHE", str(ours))
        hub.remove_cached(ours / pointer)
        assert not (ours / "models--org--model").exists()


# The library's store between repositories


def test_the_name_of_a_shared_content_is_not_taken_for_its_digest(cache):
    shared(cache, "one")
    found = hub.find_cached(hub.parse_hub("hf://org/one/w.safetensors@" + "a" * 40))
    assert found is not None
    assert (found.sha256, found.size) == (DIGEST, len(WEIGHTS))
    assert found.blob == cache / "models--org--one" / "blobs" / DIGEST


def test_a_shared_content_goes_with_the_last_repository(cache):
    content = shared(cache, "one", "two")
    one, two = (
        hub.find_cached(hub.parse_hub(f"hf://org/{name}/w.safetensors@" + "a" * 40))
        for name in ("one", "two")
    )
    assert one is not None
    assert two is not None
    assert hub.remove_cached(one.pointer) == 0
    assert two.pointer.read_bytes() == WEIGHTS
    assert hub.remove_cached(two.pointer) == len(WEIGHTS)
    assert not content.exists()
    assert complaints(cache) == []


# What is left lying


def test_only_our_own_leftovers_are_listed(server, cache, model):
    assert hub.leftovers() == []
    file = published()
    part = arrived(file)
    names = [part.name, f"{part.name}.journal", f"{part.name}.journal.new", f"{DIGEST}.bad", ".12ab.zoo-part"]
    for name in [*names, f"{DIGEST}.1234.incomplete"]:
        (file.blob.parent / name).write_bytes(b"")
    assert [path.name for path in hub.leftovers()] == sorted(names)
    assert complaints(cache) == []
