"""`zoo rm`, `prune`, `verify` and `cp`, and what `list`, `show` and `doctor` say of pulled models."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys

import pytest
from toy_store import Shelf, age, sha256, shelf, tree, weights

from zoo.catalogue import load_catalogue
from zoo.store.layout import blob_path, blobs, home, manifest_path, parts
from zoo.store.licences import accept, terms_of
from zoo.store.locate import is_pulled
from zoo.store.locks import variant_lock
from zoo.store.pull import pull
from zoo.store.trust import record

__all__ = ["shelf"]


class Terminal(io.StringIO):
    """A user who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def types(monkeypatch):
    """Somebody sits at the terminal and answers."""
    return lambda answer: monkeypatch.setattr("sys.stdin", Terminal(answer))


# rm


def test_rm(zoo, shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", bytes(2048)), shelf.stored("extra", b"same"))
    shelf.pull("two", b"same")
    result = zoo("rm", "shelf:one")
    assert result.code == 0, result.err
    assert result.lines == [
        "removed shelf:one",
        f"kept {blob_path(sha256(b'same'))}: shelf:two uses it",
        "freed 2.0 KiB",
    ]
    assert zoo("rm", "shelf:two", "-q").out == "shelf:two\n"


def test_rm_as_json(zoo, shelf: Shelf) -> None:
    pointer = shelf.cached(b"theirs")
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("e", b"", path=pointer, shared=True))
    document = {
        "removed": ["shelf:pair"],
        "freed": 3,
        "kept": [{"path": str(pointer), "reason": "it was there before zoo used it"}],
    }
    assert zoo("rm", "shelf:pair", "--dry-run", "--json").json == {**document, "dry_run": True}
    assert is_pulled("shelf", "pair")
    assert zoo("rm", "shelf:pair", "--json").json == {**document, "dry_run": False}
    assert not is_pulled("shelf", "pair")


def test_rm_dry_run_is_in_the_conditional(zoo, shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    assert zoo("rm", "shelf", "--dry-run").lines == ["would remove shelf:one", "would free 3 B"]


@pytest.mark.parametrize(
    ("reference", "code", "text"),
    [
        ("shelf:built", 2, "shelf:built is built in"),
        ("tarflow:shapes", 2, "tarflow:shapes is built in"),
        ("shelf:two", 3, "shelf:two is not pulled"),
        ("shelf:oen", 3, "Did you mean: shelf:one"),
    ],
)
def test_rm_of_what_is_not_there(zoo, shelf: Shelf, reference, code, text) -> None:
    result = zoo("rm", reference)
    assert (result.code, result.out) == (code, "")
    assert text in result.err


def test_rm_warns_of_a_damaged_manifest(zoo, shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    shelf.file(manifest_path("shelf", "two"), b"{")
    result = zoo("rm", "shelf:one")
    assert result.code == 0
    assert "Warning: " in result.err and "zoo rm shelf:two forgets it" in result.err
    assert "freed 0 B" in result.out
    assert zoo("rm", "shelf:two").lines == ["removed shelf:two", "freed 0 B"]


def test_rm_needs_references_or_all(zoo, shelf: Shelf) -> None:
    assert zoo("rm").code == zoo("rm", "shelf:one", "--all").code == 2
    assert zoo("rm", "--all").lines == ["nothing was removed"]


def test_rm_all_asks(zoo, shelf: Shelf, types) -> None:
    shelf.pull("one", b"abc")
    shelf.file(manifest_path("shelf", "two"), b"{")
    result = zoo("rm", "--all")
    assert result.code == 2 and "add --yes" in result.err
    types("n\n")
    result = zoo("rm", "--all")
    assert "Remove shelf:one, shelf:two?" in result.err
    assert result.lines == ["nothing was removed"]
    assert is_pulled("shelf", "one")
    assert zoo("rm", "--all", "--dry-run").lines[0] == "would remove shelf:one"
    types("y\n")
    assert zoo("rm", "--all", "--json").json["removed"] == ["shelf:one", "shelf:two"]
    shelf.pull("one", b"abc")
    assert zoo("rm", "--all", "--yes", "-q").out == "shelf:one\n"


# prune


@pytest.fixture
def rubbish(shelf: Shelf):
    """An orphan of two days, a part of two hours and a refused file of this moment."""
    orphan = shelf.blob(bytes(2048))
    part = shelf.file(parts() / "url-1.part", b"half")
    refused = shelf.file(parts() / f"sha256-{'b' * 64}.bad", b"bad")
    age(orphan, hours=48)
    age(part)
    return orphan, part, refused


def test_prune_lists_and_without_a_terminal_removes_nothing(zoo, rubbish) -> None:
    orphan, part, refused = rubbish
    before = tree()
    result = zoo("prune")
    assert result.code == 0
    assert [line.split() for line in result.lines] == [
        ["kind", "size", "age", "path"],
        ["part", "4", "B", "2", "h", str(part)],
        ["orphan", "2.0", "KiB", "2", "d", str(orphan)],
        ["total", "2", "files,", "2.0", "KiB"],
        ["kept", f"{refused}:", "it", "changed", "within", "the", "last", "hour"],
    ]
    assert "zoo prune --yes" in result.err
    assert zoo("prune", "--dry-run", "--yes").lines == result.lines
    assert zoo("prune", "-q").lines == [str(part), str(orphan)]
    assert tree() == before


def test_prune_removes_with_yes(zoo, rubbish) -> None:
    orphan, part, refused = rubbish
    document = zoo("prune", "--yes", "--json").json
    assert document["freed"] == 2052
    assert [(row["kind"], row["path"], row["removed"]) for row in document["items"]] == [
        ("part", str(part), True),
        ("orphan", str(orphan), True),
        ("refused", str(refused), False),
    ]
    assert [row["size"] for row in document["items"]] == [4, 2048, 3]
    assert document["items"][2]["kept"] == "it changed within the last hour"
    assert (orphan.exists(), part.exists(), refused.exists()) == (False, False, True)
    assert "freed 3 B" in zoo("prune", "--all", "--yes").out
    assert zoo("prune").lines == ["There is nothing to remove."]
    assert zoo("prune", "--json").json == {"items": [], "freed": 0}


def test_prune_asks_on_a_terminal(zoo, rubbish, types) -> None:
    types("n\n")
    result = zoo("prune")
    assert "Remove 2 files, 2.0 KiB?" in result.err
    assert rubbish[0].exists()
    types("y\n")
    assert zoo("prune").lines[-1] == "freed 2.0 KiB"
    assert not rubbish[0].exists()


def test_prune_does_not_ask_whoever_wants_json(zoo, rubbish, types) -> None:
    types("")
    assert zoo("prune", "--json").json["freed"] == 0
    assert rubbish[0].exists()


def test_prune_leaves_a_running_pull_alone(zoo, rubbish) -> None:
    with variant_lock("shelf", "one"):
        result = zoo("prune", "--all", "--yes")
    assert result.lines[-3:] == [
        f"kept {rubbish[1]}: shelf:one is being pulled and may need it",
        f"kept {rubbish[0]}: shelf:one is being pulled and may need it",
        "freed 3 B",
    ]


def test_prune_originals(zoo, shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", b"abc", original=shelf.original(b"download")))
    assert zoo("prune").lines == ["There is nothing to remove."]
    [row] = zoo("prune", "--originals", "--yes", "--json").json["items"]
    assert (row["kind"], row["size"], row["removed"]) == ("original", 8, True)
    assert [check["status"] for check in zoo("verify", "shelf:one", "--json").json] == ["ok"]


# verify


def test_verify(zoo, shelf: Shelf) -> None:
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("e", b"x", digest_from="first pull"))
    result = zoo("verify", "shelf:pair", "shelf:built")
    assert result.code == 0, result.err
    assert [line.split() for line in result.lines] == [
        ["reference", "role", "status", "size"],
        ["shelf:pair", "model", "ok", "3", "B"],
        ["shelf:pair", "e", "unverified", "1", "B"],
        ["shelf:built", "model", "unknown", f"{len(weights())}", "B"],
    ]
    assert zoo("verify", "shelf:pair", "-q").out == ""


def test_verify_tells_both_digests_and_what_to_do(zoo, shelf: Shelf) -> None:
    shelf.pull("pair", shelf.stored("model", b"abc"), shelf.stored("extra", b"x"))
    path, gone = blob_path(sha256(b"abc")), blob_path(sha256(b"x"))
    path.write_bytes(b"xyz")
    gone.unlink()
    result = zoo("verify", "shelf:pair")
    assert result.code == 4
    assert f"  expected sha256 {sha256(b'abc')}\n  got      sha256 {sha256(b'xyz')}\n" in result.out
    assert f"shelf:pair extra: {gone} is missing\n" in result.out
    assert result.err.splitlines() == [
        "Error: 2 files are damaged or missing",
        "Hint: zoo verify shelf:pair --repair",
    ]
    assert zoo("verify", "shelf:pair", "-q").lines == [str(path), str(gone)]
    result = zoo("verify", "shelf:pair", "--json")
    assert result.code == 4
    assert result.json[0] == {
        "reference": "shelf:pair",
        "role": "model",
        "original": False,
        "status": "damaged",
        "size": 3,
        "path": str(path),
        "expected": sha256(b"abc"),
        "actual": sha256(b"xyz"),
        "problem": None,
    }


def test_verify_knows_what_only_a_new_installation_mends(zoo, shelf: Shelf) -> None:
    (shelf.cards / "built.safetensors").unlink()
    result = zoo("verify", "shelf:built", "--repair")
    assert result.code == 4
    assert "pip install --force-reinstall" in result.err and "--repair" not in result.err


def test_verify_of_what_is_not_here(zoo, shelf: Shelf) -> None:
    result = zoo("verify", "shelf:one")
    assert result.code == 3
    assert "zoo pull shelf:one" in result.err


def test_verify_repairs(zoo, shelf: Shelf) -> None:
    source = shelf.file(shelf.cards / "source.safetensors", weights())
    card = shelf.cards / "shelf.toml"
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("https://example.org/one.safetensors", source.as_uri()), encoding="utf-8")
    pull("shelf:one")
    blob_path(sha256(weights())).write_bytes(b"damaged")
    shelf.pull("two", b"abc")
    result = zoo("verify", "--repair", "shelf:two", "shelf:one", "--json")
    assert result.code == 0, result.err
    assert [(row["reference"], row["status"]) for row in result.json] == [
        ("shelf:two", "ok"),
        ("shelf:one", "unverified"),
    ]
    assert blob_path(sha256(weights())).read_bytes() == weights()
    assert [path.read_bytes() for path in parts().glob("*.bad")] == [b"damaged"]


# cp


def test_cp_makes_a_folder_that_sample_reads(zoo, shelf: Shelf, tmp_path, monkeypatch) -> None:
    shelf.pull("one", weights())
    result = zoo("cp", "shelf:one", tmp_path / "copy", "--json")
    assert result.code == 0, result.err
    assert result.json == {
        "reference": "shelf:one",
        "folder": str(tmp_path / "copy"),
        "files": [
            {
                "role": "model",
                "path": str(tmp_path / "copy" / "model.safetensors"),
                "sha256": sha256(weights()),
                "size": len(weights()),
                "verified": True,
            }
        ],
        "size": len(weights()),
    }
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "elsewhere"))
    assert zoo("sample", "shelf:one", "--weights", tmp_path / "copy").code == 0


def test_cp_for_people(zoo, tmp_path) -> None:
    result = zoo("cp", "tarflow:shapes", tmp_path / "copy")
    [line] = result.lines
    assert line.startswith(str(tmp_path / "copy" / "model.safetensors"))
    assert line.endswith(str(load_catalogue().resolve("tarflow:shapes")[1].files[0].sha256))
    assert f"zoo sample tarflow:shapes --weights {tmp_path / 'copy'}" in result.err
    result = zoo("cp", "tarflow:shapes", tmp_path / "copy")
    assert (result.code, "pass --overwrite" in result.err) == (1, True)
    assert zoo("cp", "tarflow:shapes", tmp_path / "copy", "--overwrite", "-q").out == f"{tmp_path / 'copy'}\n"


def test_cp_says_what_is_wrong(zoo, shelf: Shelf, tmp_path) -> None:
    shelf.pull("one", b"abc")
    with pytest.MonkeyPatch.context() as full:
        usage = type("Usage", (), {"free": 0})
        full.setattr("zoo.store.exporting.shutil.disk_usage", lambda path: usage)
        assert zoo("cp", "shelf:one", tmp_path / "copy").code == 7
    blob_path(sha256(b"abc")).write_bytes(b"xyz")
    result = zoo("cp", "shelf:one", tmp_path / "copy")
    assert result.code == 4
    assert "zoo verify shelf:one --repair" in result.err
    assert zoo("cp", "shelf:two", tmp_path / "copy").code == 3
    assert not (tmp_path / "copy").exists()


# list, show, doctor


def test_list_shows_what_is_pulled(zoo, shelf: Shelf) -> None:
    shelf.pull("one", shelf.stored("model", bytes(1024), original=shelf.original(bytes(512))))
    shelf.pull("two", shelf.stored("model", bytes(1024), digest_from="first pull"))
    rows = {row["variant"]: row for row in zoo("list", "shelf:", "--json").json}
    assert {name: (row["state"], row["verified"], row["size"]) for name, row in rows.items()} == {
        "one": ("pulled", True, 1536),
        "two": ("pulled", False, 1024),
        "three": ("published", None, None),
        "pair": ("published", None, None),
        "built": ("built-in", None, len(weights())),
    }
    result = zoo("list", "shelf:")
    [one] = [line for line in result.lines if line.startswith("shelf:one ")]
    [two] = [line for line in result.lines if line.startswith("shelf:two ")]
    assert one.split()[2:5] == ["pulled", "1.5", "KiB"]
    assert "pulled (unverified)" in two
    # The blob that both use lies here once.
    assert f"Hint: 2 pulled models: 1.5 KiB on this machine. The store is {home()}" in result.err
    assert "pulled models" not in zoo("list", "tarflow:").err
    assert {row["variant"] for row in zoo("list", "--state", "pulled", "--json").json} == {"one", "two"}


def test_list_warns_of_a_damaged_manifest(zoo, shelf: Shelf) -> None:
    shelf.file(manifest_path("shelf", "one"), b"{")
    result = zoo("list", "shelf:one", "--json")
    [row] = result.json
    assert (row["state"], row["verified"], row["size"]) == ("pulled", None, None)
    assert "zoo rm shelf:one forgets it" in result.err


def test_show_tells_where_files_lie_and_who_vouched(zoo, shelf: Shelf) -> None:
    card, two = load_catalogue().resolve("shelf:two")
    accept(terms_of(card, two))
    cached = shelf.cached(b"theirs")
    shelf.pull(
        "two",
        shelf.stored("model", b"abc", original=shelf.original(b"download")),
        shelf.stored("a", b"x", digest_from="hub"),
        shelf.stored("b", b"theirs", digest_from="first pull", path=cached, shared=True),
    )
    text = zoo("show", "shelf:two").out
    for said in (
        "on this machine\n  pulled on 2026-01-02 by zoo 0.1\n",
        "  its licence was accepted on 2",
        f"model: {blob_path(sha256(b'abc'))}",
        f"3 bytes, sha256 {sha256(b'abc')}",
        "verified: what was downloaded has the digest that the card gives",
        "verified: what was downloaded has the digest that the hub gives",
        "unverified: first pulled on 2026-01-02, nobody publishes a digest",
        f"its download was kept: {blob_path(sha256(b'download'))}, 8 bytes",
        f"b: {cached}",
        "where it lay before: zoo rm leaves it there",
    ):
        assert said in text, said
    document = zoo("show", "shelf:two", "--json").json
    assert document["state"] == "pulled" and document["verified"] is False
    assert document["files"][0]["path"] == str(blob_path(sha256(b"abc")))
    pulled = document["pulled"]
    assert (pulled["at"], pulled["size"]) == ("2026-01-02T03:04:05+00:00", 3 + 8 + 1 + 6)
    assert pulled["licence_accepted"] is not None
    assert [file["verified"] for file in pulled["files"]] == [True, True, False]
    assert pulled["files"][0]["original"]["path"] == str(blob_path(sha256(b"download")))


def test_show_tells_since_when_a_file_is_believed(zoo, shelf: Shelf) -> None:
    record("https://example.org/one.safetensors", sha256(b"abc"), 3, None)
    shelf.pull("one", shelf.stored("model", b"abc", digest_from="first pull"))
    [file] = zoo("show", "shelf:one", "--json").json["pulled"]["files"]
    assert f"unverified: first pulled on {file['first_pulled'][:10]}" in zoo("show", "shelf:one").out
    assert file["first_pulled"] > "2026-01-02"


def test_show_of_what_is_not_pulled_has_no_such_section(zoo, shelf: Shelf) -> None:
    assert "on this machine" not in zoo("show", "shelf:one").out
    assert zoo("show", "shelf:one", "--json").json["pulled"] is None


def test_show_of_a_pulled_model_whose_file_is_gone(zoo, shelf: Shelf) -> None:
    shelf.pull("one", b"abc")
    blob_path(sha256(b"abc")).unlink()
    result = zoo("show", "shelf:one")
    assert result.code == 0
    assert "is gone, though the manifest of shelf:one names it" in result.err
    assert "zoo pull shelf:one gets it again" in result.err


@pytest.fixture
def findings(zoo, monkeypatch):
    """What doctor finds of the store, without asking the plugins."""
    monkeypatch.setattr("zoo.plugincheck.check_plugins", lambda timeout: [])
    monkeypatch.setattr("zoo.plugincheck.ask_doctor", lambda timeout: [])
    return lambda: {row["text"]: (row["status"], row["hint"]) for row in zoo("doctor", "--json").json}


def test_doctor_counts_what_is_pulled(findings, shelf: Shelf) -> None:
    assert findings()["pulled models: 0, 0 B"] == ("ok", "")
    shelf.pull("one", bytes(1024))
    shelf.pull("two", bytes(1024))
    shelf.file(parts() / "url-1.part", bytes(2048))
    found = findings()
    assert found["pulled models: 2, 1.0 KiB"] == ("ok", "")
    assert found["unfinished downloads: 1, 2.0 KiB"] == (
        "ok",
        "zoo pull goes on with them; zoo prune removes them.",
    )


def test_doctor_finds_what_is_damaged_gone_or_left_over(findings, shelf: Shelf) -> None:
    age(shelf.blob(bytes(1024)))
    shelf.pull("one", b"abc")
    blob_path(sha256(b"abc")).unlink()
    shelf.pull("three", b"here")
    found = findings()
    assert found["files that no model needs: 1, 1.0 KiB"] == ("warn", "zoo prune")
    [gone] = [text for text in found if "is gone, though the manifest of shelf:one names it" in text]
    assert found[gone][0] == "fail"
    shelf.file(manifest_path("shelf", "two"), b"{")
    [damaged] = [(status, hint) for text, (status, hint) in findings().items() if "two.json" in text]
    assert damaged[0] == "fail" and "zoo rm shelf:two" in damaged[1]


# What the verbs may import

PROBE = """
import json, sys
from zoo_cli.main import run
code = run(sys.argv[1:])
sys.stdout.flush()
print()
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

HEAVY = {"torch", "numpy", "safetensors", "pluggy", "transformers", "huggingface_hub", "PIL", "rich"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("show", "shelf:one"),
        ("verify", "shelf:one"),
        ("cp", "shelf:one", "copy"),
        ("prune", "--originals", "--yes"),
        ("rm", "shelf:one"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_verbs_start_light(shelf: Shelf, arguments) -> None:
    pointer = shelf.cached(b"original")
    original = shelf.original(b"original", pointer)
    shelf.pull("one", shelf.stored("model", b"abc", original=original))
    age(shelf.file(blobs() / f"sha256-{hashlib.sha256().hexdigest()}"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        environment.pop(name, None)
    command = [sys.executable, "-c", PROBE, *arguments]
    result = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    code, modules = json.loads(result.stdout.splitlines()[-1])
    assert code == 0, result.stderr
    assert HEAVY & set(modules) == set()
