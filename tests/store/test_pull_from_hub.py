"""Pulling from a hub, with the real huggingface_hub as the other user of the cache."""

import os
import socket

import pytest
from far_models import large_safetensors, sha256, toy_checkpoint, toy_safetensors
from huggingface_hub import hf_hub_download
from servers.hub import HubServer, use_hub

import zoo as api
from zoo.errors import ChecksumError, LicenceError, NetworkError, NotFound, WeightsError
from zoo.store.layout import blob_path, home, manifest_path
from zoo.store.manifest import read_manifest
from zoo.store.pull import pull
from zoo.store.removal import remove

TOY = toy_safetensors()
LARGE = large_safetensors()
SOURCE = "hf://org/model/sub/w.safetensors"


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
    made.commit({"config.json": b"{}", "sub/w.safetensors": LARGE})
    return made


def cached(cache):
    return hf_hub_download("org/model", "sub/w.safetensors", cache_dir=cache, local_files_only=True)


def test_a_file_lands_in_the_cache_of_the_hub_and_nowhere_else(far, hub, cache, model):
    (file,) = pull(far.variant("a", {"source": [SOURCE]})).files
    assert str(file.path) == cached(cache)
    assert file.path.read_bytes() == LARGE
    assert (file.digest_from, file.sha256, file.revision) == ("hub", sha256(LARGE), model.resolve("main"))
    assert not list(home().glob("blobs/*"))
    assert hub.sent() == len(LARGE)
    assert not [path for path in cache.rglob("*") if "zoo-part" in path.name]
    hub.reset()
    pull("far:a")
    assert hub.requests == [] and hub.sent() == 0


def test_what_the_library_downloaded_before_is_checked_and_used(far, hub, cache, model):
    before = hf_hub_download("org/model", "sub/w.safetensors", cache_dir=cache, endpoint=hub.endpoint)
    hub.reset()
    (file,) = pull(far.variant("a", {"source": [SOURCE]})).files
    assert str(file.path) == before
    assert file.shared and file.verified
    assert hub.requests == [] and hub.sent() == 0
    remove(["far:a"])
    assert os.path.exists(before)


def test_a_damaged_file_of_the_cache_is_replaced_and_kept(far, hub, cache, model):
    before = hf_hub_download("org/model", "sub/w.safetensors", cache_dir=cache, endpoint=hub.endpoint)
    damaged = bytearray(LARGE)
    damaged[-1] ^= 1
    blob = os.path.realpath(before)
    with open(blob, "wb") as file:
        file.write(damaged)
    (stored,) = pull(far.variant("a", {"source": [SOURCE]})).files
    assert stored.path.read_bytes() == LARGE
    (kept,) = [path for path in cache.rglob("*.bad") if path.is_file()]
    assert kept.read_bytes() == damaged


def test_what_we_brought_is_removed_again(far, hub, cache, model):
    (file,) = pull(far.variant("a", {"source": [SOURCE]})).files
    remove(["far:a"])
    assert not os.path.lexists(file.path)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == len(LARGE)]


def test_a_branch_is_pinned_by_the_first_pull(far, hub, cache, model):
    first = pull(far.variant("a", {"source": [SOURCE]})).files[0]
    model.commit({"config.json": b"{}", "sub/w.safetensors": TOY})
    remove(["far:a"])
    again = pull("far:a").files[0]
    assert (again.revision, again.sha256) == (first.revision, first.sha256)
    hf_hub_download("org/model", "config.json", cache_dir=cache, endpoint=hub.endpoint)
    newer = pull("far:a", accept_change=True).files[0]
    assert (newer.revision, newer.sha256) == (model.resolve("main"), sha256(TOY))


def test_a_change_is_asked_of_the_hub_and_not_of_its_cache(far, hub, cache, model):
    hf_hub_download("org/model", "sub/w.safetensors", cache_dir=cache, endpoint=hub.endpoint)
    model.commit({"sub/w.safetensors": TOY})
    reference = far.variant("a", {"source": [SOURCE]})
    assert pull(reference).files[0].sha256 == sha256(LARGE)
    assert pull(reference, accept_change=True).files[0].sha256 == sha256(TOY)


def test_a_small_file_is_checked_against_its_git_digest(far, hub, cache, model):
    source = "hf://org/model/config.json"
    (file,) = pull(far.variant("a", {"source": [source], "format": "raw"})).files
    assert file.path.read_bytes() == b"{}"
    assert file.digest_from == "hub"


def test_a_hub_that_promises_another_digest_is_not_believed(far, hub, cache, model):
    hub.lies["X-Linked-Etag"] = f'"{"0" * 64}"'
    with pytest.raises(ChecksumError) as error:
        pull(far.variant("a", {"source": [SOURCE]}))
    assert "0" * 64 in error.value.message and sha256(LARGE) in error.value.message
    assert read_manifest("far", "a") is None
    with pytest.raises(ChecksumError) as error:
        pull(far.variant("b", {"source": [SOURCE], "sha256": sha256(LARGE)}))
    assert "the hub says" in error.value.message


@pytest.mark.parametrize(
    "lie", [{"X-Repo-Commit": "../../../evil"}, {"X-Linked-Etag": '"../../evil"'}, {"X-Linked-Etag": '"..."'}]
)
def test_a_hub_that_names_places_outside_writes_nothing(far, hub, cache, model, tmp_path, lie):
    hub.lies.update(lie)
    reference = far.variant("a", {"source": [SOURCE]})
    before = {path for path in tmp_path.rglob("*") if "locks" not in path.parts}
    with pytest.raises(WeightsError):
        pull(reference)
    assert {path for path in tmp_path.rglob("*") if "locks" not in path.parts} - before <= {home()}


def test_a_checkpoint_never_enters_the_cache(far, hub, cache, model, tmp_path):
    checkpoint = toy_checkpoint(tmp_path / "toy.pth", args={"lr": 1.0})
    model.commit({"toy.pth": checkpoint})
    reference = far.variant("a", {"source": ["hf://org/model/toy.pth"], "format": "pytorch"})
    (file,) = pull(reference).files
    assert file.path == blob_path(file.sha256)
    assert file.original.sha256 == sha256(checkpoint)
    assert not [
        path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == len(checkpoint)
    ]
    (kept,) = pull(reference, keep_original=True, repair=["model"]).files
    assert kept.original.path.read_bytes() == checkpoint
    found = hf_hub_download(
        "org/model", "toy.pth", revision=kept.revision, cache_dir=cache, local_files_only=True
    )
    assert str(kept.original.path) == found


def test_the_token_is_shown_to_the_hub_alone(far, hub, cache, monkeypatch):
    secret = hub.repository("org/model", private=True)
    secret.commit({"sub/w.safetensors": LARGE})
    reference = far.variant("a", {"source": [SOURCE]})
    with pytest.raises(LicenceError):
        pull(reference)
    token = hub.login("ann")
    secret.granted.add(token)
    monkeypatch.setenv("HF_TOKEN", token)
    pull(reference)
    assert hub.tokens_shown("hub") == {f"Bearer {token}"}
    assert hub.tokens_shown("cdn") == set()


def test_a_gated_repository_has_three_texts(far, hub, cache, monkeypatch):
    gated = hub.repository("org/model", gated=True)
    gated.commit({"sub/w.safetensors": LARGE})
    reference = far.variant("a", {"source": [SOURCE]})
    absent = far.variant("b", {"source": ["hf://org/model/absent.safetensors"]})
    texts = []
    with pytest.raises(LicenceError) as error:
        pull(reference)
    texts.append((error.value.message, error.value.hint))
    token = hub.login("ann")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(LicenceError) as error:
        pull(reference)
    texts.append((error.value.message, error.value.hint))
    gated.granted.add(token)
    with pytest.raises(NotFound) as error:
        pull(absent)
    texts.append((error.value.message, error.value.hint))
    assert len(set(texts)) == 3
    assert all(hub.endpoint in message + hint for message, hint in texts)
    assert "login" in texts[0][0] and "hf auth login" in texts[0][1]
    assert pull(reference).files[0].verified


def test_the_transfer_survives_the_storage_service(far, hub, cache, model):
    hub.signature_uses = 2
    hub.cdn.fault(drop_after=700_000, times=5)
    assert pull(far.variant("a", {"source": [SOURCE]})).files[0].path.read_bytes() == LARGE
    assert hub.sent() < 1.1 * len(LARGE)


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "ZOO_OFFLINE"])
def test_switched_off(far, hub, cache, model, monkeypatch, switch):
    reference = far.variant("a", {"source": [SOURCE]})
    monkeypatch.setenv(switch, "1")
    with pytest.raises(NetworkError, match=switch) as error:
        pull(reference)
    assert "--from FILE" in error.value.hint
    assert hub.requests == []
    monkeypatch.delenv(switch)
    hf_hub_download("org/model", "sub/w.safetensors", cache_dir=cache, endpoint=hub.endpoint)
    monkeypatch.setenv(switch, "1")
    hub.reset()
    assert pull(reference).files[0].verified
    assert hub.requests == []


def test_a_pulled_model_of_the_hub_runs_without_any_socket(far, hub, cache, model, monkeypatch):
    model.commit({"toy.safetensors": TOY})
    reference = far.variant("a", {"source": ["hf://org/model/toy.safetensors"]})
    pull(reference)

    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(api.sample(reference)) == 1


def test_a_vanished_revision_falls_back_to_a_mirror(far, hub, cache, model):
    hub.cdn.put("/mirror.safetensors", LARGE)
    hub.cdn.clear_faults()
    gone = f"{SOURCE}@{'0' * 40}"
    sources = [gone, hub.cdn.url("/mirror.safetensors")]
    assert pull(far.variant("a", {"source": sources})).files[0].source == sources[1]
    with pytest.raises(NotFound, match="1111111"):
        pull(far.variant("b", {"source": [f"{SOURCE}@{'1' * 40}"]}))
    assert not manifest_path("far", "b").exists()
