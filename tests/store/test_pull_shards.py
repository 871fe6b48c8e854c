"""Checkpoints in several files: found by their index, fetched, checked, and stored as one file."""

import json
import shutil

import pytest
import torch
from far_models import toy_checkpoint, toy_safetensors
from safetensors.torch import load, load_file, save
from servers.faulty import FaultyServer
from servers.hub import HubServer, use_hub
from toy_method import tensors

import zoo as api
from zoo.errors import ChecksumError, DoesNotFit, NotFound, WeightsError
from zoo.runtime.loading import read_tensors
from zoo.session import Session
from zoo.store.checkpoints.shard_index import shard_names
from zoo.store.conversion import convert_file
from zoo.store.layout import home, parts
from zoo.store.manifest import read_manifest
from zoo.store.pull import pull
from zoo.store.verifying import repair, verify

NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
SOURCE = f"hf://org/model/sub/{INDEX}"
SITE = "/some/folder/"


def pieces() -> tuple[dict, dict]:
    names = sorted(tensors())
    whole = tensors()
    return {name: whole[name] for name in names[::2]}, {name: whole[name] for name in names[1::2]}


def index_of(parts_by_name: dict) -> bytes:
    places = {tensor: name for name, part in parts_by_name.items() for tensor in part}
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()


PARTS = dict(zip(NAMES, pieces(), strict=True))
FILES = {INDEX: index_of(PARTS), **{name: save(part) for name, part in PARTS.items()}}


@pytest.fixture
def hub():
    with HubServer() as running:
        yield running


@pytest.fixture
def cache(far, monkeypatch, tmp_path, hub):
    return use_hub(monkeypatch, hub, tmp_path / "hf")


@pytest.fixture
def model(hub):
    made = hub.repository("org/model")
    made.commit({f"sub/{name}": content for name, content in FILES.items()})
    return made


@pytest.fixture
def site():
    with FaultyServer({f"{SITE}{name}": content for name, content in FILES.items()}) as running:
        yield running


class Listener:
    """A watcher that remembers what it was told, and whether it was told of bytes too early."""

    def __init__(self):
        self.files, self.early = None, []

    def planned(self, files):
        self.files = [file.role for file in files]

    def advanced(self, role, done, total):
        if self.files is None or role not in self.files:
            self.early.append(role)

    def working(self, role, what):
        if self.files is None:
            self.early.append(role)

    def said(self, text):
        pass


def same(path) -> None:
    stored = load_file(path)
    assert stored.keys() == tensors().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors().items())


def written(folder, files=FILES):
    """The checkpoint in a folder; the path of its index."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(name for name in files if name.endswith(".index.json"))


# From the hub and from a server


def test_all_that_the_index_names_becomes_one_file(far, hub, cache, model):
    listener = Listener()
    reference = far.variant("a", {"source": [SOURCE], "format": "pytorch"})
    (file,) = pull(reference, watcher=listener).files
    same(file.path)
    assert (file.role, file.format, file.source) == ("model", "safetensors", SOURCE)
    assert file.verified and file.revision == model.resolve("main")
    assert (listener.files, listener.early) == (["model-1", "model-2"], [])
    assert not [path for path in cache.rglob("*") if "part" in path.name]
    hub.reset()
    pull(reference)
    assert hub.requests == []
    assert isinstance(api.load(reference).model, torch.nn.Module)


def test_shards_come_from_the_commit_of_the_index(far, hub, cache, model):
    first = model.resolve("main")
    model.commit({f"sub/{NAMES[0]}": b"another state of the branch", f"sub/{INDEX}": b"no index any more"})
    reference = far.variant("a", {"source": [f"{SOURCE}@{first}"], "format": "pytorch"})
    (file,) = pull(reference).files
    same(file.path)
    assert file.revision == first


def test_the_first_index_that_is_there_is_taken(far, hub, cache, tmp_path):
    bins = {"pytorch_model-1.bin": PARTS[NAMES[0]], "pytorch_model-2.bin": PARTS[NAMES[1]]}
    contents = {}
    for name, part in bins.items():
        torch.save(part, tmp_path / name)
        contents[name] = (tmp_path / name).read_bytes()
    contents["pytorch_model.bin.index.json"] = index_of(bins)
    hub.repository("org/other").commit(contents)
    sources = [f"hf://org/other/{name}" for name in (INDEX, "pytorch_model.bin.index.json")]
    (file,) = pull(far.variant("a", {"source": sources, "format": "pytorch"})).files
    same(file.path)
    assert file.source == sources[1]


def test_a_mirror_may_have_it_all_in_one_file(far, site, tmp_path):
    site.put("/whole.bin", toy_checkpoint(tmp_path / "whole.bin"))
    sources = [site.url("/nowhere/" + INDEX), site.url("/whole.bin")]
    (file,) = pull(far.variant("a", {"source": sources, "format": "pytorch"})).files
    same(file.path)


def test_from_a_server_nobody_vouches_for_the_files(far, site):
    reference = far.variant("a", {"source": [site.url(SITE + INDEX)], "format": "pytorch"})
    (file,) = pull(reference).files
    same(file.path)
    assert not file.verified
    assert not list(parts().glob("*.part"))
    # Each file is believed once, and has to stay as it was.
    changed = {**PARTS[NAMES[1]]}
    name = next(iter(changed))
    changed[name] = changed[name] + 1
    site.put(SITE + NAMES[1], save(changed))
    file.path.unlink()
    with pytest.raises(ChecksumError, match=NAMES[1]):
        pull(reference)
    (file,) = pull(reference, accept_change=True).files
    assert torch.equal(load_file(file.path)[name], changed[name])


def test_a_missing_file_leaves_nothing_half_done(far, site):
    site.fault(path=SITE + NAMES[1], status=404)
    reference = far.variant("a", {"source": [site.url(SITE + INDEX)], "format": "pytorch"})
    with pytest.raises(NotFound) as caught:
        pull(reference)
    assert NAMES[1] in caught.value.message and "--from" in caught.value.hint
    assert read_manifest("far", "a") is None
    site.clear_faults()
    (file,) = pull(reference).files
    same(file.path)


def test_room_is_asked_for_before_the_files_are_fetched(far, hub, cache, model, monkeypatch):
    reference = far.variant("a", {"source": [SOURCE], "format": "pytorch"})
    usage = shutil.disk_usage(home().parent)
    monkeypatch.setattr(
        "zoo.store.room.shutil.disk_usage", lambda _: usage._replace(free=len(FILES[INDEX]) * 3)
    )
    with pytest.raises(DoesNotFit, match="far:a needs"):
        pull(reference)
    assert hub.sent() == len(FILES[INDEX])


def test_a_damaged_file_is_pulled_again(far, hub, cache, model):
    (file,) = pull(far.variant("a", {"source": [SOURCE], "format": "pytorch"})).files
    file.path.chmod(0o600)
    file.path.write_bytes(b"damaged")
    assert [check.status for check in verify(["far:a"])] == ["damaged"]
    assert repair("far:a") == ("model",)
    same(file.path)


# From this machine


def test_an_index_given_by_hand_brings_its_files(far, tmp_path):
    index = written(tmp_path / "checkpoint")
    reference = far.variant("a", {"source": [f"https://127.0.0.1:9/{INDEX}"], "format": "pytorch"})
    (file,) = pull(reference, given={"model": index}).files
    same(file.path)
    assert index.is_file() and (index.parent / NAMES[0]).is_file()


def test_an_index_is_read_in_place_of_a_file(far, tmp_path):
    index = written(tmp_path / "checkpoint")
    loaded = api.load(
        far.variant("a", {"source": ["https://127.0.0.1:9/x"], "format": "pytorch"}), weights=index
    )
    ours = loaded.model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in tensors().items())
    converted = convert_file(Session(), "far:a", index, tmp_path / "one.safetensors")
    assert converted.tensors == len(tensors())
    same(tmp_path / "one.safetensors")


def test_a_tensor_in_two_files_is_an_error(tmp_path):
    both = {**FILES, NAMES[1]: toy_safetensors()}
    with pytest.raises(WeightsError, match="two of the files that it names hold the tensor"):
        read_tensors(written(tmp_path / "twice", both))


def test_a_file_that_is_not_there_is_named(tmp_path):
    index = written(tmp_path / "checkpoint")
    (index.parent / NAMES[1]).unlink()
    with pytest.raises(WeightsError, match=NAMES[1]):
        read_tensors(index)


def test_an_index_tells_of_its_files_once_and_in_order(tmp_path):
    index = written(tmp_path / "checkpoint")
    assert shard_names(index) == NAMES
    assert load(FILES[NAMES[0]]).keys() == PARTS[NAMES[0]].keys()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe", "not text"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no table weight_map"),
        (b'{"weight_map": {}}', "no table weight_map"),
        (b'{"weight_map": {"a": 1}}', "something else than files"),
        (b'{"weight_map": {"a": ["b"]}}', "something else than files"),
        (b'{"weight_map": {"a": "../b.bin"}}', "something else than files"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "something else than files"),
        (b'{"weight_map": {"a": "..", "b": "c.bin"}}', "something else than files"),
        (b'{"weight_map": {"a": "b.index.json"}}', "something else than files"),
        (json.dumps({"weight_map": {str(i): f"{i}.bin" for i in range(1001)}}).encode(), "1001 files"),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, content, problem):
    path = tmp_path / INDEX
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=problem):
        shard_names(path)
