"""Cards: what is accepted, and that every mistake names file, table and key."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path

import pytest
from third_party import card

from zoo.cards import Component, File, Variant, load_card, parse_card
from zoo.errors import CardError

FULL = """
schema  = 1
method  = "x"
title   = "X"
summary = "s"
tasks   = ["a", "b"]
tags    = ["t"]
default = "one"
renamed = { old = "one" }
paper   = { title = "P", arxiv = "1234.5678", year = 2024 }
code    = { url = "https://example.org", revision = "abc" }

[variant.one]
summary      = "v"
architecture = "arch"
config       = { width = 3, nested = { deep = [1, 2] } }
sampler      = { name = "s", guidance = 2 }
params       = 12
classes      = ["cat", "dog"]
aliases      = ["uno"]
licence      = { weights = "MIT", accept = true }
metrics      = [{ name = "FID", value = 3, source = "table 1" }]
captions     = "shapes"

[variant.one.components.vae]
architecture = "decoder"

[variant.one.components.text_encoder]
architecture = "encoder"
config       = { depth = 2, nested = { words = ["a", "the"] } }
files        = ["vae", "model"]
dtype        = "bfloat16"

[[variant.one.files]]
role   = "model"
source = ["weights/x.safetensors", "https://example.org/x"]
size   = 7
sha256 = "DIGEST"

[[variant.one.files]]
role   = "vae"
source = ["hf://o/r/vae.pth@main"]
size   = 5
format = "pytorch"

[variant.two]
summary      = "w"
architecture = "arch"
""".replace("DIGEST", "0" * 64)


def document() -> dict:
    return tomllib.loads(FULL)


def test_everything_is_read(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(FULL, encoding="utf-8")
    read = load_card(path, "someone")
    one = read.variants["one"]
    assert (read.method, read.tasks, read.origin, read.path) == ("x", ("a", "b"), "someone", path)
    assert read.paper is not None
    assert (read.paper.arxiv, read.paper.year, read.paper.url) == ("1234.5678", 2024, None)
    assert one.config == {"width": 3, "nested": {"deep": [1, 2]}}
    assert one.classes == ("cat", "dog")
    assert one.licence is not None
    assert one.licence.accept is True
    assert one.metrics[0].value == 3.0
    assert isinstance(one.metrics[0].value, float)
    assert one.size == 12
    assert [file.role for file in one.files] == ["model", "vae"]
    assert one.files[0].local(read.folder) == tmp_path / "weights/x.safetensors"
    assert one.files[1].local(read.folder) is None
    assert read.variants["two"].size is None


def test_components_are_read():
    read = parse_card(document()).variants["one"]
    assert list(read.components) == ["vae", "text_encoder"]
    assert read.components["vae"] == Component("decoder", config={}, files=(), dtype=None)
    assert read.components["text_encoder"] == Component(
        "encoder", {"depth": 2, "nested": {"words": ["a", "the"]}}, ("vae", "model"), "bfloat16"
    )
    assert read.captions == "shapes"


def test_most_variants_have_neither_components_nor_captions():
    read = parse_card(document()).variants["two"]
    assert read.components == {}
    assert read.captions is None


def test_the_files_of_a_component():
    files = (
        File("tokenizer", ("t",)),
        File("vae", ("v",)),
        File("encoder-1", ("a",)),
        File("encoder-2", ("b",)),
    )
    encoder = Component("encoder", files=("encoder-2", "tokenizer", "encoder-1"))
    components = {"text_encoder": encoder, "vae": Component("decoder"), "words": Component("words")}
    variant = Variant("one", "s", "arch", {}, {}, files=files, components=components)
    assert [file.role for file in variant.files_of("text_encoder")] == ["encoder-2", "tokenizer", "encoder-1"]
    assert variant.files_of("vae") == (files[1],)
    assert variant.files_of("words") == ()


def test_named_files_replace_that_of_the_own_role():
    files = (File("vae", ("v",)), File("shared", ("s",)))
    components = {"vae": Component("decoder", files=("shared",))}
    assert Variant("one", "s", "arch", {}, {}, files=files, components=components).files_of("vae") == (
        files[1],
    )


def test_variants_by_name_alias_and_former_name():
    read = parse_card(document())
    assert read.find("uno") is read.find("old") is read.find("one") is read.variants["one"]
    assert read.find("three") is None


def test_a_size_is_unknown_when_one_file_s_is():
    changed = document()
    del changed["variant"]["one"]["files"][1]["size"]
    assert parse_card(changed).variants["one"].size is None


COMPONENTS = ("variant", "one", "components")

# path in the document -> new value (None deletes the key), and what the message must name
MISTAKES = [
    (("schema",), 2, "[top level] schema: expected 1, got 2"),
    (("schema",), None, "[top level] schema"),
    (("sumary",), "x", "[top level] sumary: unknown key"),
    (("path",), "x", "[top level] path: unknown key"),
    (("origin",), "x", "[top level] origin: unknown key"),
    (("variants",), {}, "[top level] variants: unknown key"),
    (("title",), None, "[top level] title: missing"),
    (("title",), 3, "[top level] title: expected a text, got 3"),
    (("method",), "A b", "[top level] method: 'A b' is not a valid name"),
    (("default",), "onne", "[top level] default: names no variant: 'onne'"),
    (("tasks",), "a", "[top level] tasks: expected a list, got 'a'"),
    (("tasks",), ["a", 3], "[top level] tasks[1]: expected a text, got 3"),
    (("renamed", "old"), "three", "[renamed] old: names no variant: 'three'"),
    (("renamed", "old"), ["one"], "[renamed] old: expected a text"),
    (("renamed", "two"), "one", "[renamed] two: expected the former name"),
    (("paper",), "title", "[top level] paper: expected a table, got 'title'"),
    (("paper", "yaer"), 1, "[paper] yaer: unknown key"),
    (("paper", "title"), None, "[paper] title: missing"),
    (("variant",), {}, "[top level] variant: expected at least one"),
    (("variant",), 3, "[top level] variant: expected at least one"),
    (("variant", "one"), 3, "[variant.one] one: expected a table"),
    (("variant", "No"), {"summary": "", "architecture": "a"}, "[variant.No] name: 'No' is not a valid name"),
    (("variant", "one", "name"), "x", "[variant.one] name: unknown key"),
    (("variant", "one", "architecture"), None, "[variant.one] architecture: missing"),
    (("variant", "one", "parms"), 3, "[variant.one] parms: unknown key"),
    (("variant", "one", "params"), 3.5, "[variant.one] params: expected a whole number, got 3.5"),
    (("variant", "one", "params"), True, "[variant.one] params: expected a whole number, got True"),
    (("variant", "one", "config"), [], "[variant.one] config: expected a table, got []"),
    (("variant", "one", "sampler"), {"x": 1}, "[variant.one.sampler] name: expected the sampler's name"),
    (("variant", "one", "aliases"), ["two"], "[variant.one] aliases: 'two' is taken"),
    (("variant", "one", "aliases"), ["B"], "[variant.one] aliases: 'B' is not a valid name"),
    (
        ("variant", "one", "licence", "accept"),
        1,
        "[variant.one.licence] accept: expected true or false, got 1",
    ),
    (
        ("variant", "one", "metrics", 0, "value"),
        "x",
        "[variant.one.metrics[0]] value: expected a number, got 'x'",
    ),
    (("variant", "one", "files", 0, "sorce"), "x", "[variant.one.files[0]] sorce: unknown key"),
    (
        ("variant", "one", "files", 0, "source"),
        [],
        "[variant.one.files[0]] source: expected at least one address",
    ),
    (
        ("variant", "one", "files", 1, "sha256"),
        "abc",
        "[variant.one.files[1]] sha256: expected 64 hexadecimal",
    ),
    (("variant", "one", "files", 1, "size"), -1, "[variant.one.files[1]] size: expected bytes, got -1"),
    (("variant", "one", "files", 0, "format"), "onnx", "[variant.one.files[0]] format: expected one of"),
    (("variant", "one", "files", 1, "role"), "model", "[variant.one.files[1]] role: 'model' stands twice"),
    (
        ("variant", "one", "captions"),
        "shape",
        "[variant.one] captions: expected one of 'shapes', got 'shape'",
    ),
    (("variant", "one", "captions"), True, "[variant.one] captions: expected one of 'shapes', got True"),
    (("variant", "one", "components"), ["vae"], "[variant.one] components: expected a table, got ['vae']"),
    ((*COMPONENTS, "vae"), "vae", "[variant.one.components] vae: expected a table, got 'vae'"),
    (
        (*COMPONENTS, "vae", "role"),
        "vae",
        "[variant.one.components.vae] role: unknown key",
    ),
    (
        (*COMPONENTS, "vae", "architecture"),
        None,
        "[variant.one.components.vae] architecture: missing",
    ),
    (
        (*COMPONENTS, "vae", "config"),
        3,
        "[variant.one.components.vae] config: expected a table, got 3",
    ),
    (
        (*COMPONENTS, "vae", "files"),
        "vae",
        "[variant.one.components.vae] files: expected a list, got 'vae'",
    ),
    (
        (*COMPONENTS, "vae", "files"),
        ["vae", "vea"],
        "[variant.one.components.vae] files[1]: names no file: 'vea'",
    ),
    (
        (*COMPONENTS, "text_encoder", "files"),
        ["vae", "model", "vae"],
        "[variant.one.components.text_encoder] files[2]: 'vae' stands twice",
    ),
    (
        (*COMPONENTS, "model"),
        {"architecture": "arch"},
        "[variant.one.components] model: expected the role of a part beside the model",
    ),
    *(
        (
            (*COMPONENTS, role),
            {"architecture": "arch"},
            f"[variant.one.components] {role}: {role!r} is not a valid name",
        )
        for role in ("", "VAE", "../vae", "text encoder")
    ),
    *(
        (
            ("variant", "one", "files", 0, "role"),
            role,
            f"[variant.one.files[0]] role: {role!r} is not a valid name",
        )
        for role in ("", "Model", "../model", "a/b", ".model", "text encoder", "x" * 65, "a\n")
    ),
    (("variant", "one", "files", 0, "role"), 3, "[variant.one.files[0]] role: expected a text, got 3"),
    *(
        (
            ("variant", "one", "files", 0, "size"),
            size,
            f"[variant.one.files[0]] size: expected bytes, got {size}",
        )
        for size in (-1, 2**50 + 1, 10**30)
    ),
    (
        ("variant", "one", "files", 0, "size"),
        True,
        "[variant.one.files[0]] size: expected a whole number, got True",
    ),
    (
        ("variant", "one", "files", 0, "size"),
        7.0,
        "[variant.one.files[0]] size: expected a whole number, got 7.0",
    ),
    (
        ("variant", "one", "files", 0, "entry"),
        "ema",
        "[variant.one.files[0]] entry: expected the name of an entry of a pytorch file",
    ),
    (
        ("variant", "one", "files", 1, "entry"),
        "",
        "[variant.one.files[1]] entry: expected the name of an entry of a pytorch file",
    ),
]


@pytest.mark.parametrize(("where", "value", "expected"), MISTAKES, ids=[f"{m[0]}-{m[1]}" for m in MISTAKES])
def test_a_mistake_names_file_table_and_key(where, value, expected):
    changed = copy.deepcopy(document())
    place = changed
    for key in where[:-1]:
        place = place[key]
    if value is None:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    with pytest.raises(CardError) as caught:
        parse_card(changed, Path("cards/x.toml"))
    assert caught.value.message.startswith("cards/x.toml: ")
    assert expected in caught.value.message


FINE = [
    "x.safetensors",
    "weights/x.safetensors",
    "weights/../x.safetensors",
    "./a:b",
    "https://example.org/x.pth",
    "https://example.org:8443/a%20b/x.pth?download=true",
    "https://example.org/a@b",
    "http://localhost:8000/x",
    "http://127.0.0.1/x",
    "http://127.8.9.10:81/x",
    "http://[::1]:81/x",
    "hf://o/r/x.pth",
    "hf://o/r/folder/x.pth@main",
    "file:///data/x.pth",
    "file://localhost/data/x.pth",
    "s3://bucket/x.pth",
    "git+ssh://git@example.org/x",
]

FOREIGN = [
    ("", "is a folder"),
    (".", "is a folder"),
    ("weights/", "is a folder"),
    ("weights/..", "is a folder"),
    ("../x", "leads out of the card's folder"),
    ("a/../../a/x", "leads out of the card's folder"),
    ("/data/x", "is an absolute path"),
    ("weights\\x", "holds a backslash"),
    ("https://example.org\\@evil.org/x", "holds a backslash"),
    ("a\0b", "holds a character that cannot be printed"),
    ("https://example.org/\x1b[2Jx", "holds a character that cannot be printed"),
    ("hf://o/r/\u202ex", "holds a character that cannot be printed"),
    ("https:/example.org/x", "is of no known form"),
    ("http:x", "is of no known form"),
    ("C:x", "is of no known form"),
    ("HTTPS://example.org/x", "is of no known form"),
    ("3s://bucket/x", "is of no known form"),
    ("://x", "is of no known form"),
    ("weights/a://b", "is of no known form"),
    ("s3://", "is only a scheme"),
    ("https://", "is no address"),
    ("https:///x", "is no address"),
    ("https://[::1/x", "is no address"),
    ("https://example.org:99999/x", "is no address"),
    ("https://example.org/a b", "is no address"),
    ("https://exämple.org/x", "is no address"),
    ("http://example.org/x", "is plain http"),
    ("http://127.evil.org/x", "is plain http"),
    ("http://localhost.evil.org/x", "is plain http"),
    ("http://0.0.0.0/x", "is plain http"),
    ("hf://o/x", "is no address of the hub: names no file"),
    ("hf://o/r/../x", "is no address of the hub"),
    ("hf://o/r/a/./x", "is no address of the hub"),
    ("hf://../r/x", "is no address of the hub"),
    ("hf://o/r/x@", "is no address of the hub"),
    ("hf://datasets/r/x", "is no address of the hub"),
    ("file://server/x", "is of another machine"),
    ("file://", "is of another machine"),
    ("file:///data/", "is a folder"),
]


def with_sources(*sources: str) -> dict:
    changed = document()
    changed["variant"]["one"]["files"][0]["source"] = list(sources)
    return changed


@pytest.mark.parametrize("source", FINE)
def test_sources_of_a_known_form(source):
    assert parse_card(with_sources(source)).variants["one"].files[0].source == (source,)


@pytest.mark.parametrize(("source", "problem"), FOREIGN, ids=[repr(source) for source, _ in FOREIGN])
def test_other_sources_are_refused(source, problem):
    with pytest.raises(CardError) as caught:
        parse_card(with_sources("https://example.org/x", source), Path("cards/x.toml"))
    message = caught.value.message
    assert message.startswith(f"cards/x.toml: [variant.one.files[0]] source[1]: {source!r} {problem}")


@pytest.mark.parametrize(
    "source",
    [
        "https://me:hunter2@example.org/x",
        "https://hunter2@example.org/x",
        "HTTPS://hunter2@example.org/x",
        "https://hunter2@example.org",
        "https://me:hunter2@example.org?x",
        "https://me:hunter2@example.org\\x",
        "http://me:hunter2@localhost/x",
        "s3://me:hunter2@bucket/x",
        "hf://me:hunter2@huggingface.co/o/r/x",
        "file://me:hunter2@localhost/x",
    ],
)
def test_a_secret_in_a_source_is_refused_and_not_said_back(source):
    with pytest.raises(CardError) as caught:
        parse_card(with_sources(source))
    assert "source[0]: an address with a user or a password" in caught.value.message
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


def test_raw_files_are_kept_as_they_are():
    changed = document()
    file = {"role": "text_encoder.tokenizer-2", "source": ["hf://o/r/t.json"], "format": "raw"}
    changed["variant"]["one"]["files"].append(file)
    read = parse_card(changed).variants["one"].files[2]
    assert (read.format, read.role, read.entry) == ("raw", "text_encoder.tokenizer-2", None)
    file["converter"] = "c"
    with pytest.raises(CardError, match=r"files\[2\]\] converter: a raw file is kept as it is"):
        parse_card(changed)


def test_an_entry_of_a_checkpoint():
    changed = document()
    changed["variant"]["one"]["files"][1]["entry"] = "model_ema"
    assert parse_card(changed).variants["one"].files[1].entry == "model_ema"


def test_the_largest_size():
    changed = document()
    changed["variant"]["one"]["files"][0]["size"] = 2**50
    assert parse_card(changed).variants["one"].files[0].size == 2**50


@pytest.mark.parametrize(
    ("where", "value", "hint"),
    [
        (("variant", "one", "architectur"), "x", "Did you mean: architecture?"),
        (("variant", "one", "component"), {}, "Did you mean: components, converter?"),
        ((*COMPONENTS, "vae", "fils"), ["vae"], "Did you mean: files?"),
        ((*COMPONENTS, "vae", "files"), ["vea"], "Did you mean: vae?"),
    ],
    ids=str,
)
def test_an_unknown_name_has_a_near_match(where, value, hint):
    changed = document()
    place = changed
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(CardError) as caught:
        parse_card(changed)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"method = ", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        (b"a = " + b"[" * 5000, "is not valid TOML"),
        (card("other").encode(), "'other' is not the file's name 'x'"),
    ],
)
def test_files_that_are_no_cards(tmp_path, content, expected):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(CardError, match=expected) as caught:
        load_card(path)
    assert caught.value.message.startswith(f"{path}: ")


def test_a_folder_or_missing_file_is_no_card(tmp_path):
    (tmp_path / "x.toml").mkdir()
    for name in ("x.toml", "y.toml"):
        with pytest.raises(CardError, match="cannot be read"):
            load_card(tmp_path / name)


def test_only_the_first_source_decides_whether_a_file_is_local(tmp_path):
    assert File("model", ("https://e.org/x", "weights/x")).local(tmp_path) is None
    assert File("model", ("file:///x",)).local(tmp_path) is None
