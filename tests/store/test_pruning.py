"""Pruning: what counts as left over, and everything that must never be taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_store import Shelf, age, sha256, shelf, tree

from zoo.store import pruning
from zoo.store.download.parts import Part, journal_path
from zoo.store.layout import blob_path, blobs, home, manifest_path, manifests, parts
from zoo.store.locks import variant_lock
from zoo.store.manifest import read_manifest
from zoo.store.pruning import leftovers, prune
from zoo.store.verifying import verify

__all__ = ["shelf"]

TOKEN = "0123456789ab"


def part(path: Path, content: bytes = b"half of it") -> Path:
    """An unfinished download as a killed pull leaves it."""
    with Part(path, "https://example.org/x") as open_part:
        open_part.write(0, content)
    return path


def rubbish(shelf: Shelf) -> dict[Path, str]:
    """One of each kind, two hours old."""
    cached = shelf.cache / "models--acme--model" / "blobs"
    made = {
        part(parts() / "url-1.part"): "part",
        part(cached / f"{'a' * 64}.zoo-part"): "part",
        shelf.file(parts() / f"sha256-{'b' * 64}.bad"): "refused",
        shelf.file(cached / f"{'c' * 64}.bad"): "refused",
        shelf.file(cached / f"{'d' * 64}.zoo-part.bad"): "refused",
        shelf.blob(b"nobody's"): "orphan",
        shelf.file(manifests() / "shelf" / f".one.json-{TOKEN}.part"): "temporary",
        shelf.file(home() / f".licences.json-{TOKEN}.part"): "temporary",
        shelf.file(blobs() / f".convert-{TOKEN}cdef.part"): "temporary",
        shelf.file(parts() / ".url-1.part.journal.part"): "temporary",
        shelf.file(cached / f".{TOKEN}.zoo-part"): "temporary",
    }
    age(*made, *(path for path in map(journal_path, made) if path.exists()))
    return made


def everything(shelf: Shelf) -> dict[str, bytes]:
    """Every file of the store and of the Hugging Face cache."""
    cached = {str(path): path.read_bytes() for path in shelf.cache.rglob("*") if path.is_file()}
    return {**tree(), **cached}


def test_every_kind_is_found_and_removed(shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", b"kept", original=shelf.original(b"kept too")))
    age(blob_path(sha256(b"kept")), blob_path(sha256(b"kept too")))
    before = everything(shelf)
    made = rubbish(shelf)
    sizes = sum(map(len, everything(shelf).values())) - sum(map(len, before.values()))
    found = leftovers()
    assert {item.path: item.kind for item in found} == made
    assert all(item.kept is None for item in found)
    done = prune(found)
    assert done.freed == sum(item.size for item in found) == sizes
    assert {item.path for item in done.removed} == set(made)
    assert everything(shelf) == before
    assert leftovers() == []


def test_listing_changes_nothing_and_makes_no_folders(shelf: Shelf) -> None:
    assert leftovers(originals=True, everything=True) == []
    assert not home().exists()


def test_young_files_stay_unless_all_are_wanted(shelf: Shelf) -> None:
    made = rubbish(shelf)
    young = [parts() / "url-1.part", blob_path(sha256(b"nobody's"))]
    age(*young, hours=0.5)
    found = leftovers()
    assert {item.path: item.kept for item in found if item.kept} == dict.fromkeys(
        young, "it changed within the last hour"
    )
    done = prune(found)
    assert {item.path for item in done.kept} == set(young)
    assert {item.path for item in done.removed} == set(made) - set(young)
    assert {item.path for item in prune(leftovers(everything=True), everything=True).removed} == set(young)


def test_a_part_is_as_young_as_its_journal(shelf: Shelf) -> None:
    old = part(parts() / "url-1.part")
    age(old)
    [item] = leftovers()
    assert item.files == (old, journal_path(old))
    assert item.kept == "it changed within the last hour"


def test_a_journal_without_its_part_is_left_over_too(shelf: Shelf) -> None:
    journal = journal_path(part(parts() / "url-1.part"))
    (parts() / "url-1.part").unlink()
    age(journal)
    [item] = prune(leftovers()).removed
    assert (item.path, item.files) == (parts() / "url-1.part", (journal,))
    assert tree() == {}


def test_while_something_is_pulled_only_refused_files_go(shelf: Shelf) -> None:
    made = rubbish(shelf)
    with variant_lock("shelf", "two"):
        done = prune(leftovers(everything=True), everything=True)
        assert {made[item.path] for item in done.removed} == {"refused"}
        assert {item.kept for item in done.kept} == {"shelf:two is being pulled and may need it"}
        assert len(done.kept) == len(made) - 3
    assert len(prune(leftovers()).removed) == len(made) - 3


def test_a_pull_that_begins_meanwhile_waits(shelf: Shelf, monkeypatch) -> None:
    rubbish(shelf)
    with variant_lock("shelf", "two"):
        pass
    held = []

    def removing(item):
        def busy():
            held.append(True)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), variant_lock("shelf", "two", busy):
            pass
        return 0

    monkeypatch.setattr(pruning, "_remove", removing)
    prune(leftovers())
    assert len(held) == 11


def test_what_was_needed_again_since_it_was_listed_stays(shelf: Shelf) -> None:
    rubbish(shelf)
    found = leftovers()
    shelf.pull("one", b"nobody's")
    shelf.file(parts() / "url-1.part", b"going on")
    done = prune(found)
    assert blob_path(sha256(b"nobody's")).exists()
    assert (parts() / "url-1.part").exists()
    assert [item.path for item in done.kept] == [parts() / "url-1.part"]


def test_orphans_stay_while_a_manifest_cannot_be_read(shelf: Shelf) -> None:
    made = rubbish(shelf)
    shelf.file(manifest_path("shelf", "two"), b"not json")
    done = prune(leftovers())
    assert [(item.kind, item.kept) for item in done.kept] == [
        ("orphan", "shelf:two cannot be read and may use it")
    ]
    assert len(done.removed) == len(made) - 1


def test_names_that_zoo_does_not_give_are_left_alone(shelf: Shelf, tmp_path) -> None:
    outside = shelf.file(tmp_path / "outside" / f"sha256-{'e' * 64}")
    cached = shelf.cache / "models--acme--model" / "blobs"
    foreign = [
        shelf.file(blobs() / "sha256-abc"),
        shelf.file(blobs() / "README"),
        shelf.file(blobs() / f"sha256-{'e' * 64}.bad"),
        shelf.file(blobs() / "folder" / f"sha256-{'e' * 64}"),
        shelf.file(parts() / "notes.txt"),
        shelf.file(parts() / "folder" / "x.part"),
        shelf.file(home() / "x.part"),
        shelf.file(home() / "thesis.bad"),
        shelf.file(home() / ".hidden"),
        shelf.file(home() / "locks" / "store.lock"),
        shelf.file(cached / f"{'e' * 64}.incomplete"),
        shelf.file(cached / ("e" * 64)),
        shelf.file(shelf.cache / "datasets--a--b" / "blobs" / f"{'e' * 64}.zoo-part"),
    ]
    links = [blobs() / f"sha256-{'f' * 64}", parts() / "link.part", parts() / "link.bad"]
    for link in links:
        link.symlink_to(outside)
    age(*foreign, *links, outside)
    assert leftovers(everything=True) == []
    assert prune(leftovers(everything=True)).removed == ()
    assert outside.exists() and all(link.is_symlink() for link in links)


@pytest.mark.parametrize("name", ["blobs", "parts"])
def test_a_folder_that_leads_out_of_the_store_is_not_entered(shelf: Shelf, tmp_path, name) -> None:
    outside = shelf.file(tmp_path / "outside" / f"sha256-{'e' * 64}").parent
    shelf.file(outside / "x.part")
    home().mkdir(exist_ok=True)
    (home() / name).symlink_to(outside)
    assert leftovers(everything=True) == []


def test_a_store_behind_a_link_is_pruned_and_knows_its_own(shelf: Shelf, tmp_path, monkeypatch) -> None:
    shelf.pull("one", b"kept")
    shelf.blob(b"nobody's")
    (tmp_path / "link").symlink_to(home())
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "link"))
    [item] = prune(leftovers(everything=True), everything=True).removed
    assert item.path == blob_path(sha256(b"nobody's"))
    assert blob_path(sha256(b"kept")).read_bytes() == b"kept"


def test_a_manifest_protects_a_file_under_any_name(shelf: Shelf) -> None:
    named = [shelf.file(parts() / "x.part"), shelf.file(parts() / "y.bad")]
    shelf.pull("pair", *(shelf.stored(f"role{i}", b"", path=path) for i, path in enumerate(named)))
    assert leftovers(everything=True) == []


def test_originals_are_kept_until_they_are_asked_for(shelf: Shelf) -> None:
    ours, theirs = shelf.cached(b"cached", name="a.pth"), shelf.cached(b"shared", name="b.pth")
    shelf.pull(
        "pair",
        shelf.stored("model", b"m", original=shelf.original(b"blob")),
        shelf.stored("extra", b"e", original=shelf.original(b"cached", ours)),
        shelf.stored("more", b"x", original=shelf.original(b"shared", theirs, shared=True)),
    )
    assert leftovers(everything=True) == []
    done = prune(leftovers(originals=True))
    assert {(item.kind, item.path) for item in done.removed} == {
        ("original", blob_path(sha256(b"blob"))),
        ("original", ours),
    }
    assert done.freed == len(b"blob") + len(b"cached")
    manifest = read_manifest("shelf", "pair")
    assert [file.original.path for file in manifest.files] == [None, None, theirs]
    assert [file.original.sha256 for file in manifest.files] == [
        sha256(content) for content in (b"blob", b"cached", b"shared")
    ]
    assert not ours.is_symlink() and theirs.read_bytes() == b"shared"
    assert [check.status for check in verify(["shelf:pair"])] == ["ok"] * 4
    assert leftovers(originals=True, everything=True) == []


def test_an_original_that_is_a_models_file_stays(shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", b"converted", original=shelf.original(b"both")))
    shelf.pull("two", b"both")
    done = prune(leftovers(originals=True))
    assert (done.removed, [item.kept for item in done.kept]) == ((), ["shelf:two uses it"])
    assert blob_path(sha256(b"both")).exists()
    assert read_manifest("shelf", "one").files[0].original.path is not None


def test_an_original_of_two_variants_goes_from_both(shelf: Shelf) -> None:
    for variant in ("one", "two"):
        shelf.pull(variant, shelf.stored("model", variant.encode(), original=shelf.original(b"both")))
    [item] = prune(leftovers(originals=True)).removed
    assert item.size == 4
    for variant in ("one", "two"):
        assert read_manifest("shelf", variant).files[0].original.path is None


def test_an_original_that_is_gone_already_is_forgotten(shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", b"m", original=shelf.original(b"gone")))
    blob_path(sha256(b"gone")).unlink()
    assert prune(leftovers(originals=True)).freed == 0
    assert read_manifest("shelf", "one").files[0].original.path is None


def test_no_manifest_names_a_file_that_a_killed_prune_removed(shelf: Shelf, monkeypatch) -> None:
    shelf.pull("one", shelf.stored("model", b"m", original=shelf.original(b"download")))

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning, "delete_file", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(leftovers(originals=True))
    assert read_manifest("shelf", "one").files[0].original.path is None


def test_what_cannot_be_removed_is_told(shelf: Shelf, monkeypatch) -> None:
    rubbish(shelf)

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    done = prune(leftovers())
    assert done.removed == () and done.freed == 0
    assert {item.kept for item in done.kept} == {"it cannot be removed: permission denied"}
