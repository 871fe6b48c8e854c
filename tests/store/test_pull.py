"""Pulling: from a card to files that are checked, in their place, and counted only then."""

import socket
import sys
import types

import pytest
from far_models import Listener, large_safetensors, sha256, toy_checkpoint, toy_safetensors
from servers.faulty import FaultyServer

import zoo as api
from zoo.errors import (
    ChecksumError,
    ExitCode,
    InvalidInput,
    LicenceError,
    NetworkError,
    NotFound,
    NotPulled,
    PluginError,
    WeightsError,
)
from zoo.store.layout import blob_path, home, manifest_path, parts
from zoo.store.manifest import read_manifest
from zoo.store.pull import pull

TOY = toy_safetensors()
LARGE = large_safetensors()


@pytest.fixture
def server():
    with FaultyServer({"/toy.safetensors": TOY, "/large.safetensors": LARGE}) as running:
        yield running


def stored_files():
    """Everything in the store but locks, by path."""
    return {
        str(path.relative_to(home())): path
        for path in home().rglob("*")
        if path.is_file() and path.parent.name != "locks"
    }


def test_a_file_with_a_digest_is_verified_and_named_by_it(far, server):
    digest = sha256(LARGE)
    reference = far.variant(
        "a", {"source": [server.url("/large.safetensors")], "sha256": digest, "size": len(LARGE)}
    )
    listener = Listener()
    manifest = pull(reference, watcher=listener)
    (file,) = manifest.files
    assert file.path == blob_path(digest)
    assert file.path.read_bytes() == LARGE
    assert (file.sha256, file.size, file.digest_from, file.verified) == (digest, len(LARGE), "card", True)
    assert manifest == read_manifest("far", "a")
    assert set(stored_files()) == {f"blobs/sha256-{digest}", "models/far/a.json"}
    assert [(planned.role, planned.size, planned.done) for planned in listener.files] == [
        ("model", len(LARGE), 0)
    ]
    assert ("model", len(LARGE), len(LARGE)) in listener.progress
    assert server.sent() == len(LARGE)


def test_what_is_here_costs_no_request(far, server):
    reference = far.variant("a", {"source": [server.url("/toy.safetensors")]})
    first = pull(reference)
    server.reset()
    assert pull(reference) == first
    assert server.requests == []


def test_a_pulled_model_runs_without_any_socket(far, server, monkeypatch):
    reference = far.variant("a", {"source": [server.url("/toy.safetensors")]})
    pull(reference)

    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    (image,) = api.sample(reference)
    assert image.pixels.shape[1:] == (8, 8)


def test_the_first_pull_of_a_file_without_digest_is_believed_and_held_against_later_ones(far, server, zoo):
    reference = far.variant("a", {"source": [server.url("/toy.safetensors")]})
    manifest = pull(reference)
    assert manifest.files[0].digest_from == "first pull"
    assert not manifest.files[0].verified
    manifest_path("far", "a").unlink()
    blob_path(sha256(TOY)).unlink()
    server.put("/toy.safetensors", LARGE)
    with pytest.raises(ChecksumError) as error:
        pull(reference)
    assert error.value.exit_code == ExitCode.CHECKSUM == 4
    assert sha256(TOY) in error.value.message
    assert sha256(LARGE) in error.value.message
    assert "--accept-change" in error.value.hint
    assert (parts() / f"sha256-{sha256(LARGE)}.bad").read_bytes() == LARGE
    assert read_manifest("far", "a") is None
    assert pull(reference, accept_change=True).files[0].sha256 == sha256(LARGE)
    assert pull(reference).files[0].sha256 == sha256(LARGE)


@pytest.mark.parametrize("fault", [{"flip_at": 1000}, {"flip_at": len(LARGE) - 1}])
def test_other_content_than_the_card_promises_is_refused_and_kept(far, server, fault):
    server.fault(**fault)
    reference = far.variant("a", {"source": [server.url("/large.safetensors")], "sha256": sha256(LARGE)})
    with pytest.raises(ChecksumError) as error:
        pull(reference)
    flipped = bytearray(LARGE)
    (bad,) = parts().glob("*.bad")
    assert f"expected sha256 {sha256(LARGE)}, got {sha256(bad.read_bytes())}" in error.value.message
    assert str(bad) in error.value.hint
    assert sum(a != b for a, b in zip(flipped, bad.read_bytes(), strict=True)) == 1
    assert set(stored_files()) == {f"parts/{bad.name}"}
    assert server.sent() == pytest.approx(2 * len(LARGE), rel=0.01)


def test_a_wrong_digest_in_the_card_keeps_the_file_until_the_card_is_right(far, server):
    source = [server.url("/large.safetensors")]
    with pytest.raises(ChecksumError) as error:
        pull(far.variant("a", {"source": source, "sha256": "0" * 64}))
    assert "0" * 64 in error.value.message
    assert sha256(LARGE) in error.value.message
    server.reset()
    manifest = pull(far.variant("a", {"source": source, "sha256": sha256(LARGE)}))
    assert manifest.files[0].path.read_bytes() == LARGE
    assert server.sent() == 0


def test_a_proxy_that_mixes_up_ranges_is_asked_on_one_connection(far, server):
    listener = Listener()

    def is_first_attempt(request):
        return not any("on one connection" in text for text in listener.texts)

    server.fault(ranges="later", flip_at=2_000_000, when=is_first_attempt)
    reference = far.variant("a", {"source": [server.url("/large.safetensors")], "sha256": sha256(LARGE)})
    assert pull(reference, watcher=listener).files[0].sha256 == sha256(LARGE)
    assert any("on one connection" in text for text in listener.texts)


def test_a_size_that_differs_is_refused(far, server):
    reference = far.variant("a", {"source": [server.url("/large.safetensors")], "size": len(LARGE) + 1})
    with pytest.raises(ChecksumError, match=f"{len(LARGE)} bytes, expected {len(LARGE) + 1}"):
        pull(reference)
    assert server.sent() < len(LARGE)


def test_mirrors_are_asked_in_order(far, server):
    with FaultyServer({}) as gone:
        nobody = gone.url("/x.safetensors")
    missing = server.url("/missing.safetensors")
    here = server.url("/toy.safetensors")
    listener = Listener()
    manifest = pull(far.variant("a", {"source": [nobody, missing, here]}), watcher=listener)
    assert manifest.files[0].source == here
    assert manifest.files[0].path.read_bytes() == TOY
    with pytest.raises(NetworkError) as error:
        pull(far.variant("b", {"source": [f"{nobody}.other", missing]}))
    assert missing in error.value.hint


def test_a_mirror_goes_on_with_the_part_of_another(far, server):
    with FaultyServer({"/large.safetensors": LARGE}) as first:
        first.fault(after_bytes=3 << 20, drop_after=0)
        source = [first.url("/large.safetensors"), server.url("/large.safetensors")]
        file = {"source": source, "sha256": sha256(LARGE), "size": len(LARGE)}
        assert pull(far.variant("a", file)).files[0].path.read_bytes() == LARGE
        assert first.sent() + server.sent() < 1.1 * len(LARGE)


def test_nobody_can_be_reached(far):
    with FaultyServer({}) as gone:
        address = gone.url("/toy.safetensors")
    reference = far.variant("a", {"source": [address]})
    with pytest.raises(NetworkError) as error:
        pull(reference)
    assert address in error.value.message
    assert "\n" not in error.value.message
    assert f"zoo pull {reference} --from FILE" in error.value.hint


@pytest.mark.parametrize(
    ("status", "kind", "code"), [(401, LicenceError, 5), (403, LicenceError, 5), (404, NotFound, 3)]
)
def test_refusals_have_texts_of_their_own(far, server, status, kind, code):
    server.fault(status=status)
    with pytest.raises(kind) as error:
        pull(far.variant("a", {"source": [server.url("/toy.safetensors")]}))
    assert error.value.exit_code == code
    assert server.url("/toy.safetensors") in error.value.message
    assert error.value.hint


def test_a_server_that_answers_no_head(far, server):
    server.fault(no_head=True)
    assert pull(far.variant("a", {"source": [server.url("/toy.safetensors")]})).files[0].size == len(TOY)


def test_switched_off(far, server, monkeypatch):
    reference = far.variant("a", {"source": [server.url("/toy.safetensors")]})
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(NetworkError, match="ZOO_OFFLINE"):
        pull(reference)
    assert server.requests == []
    monkeypatch.delenv("ZOO_OFFLINE")
    pull(reference)
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert pull(reference).files


def test_terms_come_before_the_first_byte_and_once(far, server):
    licence = 'licence = { weights = "Research only", url = "https://example.org/terms", accept = true }'
    reference = far.variant("a", {"source": [server.url("/toy.safetensors")]}, licence=licence)
    with pytest.raises(LicenceError, match="Research only"):
        pull(reference)
    assert server.requests == []
    shown = []
    pull(reference, accept_licence=lambda terms: shown.append(terms) or True)
    assert [terms.url for terms in shown] == ["https://example.org/terms"]
    manifest_path("far", "a").unlink()
    pull(reference)
    assert len(shown) == 1


def test_a_checkpoint_is_converted_and_its_original_dropped(far, server, tmp_path):
    checkpoint = toy_checkpoint(tmp_path / "toy.pth")
    server.put("/toy.pth", checkpoint)
    reference = far.variant(
        "a", {"source": [server.url("/toy.pth")], "format": "pytorch", "sha256": sha256(checkpoint)}
    )
    (file,) = pull(reference).files
    assert file.format == "safetensors"
    assert file.sha256 == sha256(file.path.read_bytes())
    assert (file.original.sha256, file.original.size, file.original.path) == (
        sha256(checkpoint),
        len(checkpoint),
        None,
    )
    assert set(stored_files()) == {f"blobs/sha256-{file.sha256}", "models/far/a.json"}
    (image,) = api.sample(reference)
    assert image.pixels.shape[1:] == (8, 8)


def test_an_original_is_kept_on_demand(far, server, tmp_path):
    checkpoint = toy_checkpoint(tmp_path / "toy.pth")
    server.put("/toy.pth", checkpoint)
    reference = far.variant("a", {"source": [server.url("/toy.pth")], "format": "pytorch"})
    (file,) = pull(reference, keep_original=True).files
    assert file.original.path == blob_path(sha256(checkpoint))
    assert file.original.path.read_bytes() == checkpoint
    assert pull(reference).files == (file,)


def test_tensors_are_taken_from_between_foreign_classes(far, server, tmp_path, monkeypatch):
    module = types.ModuleType("stranger")
    module.Arguments = type("Arguments", (), {"__module__": "stranger"})
    monkeypatch.setitem(sys.modules, "stranger", module)
    checkpoint = toy_checkpoint(tmp_path / "toy.pth", args=module.Arguments(), batch_num=3)
    monkeypatch.delitem(sys.modules, "stranger")
    server.put("/toy.pth", checkpoint)
    reference = far.variant("a", {"source": [server.url("/toy.pth")], "format": "pytorch"})
    pull(reference)
    assert "stranger" not in sys.modules
    (image,) = api.sample(reference)
    assert image.pixels.shape[1:] == (8, 8)


def test_the_card_says_which_entry_of_a_checkpoint_is_meant(far, server, tmp_path):
    import torch
    from safetensors.torch import load_file
    from toy_method import tensors

    wrong = {name: value + 1 for name, value in tensors().items()}
    torch.save({"model": wrong, "ema": tensors()}, tmp_path / "toy.pth")
    server.put("/toy.pth", tmp_path / "toy.pth")
    file = {"source": [server.url("/toy.pth")], "format": "pytorch"}
    with pytest.raises(WeightsError, match="several of its entries hold tensors: 'ema', 'model'"):
        pull(far.variant("a", file))
    (stored,) = pull(far.variant("b", {**file, "entry": "ema"})).files
    assert torch.equal(load_file(stored.path)["linear.weight"], tensors()["linear.weight"])


def test_a_checkpoint_of_another_shape_is_no_pulled_model(far, server, tmp_path):
    import torch

    torch.save({"linear.weight": torch.eye(5)}, tmp_path / "toy.pth")
    server.put("/toy.pth", tmp_path / "toy.pth")
    reference = far.variant("a", {"source": [server.url("/toy.pth")], "format": "pytorch"})
    with pytest.raises(WeightsError, match=r"linear\.weight"):
        pull(reference)
    assert read_manifest("far", "a") is None


@pytest.mark.parametrize("format", ["safetensors", "pytorch"])
def test_a_login_page_is_not_taken_for_weights(far, server, format):
    server.put("/toy", b"<!DOCTYPE html><html>Please log in</html>")
    reference = far.variant("a", {"source": [server.url("/toy")], "format": format})
    with pytest.raises(WeightsError, match="HTML"):
        pull(reference)
    server.put("/toy", TOY)
    assert pull(reference).files[0].sha256 == sha256(TOY) or format == "pytorch"


def test_a_file_fetched_by_hand(far, server, tmp_path):
    mine = tmp_path / "mine.bin"
    mine.write_bytes(LARGE)
    file = {"source": ["https://example.org/large.safetensors"], "sha256": sha256(LARGE)}
    manifest = pull(far.variant("a", file), given={"model": mine})
    assert manifest.files[0].path.read_bytes() == LARGE
    assert manifest.files[0].verified
    assert mine.exists()
    mine.write_bytes(TOY)
    with pytest.raises(ChecksumError) as error:
        pull(far.variant("b", file), given={"model": mine})
    assert sha256(TOY) in error.value.message
    assert "left as it is" in error.value.hint
    with pytest.raises(InvalidInput, match="no file of role 'vae'"):
        pull("far:b", given={"vae": mine})
    with pytest.raises(InvalidInput, match="no such file"):
        pull("far:b", given={"model": tmp_path / "absent"})


def test_a_checkpoint_fetched_by_hand_is_converted(far, tmp_path):
    toy_checkpoint(tmp_path / "mine.pth", args={"lr": 1})
    reference = far.variant("a", {"source": ["https://example.org/toy.pth"], "format": "pytorch"})
    (file,) = pull(reference, given={"model": tmp_path / "mine.pth"}).files
    assert file.original.sha256 == sha256((tmp_path / "mine.pth").read_bytes())
    assert pull(reference).files == (file,)
    assert len(api.sample(reference)) == 1


def test_files_of_this_machine(far, tmp_path):
    (tmp_path / "my weights.safetensors").write_bytes(TOY)
    source = (tmp_path / "my weights.safetensors").as_uri()
    manifest = pull(far.variant("a", {"source": [source]}))
    assert manifest.files[0].path.read_bytes() == TOY
    (tmp_path / "my weights.safetensors").unlink()
    assert pull("far:a") == manifest


def test_several_files(far, server, tmp_path):
    server.put("/vocabulary.txt", b"one\ntwo\n")
    reference = far.variant(
        "a",
        {"source": [server.url("/toy.safetensors")]},
        {"role": "tokenizer", "format": "raw", "source": [server.url("/vocabulary.txt")]},
    )
    manifest = pull(reference)
    assert [file.role for file in manifest.files] == ["model", "tokenizer"]
    assert manifest.files[1].path.read_bytes() == b"one\ntwo\n"
    server.reset()
    pull(reference, repair=["tokenizer"])
    assert {request.path for request in server.requests} == set()
    manifest.files[1].path.unlink()
    pull(reference)
    assert {request.path for request in server.requests} == {"/vocabulary.txt"}


def test_content_that_two_variants_share_is_fetched_once(far, server):
    file = {"source": [server.url("/large.safetensors")], "sha256": sha256(LARGE), "size": len(LARGE)}
    pull(far.variant("a", file))
    server.reset()
    assert pull(far.variant("b", file)).files[0].path == blob_path(sha256(LARGE))
    assert server.requests == []


def test_a_card_that_changed_is_pulled_anew(far, server):
    pull(far.variant("a", {"source": [server.url("/toy.safetensors")]}))
    manifest = pull(far.variant("a", {"source": [server.url("/large.safetensors")], "sha256": sha256(LARGE)}))
    assert manifest.files[0].sha256 == sha256(LARGE)


def test_variants_without_published_weights_and_built_in_ones(toy):
    with pytest.raises(NotPulled, match="nobody has published"):
        pull("toy:unpublished")
    manifest = pull("toy:shapes")
    assert manifest.files[0].path.name == "toy.safetensors"
    assert not manifest_path("toy", "shapes").exists()
    with pytest.raises(NotFound):
        pull("toy:absent")


def test_a_plugin_brings_what_the_core_does_not(far, toy_site, monkeypatch, tmp_path):
    package = tmp_path / "site" / "zoo_tape"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from zoo import hookimpl\n"
        "@hookimpl\n"
        "def fetch(source, destination, progress):\n"
        "    if source.startswith('tape://'):\n"
        f"        destination.write_bytes({TOY!r})\n"
        "        progress(3, 9)\n"
        "        return True\n"
    )
    info = tmp_path / "site" / "zoo_tape-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-tape\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\ntape = zoo_tape\n")
    reference = far.variant("a", {"source": ["tape://reel/7"]})
    with pytest.raises(PluginError, match="no plugin fetches tape://"):
        pull(reference)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("zoo.session._default", None)
    listener = Listener()
    manifest = pull(reference, watcher=listener)
    assert manifest.files[0].path.read_bytes() == TOY
    assert ("model", 3, 9) in listener.progress


def test_a_damaged_manifest_is_made_anew(far, server):
    reference = far.variant("a", {"source": [server.url("/toy.safetensors")]})
    manifest = pull(reference)
    manifest_path("far", "a").write_text("{")
    assert pull(reference).files == manifest.files
