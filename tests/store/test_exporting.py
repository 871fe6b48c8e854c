"""Exporting a model to a plain folder, and reading that folder elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from toy_store import COMMIT, Shelf, age, sha256, shelf, weights

from zoo.cards import parse_card
from zoo.catalogue import Catalogue, load_catalogue
from zoo.errors import CardError, ChecksumError, DoesNotFit, NotPulled, OutputExists, WeightsError, ZooError
from zoo.runtime.model import load
from zoo.store import exporting, locate
from zoo.store.exporting import ExportedFile, export
from zoo.store.layout import blob_path, home, manifest_path
from zoo.store.manifest import read_manifest

__all__ = ["shelf"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder that is not there yet, in one that holds nothing else."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "exported"


def test_a_pulled_variant_becomes_a_folder(shelf: Shelf, target: Path) -> None:
    content = weights(1)
    shelf.pull("pair", shelf.stored("model", content), shelf.stored("extra", b"x", digest_from="first pull"))
    done = export("shelf:pair", target)
    assert done.reference == "shelf:pair" and done.size == len(content) + 1
    assert done.files == (
        ExportedFile("model", target / "model.safetensors", sha256(content), len(content), True),
        ExportedFile("extra", target / "extra.safetensors", sha256(b"x"), 1, False),
    )
    assert names(target) == ["card.json", "extra.safetensors", "model.safetensors"]
    assert (target / "model.safetensors").read_bytes() == content
    assert names(target.parent) == ["exported"]


def test_the_copy_is_nobody_elses_file(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    export("shelf:one", target)
    copy = target / "model.safetensors"
    assert copy.stat().st_nlink == 1
    copy.write_bytes(b"edited")
    assert blob_path(sha256(b"abc")).read_bytes() == b"abc"


def test_the_card_is_what_show_says_without_this_machine(shelf: Shelf, target: Path, tmp_path: Path) -> None:
    shelf.pull("one", b"abc")
    export("shelf:one", target)
    card = json.loads((target / "card.json").read_text(encoding="utf-8"))
    assert (card["reference"], card["architecture"], card["config"]) == ("shelf:one", "toy", {"size": 8})
    assert card["files"][0]["source"] == ["https://example.org/one.safetensors"]
    assert card["exported"] == [
        {
            "role": "model",
            "name": "model.safetensors",
            "sha256": sha256(b"abc"),
            "size": 3,
            "verified": True,
        }
    ]
    assert str(tmp_path) not in (target / "card.json").read_text(encoding="utf-8")


def test_an_exported_folder_serves_where_nothing_was_pulled(shelf: Shelf, target: Path, monkeypatch) -> None:
    shelf.pull("one", weights(3))
    export("shelf:one", target)
    monkeypatch.setenv("ZOO_HOME", str(target.parent / "empty"))
    with pytest.raises(NotPulled):
        load("shelf:one", device="cpu")
    assert load("shelf:one", device="cpu", weights=target).model.linear.bias[0].item() == 3


def test_a_built_in_variant_is_exported_too(shelf: Shelf, target: Path) -> None:
    done = export("tarflow:shapes", target)
    _, variant = load_catalogue().resolve("tarflow:shapes")
    assert done.files[0].sha256 == variant.files[0].sha256
    assert done.files[0].verified is True
    assert load("tarflow:shapes", device="cpu", weights=target).weights.endswith("model.safetensors")
    built = export("shelf:built", target.parent / "second")
    assert (built.files[0].sha256, built.files[0].verified) == (sha256(weights()), None)


def test_a_format_without_tensors_keeps_its_suffix(shelf: Shelf, target: Path) -> None:
    words = shelf.cached(b"{}", name="tokenizer.json")
    shelf.pull(
        "one",
        shelf.stored("model", b"m"),
        shelf.stored("a", b"1", format="raw", source="https://example.org/vocabulary.txt?download=true"),
        shelf.stored("b", b"2", format="raw", source=f"hf://acme/model/merges.bpe@{COMMIT}"),
        shelf.stored("c", b"{}", format="raw", source="hf://acme/model/tokenizer", path=words),
    )
    export("shelf:one", target)
    assert names(target) == ["a.txt", "b.bpe", "c.json", "card.json", "model.safetensors"]
    variant = {"summary": "", "architecture": "x"}
    files = [{"role": role, "source": ["https://e.org/x"]} for role in ("model", "a", "b", "c")]
    card = parse_card(
        {
            **dict.fromkeys(("title", "summary"), ""),
            "schema": 1,
            "method": "m",
            "tasks": [],
            "default": "v",
            "variant": {"v": {**variant, "files": files}},
        }
    )
    assert locate.locate(card, card.variants["v"], target) == {
        "model": target / "model.safetensors",
        "a": target / "a.txt",
        "b": target / "b.bpe",
        "c": target / "c.json",
    }


def test_damage_is_found_while_copying_and_nothing_is_left(shelf: Shelf, target: Path) -> None:
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("extra", b"defgh"))
    blob_path(sha256(b"defgh")).write_bytes(b"DEFGH")
    with pytest.raises(ChecksumError) as caught:
        export("shelf:pair", target)
    assert sha256(b"defgh") in caught.value.message and sha256(b"DEFGH") in caught.value.message
    assert caught.value.hint == "zoo verify shelf:pair --repair"
    assert names(target.parent) == []


def test_an_interrupt_leaves_nothing(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")

    def interrupted(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export("shelf:one", target, advanced=interrupted)
    assert names(target.parent) == []
    target.mkdir()
    with pytest.raises(KeyboardInterrupt):
        export("shelf:one", target, advanced=interrupted)
    assert names(target) == []


def test_progress_counts_the_bytes(shelf: Shelf, target: Path) -> None:
    sizes = [exporting.BLOCK + 1, 5]
    roles = zip(("model", "extra"), sizes, strict=True)
    shelf.pull("pair", *(shelf.stored(role, bytes(size)) for role, size in roles))
    seen = []
    export("shelf:pair", target, advanced=lambda done, total: seen.append((done, total)))
    total = sum(sizes)
    assert seen == [(exporting.BLOCK, total), (exporting.BLOCK + 1, total), (total, total)]


def test_a_folder_that_holds_something_is_refused(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    kept = shelf.file(target / "thesis.txt")
    with pytest.raises(OutputExists, match="not empty"):
        export("shelf:one", target)
    with pytest.raises(OutputExists, match="is a file, expected a folder"):
        export("shelf:one", kept)
    assert names(target) == ["thesis.txt"]


def test_overwriting_replaces_its_own_names_and_no_others(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    shelf.file(target / "thesis.txt", b"mine")
    precious = shelf.file(target.parent / "precious", b"elsewhere")
    (target / "model.safetensors").symlink_to(precious)
    export("shelf:one", target, overwrite=True)
    assert names(target) == ["card.json", "model.safetensors", "thesis.txt"]
    assert (target / "thesis.txt").read_bytes() == b"mine"
    assert (target / "model.safetensors").read_bytes() == b"abc"
    assert precious.read_bytes() == b"elsewhere"


def test_a_damaged_source_overwrites_nothing(shelf: Shelf, target: Path) -> None:
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("extra", b"defgh"))
    blob_path(sha256(b"defgh")).write_bytes(b"DEFGH")
    shelf.file(target / "model.safetensors", b"the one before")
    with pytest.raises(ChecksumError):
        export("shelf:pair", target, overwrite=True)
    assert names(target) == ["model.safetensors"]
    assert (target / "model.safetensors").read_bytes() == b"the one before"


def test_a_folder_in_a_files_place_is_refused(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    (target / "model.safetensors").mkdir(parents=True)
    with pytest.raises(OutputExists, match="is a folder"):
        export("shelf:one", target, overwrite=True)
    assert names(target) == ["model.safetensors"]


def test_an_empty_folder_is_filled_and_stays_the_same_folder(shelf: Shelf, target: Path, monkeypatch) -> None:
    """Somebody may stand in it."""
    shelf.pull("one", b"abc")
    target.mkdir(mode=0o700)
    before = target.stat().st_ino
    monkeypatch.chdir(target)
    export("shelf:one", Path("."))
    assert target.stat().st_ino == before
    assert names(Path(".")) == ["card.json", "model.safetensors"]


def test_a_folder_that_comes_into_being_meanwhile_is_not_replaced(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    with pytest.raises(OutputExists, match="meanwhile"):
        export("shelf:one", target, advanced=lambda done, total: shelf.file(target / "theirs") and None)
    assert names(target.parent) == ["exported"]
    assert names(target) == ["theirs"]


def test_a_full_disk_is_known_before_the_first_byte(shelf: Shelf, target: Path, monkeypatch) -> None:
    shelf.pull("one", b"abc")
    usage = type("Usage", (), {"free": 2})
    monkeypatch.setattr("zoo.store.exporting.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DoesNotFit, match="no room for 3 B: 1 B more than is free"):
        export("shelf:one", target, advanced=lambda done, total: pytest.fail("copied"))
    assert names(target.parent) == []


def test_a_place_that_cannot_be_written(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    in_the_way = shelf.file(target.parent / "file")
    with pytest.raises(OutputExists, match="is a file, expected a folder"):
        export("shelf:one", in_the_way / "folder")


def test_a_role_that_leads_elsewhere_is_refused(shelf: Shelf, target: Path) -> None:
    for role in ("../outside", "/etc/x", "a/b", ".hidden"):
        shelf.pull("one", shelf.stored("model", b"abc"), shelf.stored(role, b"x", source="https://e.org/x"))
        with pytest.raises(CardError, match="no valid name"):
            export("shelf:one", target)
    assert names(target.parent) == []


def test_names_that_would_be_the_same_are_refused(shelf: Shelf, target: Path) -> None:
    card = shelf.stored("card", b"x", format="raw", source="https://e.org/x.json")
    shelf.pull("one", shelf.stored("model", b"abc"), card)
    with pytest.raises(CardError, match="called the same"):
        export("shelf:one", target)


def test_a_file_that_is_gone_is_told_with_the_way_to_get_it(shelf: Shelf, target: Path) -> None:
    shelf.pull("one", b"abc")
    path = blob_path(sha256(b"abc"))

    def remove_then_open(*_):
        path.unlink(missing_ok=True)

    for when in ("before", "meanwhile"):
        shelf.blob(b"abc")
        with pytest.MonkeyPatch.context() as patch:
            if when == "before":
                path.unlink()
            else:
                patch.setattr(exporting, "_check_room", remove_then_open)
            with pytest.raises(WeightsError) as caught:
                export("shelf:one", target)
        assert caught.value.message == f"{path}: is gone, though the manifest of shelf:one names it"
        assert caught.value.hint.startswith("zoo pull shelf:one gets it again")


# Where the files of a pulled variant are found, which is what the other tests rely on.


def test_locate_reads_the_manifest(shelf: Shelf) -> None:
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("extra", b"x"))
    card, variant = load_catalogue().resolve("shelf:pair")
    assert locate.locate(card, variant) == {
        "model": blob_path(sha256(b"abc")),
        "extra": blob_path(sha256(b"x")),
    }


def test_a_damaged_manifest_says_how_to_go_on(shelf: Shelf) -> None:
    shelf.file(manifest_path("shelf", "one"), b"{}")
    card, variant = load_catalogue().resolve("shelf:one")
    with pytest.raises(WeightsError) as caught:
        locate.locate(card, variant)
    assert "zoo rm shelf:one forgets it; zoo pull shelf:one gets it again" in caught.value.hint


def test_a_card_that_names_more_files_by_now(shelf: Shelf) -> None:
    shelf.pull("pair", b"abc")
    card, variant = load_catalogue().resolve("shelf:pair")
    with pytest.raises(WeightsError) as caught:
        locate.locate(card, variant)
    assert "pulled without the file 'extra'" in caught.value.message
    assert caught.value.hint == "zoo pull shelf:pair gets it."


def test_a_variant_that_is_removed_while_it_is_looked_for_is_not_pulled(shelf: Shelf, monkeypatch) -> None:
    shelf.pull("one", b"abc")
    card, variant = load_catalogue().resolve("shelf:one")

    def removed(method, variant):
        manifest_path(method, variant).unlink()
        return read_manifest(method, variant)

    monkeypatch.setattr("zoo.store.manifest.read_manifest", removed)
    with pytest.raises(NotPulled):
        locate.locate(card, variant)


def test_how_to_get_the_weights(shelf: Shelf) -> None:
    for reference, lines in (
        (
            "shelf:one",
            [
                "zoo pull shelf:one",
                "Or by hand: download https://example.org/one.safetensors",
                "then: zoo pull shelf:one --from one.safetensors",
                "Without a download: zoo sample shelf:built",
            ],
        ),
        (
            "shelf:pair",
            [
                "zoo pull shelf:pair",
                "Without a download: zoo sample shelf:built",
            ],
        ),
    ):
        card, variant = load_catalogue().resolve(reference)
        with pytest.raises(NotPulled) as caught:
            locate.locate(card, variant)
        assert caught.value.message == f"the weights of {reference} are not on this machine"
        assert caught.value.hint.splitlines() == lines


def test_the_identity_of_weights(shelf: Shelf, tmp_path: Path) -> None:
    catalogue: Catalogue = load_catalogue()
    shelf.pull("one", b"abc")
    card, variant = catalogue.resolve("shelf:one")
    assert locate.identity(card, variant, blob_path(sha256(b"abc"))) == f"sha256:{sha256(b'abc')}"
    assert locate.identity(card, variant, tmp_path / "mine.safetensors") is None
    card, variant = catalogue.resolve("tarflow:shapes")
    path = locate.locate(card, variant)["model"]
    assert locate.identity(card, variant, path) == f"sha256:{variant.files[0].sha256}"
    card, variant = catalogue.resolve("shelf:built")
    assert locate.identity(card, variant, locate.locate(card, variant)["model"]) is None


def test_an_ambiguous_folder_is_refused(shelf: Shelf, target: Path) -> None:
    card, variant = load_catalogue().resolve("shelf:one")
    shelf.file(target / "model.pth")
    assert locate.locate(card, variant, target) == {"model": target / "model.pth"}
    shelf.file(target / "model.json")
    with pytest.raises(ZooError, match=r"has no model\.safetensors"):
        locate.locate(card, variant, target)


def test_a_store_that_may_only_be_read_is_enough(shelf: Shelf, target: Path, monkeypatch) -> None:
    """The superuser may write anywhere, so that every attempt is refused here instead."""
    shelf.pull("one", b"abc")
    age(blob_path(sha256(b"abc")))
    genuine = os.open

    def reading_only(path, flags, *rest, **more):
        if str(path).startswith(str(home())) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", reading_only)
    card, variant = load_catalogue().resolve("shelf:one")
    assert locate.locate(card, variant)
    assert export("shelf:one", target).size == 3
