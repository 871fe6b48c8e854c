"""`zoo pull`: what it asks for, what it says, and how it ends."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import ChecksumError, ExitCode, NetworkError
from zoo.store.layout import manifest_path
from zoo.store.manifest import Manifest, Original, Stored
from zoo.store.progress import PlannedFile

FILE = """
[[variant.{variant}.files]]
role = "{role}"
source = ["{source}"]
format = "raw"
"""
VARIANT = """
[variant.{name}]
summary = ""
architecture = "toy"
"""


@pytest.fixture
def cards(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The method `far`, some of whose files lie in a folder that stands for a server; returns that folder."""
    server = tmp_path / "server"
    server.mkdir()
    (server / "words.json").write_bytes(b"words")
    (server / "rules.txt").write_bytes(b"rules")
    words, rules = (f"file://{server}/{name}" for name in ("words.json", "rules.txt"))
    text = 'schema = 1\nmethod = "far"\ntitle = ""\nsummary = ""\ntasks = []\ndefault = "single"\n'
    files = {
        "single": [("words", words)],
        "several": [("model", words), ("rules", rules)],
        "unclear": [("words", words), ("rules", rules)],
        "gone": [("words", f"file://{server}/gone.json")],
        "nothing": [],
    }
    for name, entries in files.items():
        text += VARIANT.format(name=name)
        text += "".join(FILE.format(variant=name, role=role, source=source) for role, source in entries)
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "far.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(folder))
    return server


def stored(role: str, digest_from: Any, **changes: Any) -> Stored:
    path = Path("/store/blobs") / role
    return Stored(
        role, path, "ab" * 32, 2 << 20, "safetensors", digest_from, f"https://e.org/{role}", **changes
    )


class Pulling:
    """Stands in for `zoo.store.pull.pull`: remembers how it was called, and does what the test says."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: tuple[Stored, ...] = (stored("model", "card"),)
        self.cached = False
        self.errors: dict[str, BaseException] = {}

    def __call__(self, reference: str, **options: Any) -> Manifest:
        self.calls.append((reference, options))
        if reference in self.errors:
            raise self.errors[reference]
        if not self.cached:
            options["watcher"].planned([PlannedFile("model", "https://e.org/model", 2 << 20, 0)])
        method, _, variant = reference.partition(":")
        return Manifest(method, variant or "single", "2025-01-01T00:00:00+00:00", "0", self.files)

    @property
    def options(self) -> dict[str, Any]:
        """What the only call was given, less what every call gets."""
        [(_, options)] = self.calls
        return {name: value for name, value in options.items() if name not in ("watcher", "accept_licence")}


@pytest.fixture
def pulling(cards: Path, monkeypatch: pytest.MonkeyPatch) -> Pulling:
    fake = Pulling()
    monkeypatch.setattr("zoo.store.pull.pull", fake)
    return fake


# What is asked for

DEFAULTS = {
    "given": {},
    "keep_original": False,
    "accept_change": False,
    "connections": None,
    "check_space": True,
    "session": None,
}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["--keep-original"], {"keep_original": True}),
        (["--accept-change"], {"accept_change": True}),
        (["--connections", "8"], {"connections": 8}),
        (["--no-space-check"], {"check_space": False}),
    ],
)
def test_options_reach_the_pull(zoo, pulling, arguments, changed):
    assert zoo("pull", "far", *arguments).code == 0
    assert pulling.calls[0][0] == "far"
    assert pulling.options == {**DEFAULTS, **changed}


@pytest.mark.parametrize("count", ["0", "-1", "65", "many"])
def test_numbers_of_connections_that_make_no_sense(zoo, pulling, count):
    result = zoo("pull", "far", "--connections", count)
    assert (result.code, pulling.calls) == (ExitCode.USAGE, [])


def test_without_a_reference_the_way_to_find_one_is_named(zoo):
    result = zoo("pull")
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.splitlines()[1] == "Hint: zoo list --state published shows what can be pulled."


@pytest.mark.parametrize(
    ("reference", "arguments", "roles"),
    [
        ("far:single", ["rules.txt"], {"words": "rules.txt"}),
        ("far:single", ["words=rules.txt"], {"words": "rules.txt"}),
        ("far:several", ["words.json"], {"model": "words.json"}),
        ("far:several", ["words.json", "rules=rules.txt"], {"model": "words.json", "rules": "rules.txt"}),
        ("far:unclear", ["rules=rules.txt"], {"rules": "rules.txt"}),
        ("far:single", ["odd=name.json"], {"words": "odd=name.json"}),
        ("far:single", ["words=odd=name.json"], {"words": "odd=name.json"}),
        ("far:single", ["~/words.json"], {"words": "words.json"}),
        ("far:single", ["words=~/words.json"], {"words": "words.json"}),
    ],
)
def test_files_by_hand(zoo, pulling, cards, monkeypatch, reference, arguments, roles):
    (cards / "odd=name.json").write_bytes(b"odd")
    monkeypatch.setenv("HOME", str(cards))
    monkeypatch.chdir(cards)
    options = [option for argument in arguments for option in ("--from", argument)]
    assert zoo("pull", reference, *options).code == 0
    given = pulling.options["given"]
    assert {role: path.name for role, path in given.items()} == roles
    assert all(path.is_file() for path in given.values())


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["far:single", "far:several", "--from", "words.json"], "--from takes one reference", "--help"),
        (
            ["far:unclear", "--from", "words.json"],
            "which file of far:unclear is it?",
            "Its roles: words, rules.",
        ),
        (["far:single", "--from", "vae=words.json"], "has no file of role 'vae'", "Its roles: words."),
        (["far:single", "--from", "gone.json"], "there is no such file", "zoo pull far:single --from FILE"),
        (["far:single", "--from", "words=."], "is not a file", "zoo pull far:single --from FILE"),
        (
            ["far:single", "--from", "words.json", "--from", "words=rules.txt"],
            "the file of role 'words' twice",
            "Its roles: words.",
        ),
        (
            ["toy:shapes", "--from", "words.json"],
            "toy:shapes is built in",
            "zoo sample toy:shapes --weights FILE",
        ),
    ],
)
def test_files_by_hand_that_are_not_clear(zoo, pulling, cards, monkeypatch, arguments, error, hint):
    monkeypatch.chdir(cards)
    result = zoo("pull", *arguments)
    assert (result.code, result.out, pulling.calls) == (ExitCode.USAGE, "", [])
    first, second = result.err.splitlines()
    assert error in first
    assert hint in second


# What is said


def test_a_line_for_the_model_and_one_for_each_file(zoo, pulling):
    pulling.files = (
        stored("model", "card"),
        stored("vae", "hub"),
        stored("words", "first pull"),
        stored("kept", "card", original=Original("cd" * 32, 5, Path("/store/blobs/pth"))),
        stored("dropped", "card", original=Original("cd" * 32, 5)),
    )
    result = zoo("pull", "far:several")
    digest = "ab" * 32
    assert result.lines == [
        "far:several: pulled, 10.0 MiB",
        f"  model  /store/blobs/model  sha256 {digest}  verified by the card",
        f"  vae  /store/blobs/vae  sha256 {digest}  verified by the hub",
        f"  words  /store/blobs/words  sha256 {digest}  "
        "unverified: nobody publishes a digest; recorded, and any change will be refused",
        f"  kept  /store/blobs/kept  sha256 {digest}  verified by the card",
        f"  kept original  /store/blobs/pth  sha256 {'cd' * 32}",
        f"  dropped  /store/blobs/dropped  sha256 {digest}  verified by the card",
    ]
    assert result.err.splitlines()[-1] == "Hint: zoo sample far:several"


def test_what_was_here_is_told_apart(zoo, pulling):
    pulling.cached = True
    result = zoo("pull", "far:several")
    assert result.lines[0] == "far:several: already here, 2.0 MiB"
    assert result.err == "Hint: zoo sample far:several\n"


def test_verbose_tells_where_files_come_from(zoo, pulling):
    pulling.files = (stored("model", "hub", revision="c" * 40),)
    assert f"  model from https://e.org/model at {'c' * 40}" in zoo("pull", "far", "-v").err.splitlines()


def test_json_is_an_object_for_one_reference(zoo, pulling):
    pulling.files = (
        stored("model", "first pull", revision="r1", original=Original("cd" * 32, 5, Path("/store/pth"))),
        stored("vae", "hub", original=Original("ef" * 32, 6)),
    )
    result = zoo("pull", "far", "--json")
    assert result.err == ""
    assert result.json == {
        "reference": "far:single",
        "files": [
            {
                "role": "model",
                "path": "/store/blobs/model",
                "sha256": "ab" * 32,
                "size": 2 << 20,
                "verified": False,
                "digest_from": "first pull",
                "source": "https://e.org/model",
                "revision": "r1",
                "original": {"sha256": "cd" * 32, "size": 5, "path": "/store/pth"},
            },
            {
                "role": "vae",
                "path": "/store/blobs/vae",
                "sha256": "ab" * 32,
                "size": 2 << 20,
                "verified": True,
                "digest_from": "hub",
                "source": "https://e.org/vae",
                "revision": None,
                "original": {"sha256": "ef" * 32, "size": 6, "path": None},
            },
        ],
        "size": (4 << 20) + 5,
        "missing": [],
    }


def test_quiet_prints_the_paths(zoo, pulling):
    pulling.files = (stored("model", "card"), stored("vae", "hub"))
    result = zoo("pull", "far:single", "far:several", "-q")
    assert result.lines == ["/store/blobs/model", "/store/blobs/vae"] * 2
    assert result.err == ""


def test_a_renamed_model_is_pulled_with_a_warning(zoo, pulling, tmp_path):
    card = tmp_path / "cards" / "far.toml"
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("default", 'renamed = { old = "single" }\ndefault', 1), encoding="utf-8")
    result = zoo("pull", "far:old", "-q")
    assert (result.code, result.err) == (0, "Warning: far:old is now called far:single\n")


# Several references


def test_one_that_fails_does_not_stop_the_rest(zoo, pulling):
    pulling.errors = {
        "far:gone": ChecksumError("far:gone is not what it was", "look at it"),
        "far:unclear": NetworkError("the line is dead"),
    }
    result = zoo("pull", "far:gone", "far:single", "far:unclear", "far:nowhere", "far:several")
    assert result.code == ExitCode.CHECKSUM, "that of the first failure"
    assert [reference for reference, _ in pulling.calls] == [
        "far:gone",
        "far:single",
        "far:unclear",
        "far:several",
    ]
    assert [line for line in result.lines if not line.startswith(" ")] == [
        "far:single: pulled, 2.0 MiB",
        "far:several: pulled, 2.0 MiB",
    ]
    errors = [line for line in result.err.splitlines() if line.startswith(("Error", "Hint"))]
    assert errors[:3] == [
        "Error: far:gone is not what it was",
        "Hint: look at it",
        "Error: far:unclear: the line is dead",
    ]
    assert errors[3] == "Error: no model is called 'far:nowhere'"
    assert "Traceback" not in result.err


def test_json_is_an_array_for_several_references(zoo, pulling):
    pulling.errors = {"far:gone": NetworkError("dead")}
    assert [entry["reference"] for entry in zoo("pull", "far:single", "far:several", "--json").json] == [
        "far:single",
        "far:several",
    ]
    result = zoo("pull", "far:gone", "far:several", "--json")
    assert (result.code, [entry["reference"] for entry in result.json]) == (1, ["far:several"])
    assert zoo("pull", "far:gone", "far:nowhere", "--json").json == []


def test_one_that_fails_alone_prints_no_document(zoo, pulling):
    pulling.errors = {"far": NetworkError("dead", "wait")}
    result = zoo("pull", "far", "--json")
    assert (result.code, result.out, result.err) == (1, "", "Error: dead\nHint: wait\n")


def test_tracebacks_on_request(zoo, pulling, monkeypatch):
    monkeypatch.setenv("ZOO_DEBUG", "1")
    pulling.errors = {"far:gone": NetworkError("dead")}
    assert "Traceback" in zoo("pull", "far:gone", "far:single").err


def test_an_interrupt_says_that_the_download_is_kept(zoo, pulling):
    pulling.errors = {"far:several": KeyboardInterrupt()}
    result = zoo("pull", "far:single", "far:several", "far:gone")
    assert result.code == ExitCode.INTERRUPTED == 130
    assert result.lines[0] == "far:single: pulled, 2.0 MiB"
    assert result.err.splitlines()[-2:] == [
        "Error: interrupted",
        "Hint: what was downloaded is kept; the same command resumes",
    ]
    assert len(pulling.calls) == 2
    assert zoo("pull", "far:several", "--json").out == ""


# With the store


def test_a_model_is_pulled_once(zoo, cards):
    digest = hashlib.sha256(b"words").hexdigest()
    result = zoo("pull", "far", "--json")
    (file,) = result.json["files"]
    assert (file["role"], file["sha256"], file["size"], file["verified"]) == ("words", digest, 5, False)
    assert Path(file["path"]).read_bytes() == b"words"
    assert manifest_path("far", "single").is_file()
    (cards / "words.json").unlink()
    again = zoo("pull", "far")
    assert again.lines[0] == "far:single: already here, 5 B"
    assert zoo("pull", "far", "-q").lines == [file["path"]]


def test_built_in_models_have_nothing_to_pull(zoo, few):
    for reference, place in (("toy:shapes", "ships with zoo-toy"), ("few", "lies beside its card")):
        result = zoo("pull", reference)
        assert result.code == 0
        name = "few:shapes" if reference == "few" else reference
        assert result.lines[0] == f"{name}: {place}, nothing to pull"
        assert result.err == f"Hint: zoo sample {name}\n"
        (file,) = zoo("pull", reference, "--json").json["files"]
        assert hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest() == file["sha256"]
        assert not manifest_path(*name.split(":")).exists()


def test_nobody_s_weights_cannot_be_pulled(zoo, cards):
    for arguments in ([], ["--from", str(cards / "words.json")]):
        result = zoo("pull", "far:nothing", *arguments)
        assert result.code == ExitCode.NOT_FOUND
        assert "nobody has published weights of far:nothing" in result.err


def test_an_unknown_model_has_near_matches(zoo, cards):
    result = zoo("pull", "far:singel")
    assert result.code == ExitCode.NOT_FOUND
    assert result.err.splitlines()[1] == "Hint: Did you mean: far:single?"


def test_a_plugin_may_answer_for_a_reference(zoo, cards, monkeypatch):
    from zoo.session import Session

    resolve = Session.resolve
    monkeypatch.setattr(
        Session, "resolve", lambda self, text: resolve(self, "far:single" if text == "elsewhere" else text)
    )
    assert zoo("pull", "elsewhere").lines[0] == "far:single: pulled, 5 B"
