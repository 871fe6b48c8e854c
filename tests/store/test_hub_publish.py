"""Publishing into the Hugging Face cache: huggingface_hub finds it, also after a kill at any step."""

import os
import shutil
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
from huggingface_hub import hf_hub_download, scan_cache_dir
from servers.crashing import every_crash

from zoo.errors import OutputNotWritable
from zoo.store.hub import client as hub

# Publishing


@pytest.mark.parametrize(("path", "content"), [(NAME, WEIGHTS), ("config.json", CONFIG)])
def test_the_library_finds_what_was_published(server, cache, model, path, content):
    file = published(hub.parse_hub(f"hf://org/model/{path}"), content)
    asked, sent = len(server.requests), server.sent()
    assert theirs(server, cache, path, local_files_only=True) == file.pointer
    assert file.pointer.read_bytes() == content
    assert (len(server.requests), server.sent()) == (asked, sent)
    assert theirs(server, cache, path) == file.pointer
    assert server.sent() == 0
    assert os.readlink(file.pointer) == os.path.relpath(file.blob, file.pointer.parent)
    assert (file.folder / "refs" / "main").read_text() == file.commit
    assert not hub.part_path(file).exists()
    report = scan_cache_dir(cache)
    assert ([str(each) for each in report.warnings], report.size_on_disk) == ([], len(content))


def test_the_layout_is_that_of_the_library(server, cache, model, tmp_path):
    published()
    hf_hub_download("org/model", NAME, endpoint=server.endpoint, cache_dir=tmp_path / "theirs")
    ours = entries(cache / "models--org--model")
    assert ours == entries(tmp_path / "theirs" / "models--org--model")
    for name in ours:
        one, other = (folder / "models--org--model" / name for folder in (cache, tmp_path / "theirs"))
        assert one.lstat().st_mode == other.lstat().st_mode, name
        assert not one.is_symlink() or os.readlink(one) == os.readlink(other)


@pytest.mark.parametrize("branch", ["feature/x", "refs/pr/1", "v1.0"])
def test_a_branch_with_slashes_is_remembered(server, cache, model, branch):
    model.commit({NAME: WEIGHTS}, branch=branch)
    file = published(ADDRESS.at(branch))
    assert theirs(server, cache, revision=branch, local_files_only=True) == file.pointer
    assert hub.find_cached(ADDRESS) is None
    assert complaints(cache) == []


def test_a_commit_needs_no_ref(server, cache, model):
    file = published(ADDRESS.at(model.refs["main"]))
    assert not (file.folder / "refs").exists()
    assert theirs(server, cache, revision=file.commit, local_files_only=True) == file.pointer


def test_a_branch_that_moves_on_keeps_the_content(server, cache, model):
    first = published()
    model.commit({"config.json": b"{}"})
    second = hub.describe_file(ADDRESS)
    assert second.blob == first.blob
    assert second.blob.is_file()
    assert hub.link_file(second) == second.pointer
    assert second.pointer != first.pointer
    assert theirs(server, cache, local_files_only=True) == second.pointer
    assert entries(second.folder / "blobs") == [DIGEST]
    assert server.sent() == 0


def test_a_damaged_content_is_kept_aside(server, cache, model):
    file = published()
    file.blob.write_bytes(WEIGHTS[:-1] + b"?")
    hub.publish_file(file, arrived(file))
    assert file.pointer.read_bytes() == WEIGHTS
    bad = file.blob.with_name(file.blob.name + ".bad")
    assert bad.read_bytes() == WEIGHTS[:-1] + b"?"
    assert hub.leftovers() == [bad]
    file.blob.write_bytes(b"short")
    hub.publish_file(file, arrived(file))
    assert (file.pointer.read_bytes(), bad.read_bytes()) == (WEIGHTS, b"short")
    assert complaints(cache) == []


def test_the_same_content_from_two_sides_is_there_once(server, cache, model):
    file = hub.describe_file(ADDRESS)
    theirs(server, cache)
    before = file.blob.stat().st_ino
    hub.publish_file(file, arrived(file))
    assert file.blob.stat().st_ino == before
    assert entries(file.blob.parent) == [DIGEST]


def test_a_link_that_leads_elsewhere_is_put_right(server, cache, model, tmp_path):
    file = published()
    (tmp_path / "other").write_bytes(b"other")
    file.pointer.unlink()
    file.pointer.symlink_to(tmp_path / "other")
    assert hub.link_file(file).read_bytes() == WEIGHTS
    assert (tmp_path / "other").read_bytes() == b"other"


def test_a_file_in_the_place_of_the_link_is_kept_aside(server, cache, model):
    file = published()
    file.pointer.unlink()
    file.pointer.write_bytes(b"changed by hand")
    assert hub.link_file(file).is_symlink()
    assert file.blob.with_name(f"{DIGEST}.bad").read_bytes() == b"changed by hand"


@pytest.mark.parametrize("way", ["switch", "system"])
def test_without_links_the_file_itself_is_put_there(monkeypatch, server, cache, model, way):
    no_links(monkeypatch, way)
    file = published()
    assert not file.pointer.is_symlink()
    assert file.pointer.read_bytes() == WEIGHTS
    assert not file.blob.exists()
    assert theirs(server, cache, local_files_only=True) == file.pointer
    assert theirs(server, cache) == file.pointer
    assert server.sent() == 0
    assert hub.link_file(file) == file.pointer
    assert complaints(cache) == []
    assert hub.remove_cached(file.pointer) == len(WEIGHTS)
    assert not file.folder.exists()


def test_links_of_other_days_keep_their_content(monkeypatch, server, cache, model):
    first = published()
    model.commit({"config.json": b"{}"})
    no_links(monkeypatch, "switch")
    second = hub.describe_file(ADDRESS)
    hub.link_file(second)
    assert not second.pointer.is_symlink()
    assert first.pointer.read_bytes() == second.pointer.read_bytes() == WEIGHTS
    assert entries(second.folder / "blobs") == [DIGEST]


def test_a_cache_that_cannot_be_written_is_told(monkeypatch, server, cache, model, tmp_path):
    file = hub.describe_file(ADDRESS)
    part = tmp_path / "part"
    part.write_bytes(WEIGHTS)
    cache.parent.mkdir()
    cache.write_text("a file")
    with pytest.raises(OutputNotWritable, match="cannot be written") as caught:
        hub.publish_file(file, part)
    assert "HF_HUB_CACHE" in caught.value.hint
    assert part.read_bytes() == WEIGHTS


def test_there_is_no_link_without_a_content(server, cache, model):
    with pytest.raises(OutputNotWritable):
        hub.link_file(hub.describe_file(ADDRESS))
    assert not cache.exists()


def test_a_ref_that_cannot_be_kept_does_no_harm_where_all_else_is_there(server, cache, model):
    file = published()
    shutil.rmtree(file.folder / "refs")
    (file.folder / "refs").write_text("in the way")
    assert hub.link_file(file) == file.pointer
    file.pointer.unlink()
    with pytest.raises(OutputNotWritable):
        hub.link_file(file)


def test_a_damaged_shared_content_is_replaced_for_this_repository_alone(server, cache, model):
    content = shared(cache, "model", "two")
    content.chmod(0o644)
    content.write_bytes(b"damaged")
    file = hub.describe_file(ADDRESS)
    hub.publish_file(file, arrived(file))
    assert file.pointer.read_bytes() == WEIGHTS
    assert not file.blob.is_symlink()
    assert content.read_bytes() == b"damaged"


# Killed on the way


def publish_into(cache, commit):
    """What a pull does at its end, also when it is run again."""
    blob = Path(cache) / "models--org--model" / "blobs" / DIGEST
    file = hub.HubFile(
        address=ADDRESS,
        revision="main",
        commit=commit,
        size=len(WEIGHTS),
        etag=DIGEST,
        sha256=DIGEST,
        git_sha1=None,
        url="",
        headers={},
        blob=blob,
        pointer=blob.parents[1] / "snapshots" / commit / NAME,
        only_xet=False,
    )
    if blob.is_file() and blob.read_bytes() == WEIGHTS:
        hub.link_file(file)
    else:
        hub.publish_file(file, hub.part_path(file))


def made_ready(cache, damaged):
    blobs = cache / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{DIGEST}.zoo-part").write_bytes(WEIGHTS)
    if damaged:
        (blobs / DIGEST).write_bytes(b"damaged")


@pytest.mark.parametrize("damaged", [False, True])
def test_a_publication_that_is_killed_is_completed(server, cache, model, tmp_path, damaged):
    commit = model.refs["main"]

    def arguments(at):
        made_ready(tmp_path / str(at), damaged)
        return [tmp_path / str(at), commit]

    outcomes = list(every_crash("test_hub_publish:publish_into", arguments))
    assert len(outcomes) > 10
    for outcome in outcomes:
        ours = tmp_path / str(outcome.at)
        blob = ours / "models--org--model" / "blobs" / DIGEST
        others = tmp_path / f"{outcome.at}-theirs"
        shutil.copytree(ours, others, symlinks=True)
        whole = not damaged or (others / blob.relative_to(ours)).read_bytes() == WEIGHTS
        assert theirs(server, others).read_bytes() == (WEIGHTS if whole else b"damaged")
        assert complaints(others) == []
        publish_into(str(ours), commit)
        assert theirs(server, ours, local_files_only=True).read_bytes() == WEIGHTS
        assert complaints(ours) == []
        if damaged:
            assert blob.with_name(f"{DIGEST}.bad").read_bytes() == b"damaged"
