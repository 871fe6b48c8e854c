"""Removing pulled variants: what goes, what stays and why, and what a crash or another process may do."""

from __future__ import annotations

import mmap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from toy_store import Shelf, sha256, shelf, tree, weights

from zoo.catalogue import load_catalogue, state_of
from zoo.errors import InvalidInput, NotFound, NotPulled
from zoo.store import removal
from zoo.store.layout import blob_path, home, manifest_path
from zoo.store.locate import is_pulled, pulled_here
from zoo.store.locks import store_lock, variant_lock
from zoo.store.manifest import Manifest, write_manifest
from zoo.store.removal import Kept, remove

__all__ = ["shelf"]


def test_a_variant_goes_with_every_file_that_is_its_own(shelf: Shelf) -> None:
    original = shelf.original(b"the download")
    shelf.pull("one", shelf.stored("model", b"abc", original=original))
    shelf.pull("two", b"defgh")
    done = remove(["shelf:one"])
    assert done == removal.Removal(("shelf:one",), len(b"abc") + len(b"the download"), ())
    assert sorted(tree()) == [f"blobs/sha256-{sha256(b'defgh')}", "models/shelf/two.json"]


def test_a_file_of_two_variants_stays_until_the_last_goes(shelf: Shelf) -> None:
    for variant in ("one", "two"):
        shelf.pull(variant, b"same")
    first = remove(["shelf:one"])
    path = str(blob_path(sha256(b"same")))
    assert (first.freed, first.kept) == (0, (Kept(path, "shelf:two uses it"),))
    assert remove(["shelf:two"]).freed == 4
    assert tree() == {}


def test_variants_that_are_removed_together_keep_nothing_for_each_other(shelf: Shelf) -> None:
    for variant in ("one", "two"):
        shelf.pull(variant, b"same")
    done = remove(["shelf:two", ("shelf", "one"), "shelf"])
    assert done == removal.Removal(("shelf:one", "shelf:two"), 4, ())
    assert tree() == {}


def test_a_kept_download_that_is_another_variants_file_stays(shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", b"converted", original=shelf.original(b"both")))
    shelf.pull("two", b"both")
    done = remove(["shelf:one"])
    assert done.freed == len(b"converted")
    assert [kept.reason for kept in done.kept] == ["shelf:two uses it"]
    assert blob_path(sha256(b"both")).read_bytes() == b"both"


def test_a_dry_run_says_the_same_and_changes_nothing(shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", b"own"), shelf.stored("extra", b"same"))
    shelf.pull("two", b"same")
    before = tree()
    told = remove(["shelf:one"], dry_run=True)
    assert tree() == before
    assert not (home() / "locks").exists()
    assert told == remove(["shelf:one"])
    assert told.freed == 3


def test_files_of_the_hugging_face_cache(shelf: Shelf) -> None:
    ours, theirs = shelf.cached(b"ours", name="a.bin"), shelf.cached(b"theirs", name="b.bin")
    shelf.pull(
        "pair",
        shelf.stored("model", b"ours", path=ours),
        shelf.stored("extra", b"theirs", path=theirs, shared=True),
    )
    done = remove(["shelf:pair"])
    assert (done.freed, not ours.is_symlink()) == (4, True)
    assert done.kept == (Kept(str(theirs), "it was there before zoo used it"),)
    assert theirs.read_bytes() == b"theirs"
    assert sorted(path.name for path in (shelf.cache / "models--acme--model" / "blobs").iterdir()) == [
        sha256(b"theirs")
    ]


def test_a_file_of_the_cache_that_another_variant_names_stays(shelf: Shelf) -> None:
    pointer = shelf.cached(b"both")
    for variant in ("one", "two"):
        shelf.pull(variant, shelf.stored("model", b"both", path=pointer))
    assert remove(["shelf:one"]).kept == (Kept(str(pointer), "shelf:two uses it"),)
    assert pointer.read_bytes() == b"both"
    assert remove(["shelf:two"]).freed == 4


def test_nothing_but_blobs_and_cached_files_is_ever_deleted(shelf: Shelf, tmp_path) -> None:
    """A manifest is a file that anybody may have written."""
    elsewhere = shelf.file(tmp_path / "mine" / "thesis.txt")
    record = shelf.file(home() / "licences.json", b"{}")
    odd = shelf.file(home() / "blobs" / "notes.txt")
    shelf.pull(
        "one",
        *(shelf.stored(f"role{i}", b"", path=path) for i, path in enumerate((elsewhere, record, odd))),
    )
    done = remove(["shelf:one"])
    assert done.freed == 0
    assert [kept.path for kept in done.kept] == [str(elsewhere), str(record), str(odd)]
    assert all(path.exists() for path in (elsewhere, record, odd))


def test_a_damaged_manifest_is_removed_and_its_files_are_left(shelf: Shelf) -> None:
    blob = shelf.blob(b"whose?")
    shelf.file(manifest_path("shelf", "one"), b"{")
    done = remove(["shelf:one"])
    assert done.removed == ("shelf:one",)
    assert not is_pulled("shelf", "one")
    assert blob.exists()
    assert done.warnings == (
        "the manifest of shelf:one could not be read, so its files stay; zoo prune finds them",
    )


def test_while_another_manifest_is_damaged_every_blob_stays(shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    shelf.file(manifest_path("shelf", "two"), b"[]")
    done = remove(["shelf:one"])
    assert done.freed == 0
    assert [kept.reason for kept in done.kept] == ["shelf:two cannot be read and may use it"]
    [warning] = done.warnings
    assert "two.json: is damaged" in warning
    assert "zoo rm shelf:two forgets it" in warning
    assert blob_path(sha256(b"abc")).exists()


def test_a_folder_of_manifests_that_cannot_be_listed_may_name_every_blob(shelf: Shelf, tmp_path) -> None:
    shelf.pull("one", b"abc")
    (home() / "models" / "unmounted").symlink_to(tmp_path / "nowhere")
    done = remove(["shelf:one"])
    assert (done.freed, len(done.kept)) == (0, 1)
    assert "unmounted: cannot be read" in done.warnings[0]


def test_what_cannot_be_removed_is_refused_before_anything_is(shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    for reference, error, text in (
        ("shelf:built", InvalidInput, "shelf:built is built in"),
        ("tarflow:shapes", InvalidInput, "tarflow:shapes is built in"),
        ("shelf:two", NotPulled, "shelf:two is not pulled"),
        (("shelf", "two"), NotPulled, "shelf:two is not pulled"),
        ("shelf:none", NotFound, "no model is called 'shelf:none'"),
    ):
        with pytest.raises(error, match=text):
            remove(["shelf:one", reference])
    assert is_pulled("shelf", "one")


def test_a_former_name_means_the_variant(shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    catalogue = load_catalogue()
    assert remove(["shelf:former"], catalogue=catalogue).removed == ("shelf:one",)
    assert catalogue.warnings == ["shelf:former is now called shelf:one"]


def test_a_variant_is_removed_without_its_card(shelf: Shelf) -> None:
    shelf.pull("one", b"abc", method="vanished")
    with pytest.raises(NotFound) as caught:
        remove(["vanished"])
    assert "pulled are: vanished:one" in caught.value.hint
    assert remove(["vanished:one"]).freed == 3


def test_a_loaded_model_keeps_its_weights(shelf: Shelf) -> None:
    shelf.pull("one", weights())
    with blob_path(sha256(weights())).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    remove(["shelf:one"])
    assert mapped[:] == weights()
    mapped.close()


def test_a_crash_leaves_no_model_that_only_looks_pulled(shelf: Shelf, monkeypatch) -> None:
    shelf.pull("one", b"abc")
    shelf.pull("two", b"defgh")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(removal, "delete_file", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(["shelf:one"])
    assert [manifest.reference for manifest in pulled_here().manifests] == ["shelf:two"]
    assert blob_path(sha256(b"abc")).exists()


def test_it_waits_for_a_pull_of_the_same_variant(shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    waited = threading.Event()
    with ThreadPoolExecutor() as threads:
        with variant_lock("shelf", "one"):
            removing = threads.submit(remove, ["shelf:one"], waiting=waited.set)
            assert waited.wait(30)
            assert is_pulled("shelf", "one")
        assert removing.result().freed == 3


def test_no_manifest_ever_names_a_file_that_was_removed(shelf: Shelf) -> None:
    """Two variants share a file; one is removed again and again while the other comes and goes."""
    content = b"shared by both"
    model = shelf.stored("model", content)
    one, two = (Manifest("shelf", name, "", "", (model,)) for name in ("one", "two"))

    def pull(manifest: Manifest) -> None:
        """What a pull does at its end: the file first, then the manifest if the file is still there."""
        with variant_lock(manifest.method, manifest.variant):
            shelf.blob(content)
            with store_lock():
                if model.path.is_file():
                    write_manifest(manifest)

    def come_and_go() -> None:
        for _ in range(30):
            pull(two)
            if is_pulled("shelf", "two"):
                remove([("shelf", "two")])

    with ThreadPoolExecutor() as threads:
        other = threads.submit(come_and_go)
        for _ in range(30):
            pull(one)
            with store_lock():
                for manifest in pulled_here().manifests:
                    assert all(file.path.is_file() for file in manifest.files)
            if is_pulled("shelf", "one"):
                remove([("shelf", "one")])
        other.result()


def test_the_state_follows(shelf: Shelf) -> None:
    card, variant = load_catalogue().resolve("shelf:one")
    states = [state_of(card, variant)]
    shelf.pull("one", b"abc")
    states.append(state_of(card, variant))
    remove(["shelf"])
    assert [*states, state_of(card, variant)] == ["published", "pulled", "published"]
