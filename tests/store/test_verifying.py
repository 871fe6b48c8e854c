"""Verifying what lies here, and repairing it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from toy_store import Shelf, sha256, shelf, tree, weights

from zoo.errors import InvalidInput, NotFound, NotPulled
from zoo.store import verifying
from zoo.store.layout import blob_path, home, manifest_path, parts
from zoo.store.manifest import read_manifest
from zoo.store.pull import pull
from zoo.store.verifying import Check, repair, verify

__all__ = ["shelf"]


def statuses(checks: list[Check]) -> dict[str, str]:
    return {f"{check.reference} {check.role}": check.status for check in checks}


def repaired(*references: str) -> dict[str, str]:
    """What verifying says once each variant was repaired."""
    for reference in references:
        repair(reference)
    return statuses(verify(references))


def on_this_disk(shelf: Shelf, *variants: str) -> Path:
    """Let the variants' weights come from a file of this machine; returns it."""
    source = shelf.file(shelf.cards / "source.safetensors", weights())
    card = shelf.cards / "shelf.toml"
    text = card.read_text(encoding="utf-8")
    for variant in variants:
        text = text.replace(f"https://example.org/{variant}.safetensors", source.as_uri())
    card.write_text(text, encoding="utf-8")
    return source


def test_a_file_is_what_it_was(shelf: Shelf) -> None:
    shelf.pull(
        "pair",
        shelf.stored("model", b"abc", original=shelf.original(b"download")),
        shelf.stored("extra", b"defgh", digest_from="first pull"),
    )
    assert verify(["shelf:pair"]) == [
        Check("shelf:pair", "model", blob_path(sha256(b"abc")), "ok", 3, sha256(b"abc"), sha256(b"abc")),
        Check(
            "shelf:pair",
            "model",
            blob_path(sha256(b"download")),
            "ok",
            8,
            sha256(b"download"),
            sha256(b"download"),
            original=True,
        ),
        Check("shelf:pair", "extra", blob_path(sha256(b"defgh")), "unverified", 5, *[sha256(b"defgh")] * 2),
    ]


def test_damage_is_seen_down_to_a_bit(shelf: Shelf) -> None:
    content = bytes(3_000_000)
    shelf.pull("one", content)
    flipped = content[:-1] + b"\x01"
    blob_path(sha256(content)).write_bytes(flipped)
    [check] = verify(["shelf:one"])
    assert (check.status, check.failed, check.size) == ("damaged", True, 3_000_000)
    assert (check.expected, check.actual) == (sha256(content), sha256(flipped))


def test_what_is_missing_and_what_cannot_be_read(shelf: Shelf) -> None:
    folder = home() / "blobs" / f"sha256-{'a' * 64}"
    folder.mkdir(parents=True)
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("extra", b"", path=folder))
    blob_path(sha256(b"abc")).unlink()
    missing, unreadable = verify(["shelf:pair"])
    assert (missing.status, missing.size, missing.actual) == ("missing", None, None)
    assert (unreadable.status, unreadable.problem) == ("damaged", "cannot be read: is a directory")


def test_a_link_that_leads_nowhere_is_missing(shelf: Shelf) -> None:
    pointer = shelf.cached(b"abc")
    shelf.pull("one", shelf.stored("model", b"abc", path=pointer))
    assert statuses(verify(["shelf:one"])) == {"shelf:one model": "ok"}
    Path(os.path.realpath(pointer)).unlink()
    assert statuses(verify(["shelf:one"])) == {"shelf:one model": "missing"}


def test_built_in_weights_are_compared_with_their_card(shelf: Shelf) -> None:
    [check] = verify(["tarflow:shapes"])
    assert (check.status, check.built_in) == ("ok", True)
    assert check.actual == check.expected is not None
    [check] = verify(["shelf:built"])
    assert (check.status, check.expected, check.actual) == ("unknown", None, sha256(weights()))
    card = shelf.cards / "shelf.toml"
    text = card.read_text(encoding="utf-8")
    card.write_text(f'{text}\nsha256 = "{"0" * 64}"\n', encoding="utf-8")
    assert statuses(verify(["shelf:built"])) == {"shelf:built model": "damaged"}
    (shelf.cards / "built.safetensors").unlink()
    assert statuses(verify(["shelf:built"])) == {"shelf:built model": "missing"}


def test_everything_is_what_is_pulled_and_what_is_built_in(shelf: Shelf) -> None:
    shelf.pull("two", b"abc")
    shelf.pull("gone", b"abc", method="vanished")
    shelf.file(manifest_path("shelf", "one"), b"{")
    checks = verify()
    found = statuses(checks)
    references = [name.split()[0] for name in found]
    assert references == sorted(references)
    assert found["shelf:two model"] == found["vanished:gone model"] == found["tarflow:shapes model"] == "ok"
    assert found["shelf:one manifest"] == "damaged"
    assert found["toy:shapes model"] == "unknown"
    assert not any(name.startswith(("shelf:three", "tarflow:afhq256 ")) for name in found)
    [damaged] = [check for check in checks if check.failed]
    assert "one.json: is damaged" in damaged.problem


def test_a_variant_that_is_not_here_is_an_error(shelf: Shelf) -> None:
    for reference, error in (
        ("shelf:one", NotPulled),
        ("toy:unpublished", NotPulled),
        ("shelf:none", NotFound),
        ("Not A Reference", InvalidInput),
    ):
        with pytest.raises(error):
            verify([reference])


def test_a_model_that_is_named_twice_is_read_once(shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    assert len(verify(["shelf", "shelf:one", "shelf:former"])) == 1


def test_progress_counts_the_bytes_of_all_files(shelf: Shelf) -> None:
    sizes = [2_500_000, 1, 3_000_000]
    shelf.pull("pair", *(shelf.stored(f"r{i}", bytes(size)) for i, size in enumerate(sizes)))
    seen: list[tuple[int, int]] = []
    verify(["shelf:pair"], advanced=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {sum(sizes)}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == sum(sizes)


def test_an_interrupt_stops_every_reader(shelf: Shelf, monkeypatch) -> None:
    shelf.pull("pair", *(shelf.stored(f"r{i}", bytes([i])) for i in range(3)))
    started, stopped = [], []

    def endless(path, advanced):
        started.append(threading.current_thread().name)
        try:
            while True:
                advanced(1)
        finally:
            stopped.append(threading.current_thread().name)

    calls = iter(range(10))

    def interrupted(done, total):
        if next(calls, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(verifying, "file_sha256", endless)
    with pytest.raises(KeyboardInterrupt):
        verify(["shelf:pair"], advanced=interrupted)
    assert sorted(stopped) == sorted(started) != []


def test_verifying_changes_nothing(shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    before = tree()
    verify()
    assert tree() == before
    assert sorted(path.name for path in home().iterdir()) == ["blobs", "models"]


def test_repair_gets_a_damaged_file_again_and_keeps_the_damaged_one(shelf: Shelf) -> None:
    on_this_disk(shelf, "one")
    pull("shelf:one")
    path = blob_path(sha256(weights()))
    path.write_bytes(b"damaged")
    assert statuses(verify(["shelf:one"])) == {"shelf:one model": "damaged"}
    assert repair("shelf:one") == ("model",)
    assert repair("shelf:one") == ()
    assert statuses(verify(["shelf:one"])) == {"shelf:one model": "unverified"}
    assert path.read_bytes() == weights()
    assert (parts() / f"sha256-{sha256(b'damaged')}.bad").read_bytes() == b"damaged"


def test_repair_gets_a_missing_file_again(shelf: Shelf) -> None:
    on_this_disk(shelf, "one")
    pull("shelf:one")
    blob_path(sha256(weights())).unlink()
    assert repaired("shelf:one") == {"shelf:one model": "unverified"}


def test_two_variants_of_one_file_are_repaired_once(shelf: Shelf) -> None:
    source = on_this_disk(shelf, "one", "three")
    for variant in ("one", "three"):
        pull(f"shelf:{variant}")
    path = blob_path(sha256(weights()))
    path.write_bytes(b"damaged")
    both = ("shelf:one", "shelf:three")
    assert set(statuses(verify(both)).values()) == {"damaged"}
    assert [repair(reference) for reference in both] == [("model",), ()]
    assert set(statuses(verify(both)).values()) == {"unverified"}
    assert source.exists() and path.read_bytes() == weights()


def test_repair_of_a_manifest_pulls_what_it_was(shelf: Shelf) -> None:
    on_this_disk(shelf, "one")
    pull("shelf:one")
    manifest_path("shelf", "one").write_bytes(b"{")
    assert statuses(verify(["shelf:one"])) == {"shelf:one manifest": "damaged"}
    assert repaired("shelf:one") == {"shelf:one model": "unverified"}
    assert read_manifest("shelf", "one").file("model").sha256 == sha256(weights())


def test_a_damaged_file_of_the_hugging_face_cache_is_moved_with_its_link(shelf: Shelf, monkeypatch) -> None:
    pointer = shelf.cached(b"abc")
    content = Path(os.path.realpath(pointer))
    shelf.pull("one", shelf.stored("model", b"abc", path=pointer, shared=True))
    content.write_bytes(b"xyz")

    def fetch(reference, **rest):
        # Neither may lie in the way of what comes.
        assert not pointer.is_symlink() and not content.exists()
        assert rest["repair"] == ("model",)
        shelf.cached(b"abc")

    monkeypatch.setattr("zoo.store.pull.pull", fetch)
    assert repaired("shelf:one") == {"shelf:one model": "ok"}
    assert (parts() / f"sha256-{sha256(b'xyz')}.bad").read_bytes() == b"xyz"


def test_a_kept_download_is_repaired_as_one(shelf: Shelf, monkeypatch) -> None:
    shelf.pull("one", shelf.stored("model", b"abc", original=shelf.original(b"download")))
    blob_path(sha256(b"download")).unlink()
    asked = {}

    def fetch(reference, **options):
        asked.update(options)
        shelf.blob(b"download")

    monkeypatch.setattr("zoo.store.pull.pull", fetch)
    assert [check.status for check in verify(["shelf:one"])] == ["ok", "missing"]
    assert repair("shelf:one") == ("model",)
    assert [check.status for check in verify(["shelf:one"])] == ["ok", "ok"]
    assert (asked["keep_original"], asked["repair"]) == (True, ("model",))


def test_what_ships_with_a_package_is_never_touched(shelf: Shelf, monkeypatch) -> None:
    """Also where it is one file of a variant whose other files were pulled."""
    beside = shelf.file(shelf.cards / "beside.safetensors", b"abc")
    shelf.pull("one", shelf.stored("model", b"abc", path=beside, source="beside.safetensors", shared=True))
    beside.write_bytes(b"xyz")
    monkeypatch.setattr("zoo.store.pull.pull", lambda *reference, **rest: pytest.fail("pulled"))
    assert repair("shelf:one") == ()
    [check] = verify(["shelf:one"])
    assert (check.status, check.repairable) == ("damaged", False)
    assert beside.read_bytes() == b"xyz"
