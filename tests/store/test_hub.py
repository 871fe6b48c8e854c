"""The hub through the real huggingface_hub: addresses, metadata, refusals, tries, and answers that lie."""

import hashlib
import inspect
import socket
import sys

import pytest
from hub_cases import ADDRESS, CONFIG, DIGEST, NAME, WEIGHTS
from huggingface_hub import constants, get_hf_file_metadata
from servers.hub import use_hub

from zoo.errors import (
    ExitCode,
    LicenceError,
    NetworkError,
    NotFound,
    OutputNotWritable,
    PluginError,
    WeightsError,
)
from zoo.store.download.web import Target, request
from zoo.store.hub import client as hub
from zoo.store.hub.cache import HubFile


@pytest.fixture
def pauses(monkeypatch):
    slept = []
    monkeypatch.setattr(hub, "sleep", slept.append)
    return slept


releases_that_leave_it_to_us = pytest.mark.skipif(
    "retry_on_errors" not in inspect.signature(get_hf_file_metadata).parameters,
    reason="a release of huggingface_hub that repeats requests after 429 itself",
)


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


# Switches and tokens


@pytest.mark.parametrize("switch", ["ZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_switch_forbids_requests(monkeypatch, server, cache, model, switch):
    for value in ("0", "", "no", "off"):
        monkeypatch.setenv(switch, value)
        assert hub.offline() is None
    for value in ("1", "true", "YES", "on"):
        monkeypatch.setenv(switch, value)
        assert hub.offline() == switch
    with pytest.raises(NetworkError, match=switch) as caught:
        hub.describe_file(hub.parse_hub("hf://org/model/config.json"))
    assert f"{server.endpoint}/org/model/resolve/main/config.json" in caught.value.message
    assert switch in caught.value.hint
    file = a_file(cache, only_xet=True)
    with pytest.raises(NetworkError, match=switch):
        hub.download_with_xet(file, lambda done, total: None)
    assert server.requests == []


def test_the_library_being_offline_is_told_as_that(monkeypatch, server, cache, model, pauses):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="TRANSFORMERS_OFFLINE"):
        hub.describe_file(hub.parse_hub("hf://org/model/config.json"))
    assert (server.requests, pauses) == ([], [])


def test_the_token_is_that_of_the_library(monkeypatch, cache):
    assert hub.token() is None
    cache.parent.mkdir()
    (cache.parent / "token").write_text("hf_stored\n")
    assert hub.token() == "hf_stored"
    monkeypatch.setenv("HF_TOKEN", " hf_given\n")
    assert hub.token() == "hf_given"
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert hub.token() is None


def test_a_token_that_cannot_be_sent_is_told_without_showing_it(monkeypatch, cache):
    monkeypatch.setenv("HF_TOKEN", "hf_secrét")
    with pytest.raises(LicenceError) as caught:
        hub.token()
    assert "secr" not in caught.value.message + caught.value.hint
    monkeypatch.delenv("HF_TOKEN")
    (cache.parent / "token").mkdir(parents=True)
    with pytest.raises(LicenceError, match="cannot be read"):
        hub.token()


# Metadata


def test_a_large_file_is_described_by_its_sha256(server, cache, model):
    file = hub.describe_file(ADDRESS)
    commit = model.refs["main"]
    assert (file.commit, file.revision, file.size) == (commit, "main", len(WEIGHTS))
    assert (file.sha256, file.git_sha1, file.etag) == (DIGEST, None, DIGEST)
    assert file.url == f"{server.endpoint}/org/model/resolve/{commit}/sub/w.safetensors"
    assert file.blob == cache / "models--org--model" / "blobs" / DIGEST
    assert file.pointer == cache / "models--org--model" / "snapshots" / commit / "sub" / "w.safetensors"
    assert hub.part_path(file).parent == file.blob.parent
    assert not file.only_xet
    assert [request.method for request in server.requests] == ["HEAD"]
    assert server.cdn.requests == []


def test_a_small_file_is_described_by_the_digest_of_git(server, cache, model):
    file = hub.describe_file(hub.parse_hub("hf://org/model/config.json"), timeout=5.0)
    digest = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert (file.sha256, file.git_sha1, file.size) == (None, digest, len(CONFIG))


def test_the_revision_that_is_asked_for_wins(server, cache, model):
    first = model.refs["main"]
    second = model.commit({"config.json": b"{}"})
    pinned = hub.parse_hub(f"hf://org/model/config.json@{first}")
    assert (hub.describe_file(pinned).commit, hub.describe_file(pinned).revision) == (first, first)
    assert hub.describe_file(pinned, "main").commit == second
    assert hub.describe_file(pinned, "main").revision == "main"


def test_a_renamed_repository_is_found(server, cache, model):
    server.rename("org/model", "org/other")
    file = hub.describe_file(ADDRESS)
    assert file.sha256 == DIGEST
    with request(Target(file.url, file.headers)) as answer:
        assert answer.read(10) == WEIGHTS[:10]


def test_an_etag_that_is_no_digest_promises_nothing(server, cache, model):
    server.lies["X-Linked-ETag"] = '"12ab-34"'
    file = hub.describe_file(ADDRESS)
    assert (file.etag, file.sha256, file.git_sha1) == ("12ab-34", None, None)


def test_a_weak_etag_names_the_same_blob(server, cache, model):
    server.lies["X-Linked-ETag"] = f'W/"{DIGEST}"'
    assert hub.describe_file(ADDRESS).sha256 == DIGEST


@pytest.mark.parametrize("lie", ["many", "-5"])
def test_a_size_that_nobody_tells_is_none(server, cache, model, lie):
    server.lies |= {"X-Linked-Size": lie}
    assert hub.describe_file(ADDRESS).size is None


# Tokens


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(monkeypatch, server, cache):
    token = server.login("me")
    gated = server.repository("org/gated", gated=True)
    gated.commit({"w.safetensors": WEIGHTS, "config.json": CONFIG})
    gated.granted.add(token)
    monkeypatch.setenv("HF_TOKEN", token)
    for path, content in (("w.safetensors", WEIGHTS), ("config.json", CONFIG)):
        file = hub.describe_file(hub.parse_hub(f"hf://org/gated/{path}"))
        sent = {name.lower(): value for name, value in file.headers.items()}
        assert sent["authorization"] == f"Bearer {token}"
        assert sent["user-agent"].startswith("zoo/")
        assert file.url.startswith(server.endpoint + "/")
        assert token not in file.url + repr(file)
        with request(Target(file.url, file.headers)) as answer:
            assert answer.read(len(content)) != b""
    assert server.tokens_shown("hub") == {f"Bearer {token}"}
    assert server.tokens_shown("cdn") == set()
    assert [each.status for each in server.cdn.requests] == [200]


def test_without_a_login_no_header_of_one_is_sent(server, cache, model):
    file = hub.describe_file(hub.parse_hub("hf://org/model/config.json"))
    assert "authorization" not in {name.lower() for name in file.headers}
    assert server.tokens_shown("hub") == set()


# Refusals


def refusals(server):
    """What is asked, with which token, and what is to be told: the class, words of message and hint."""
    me = server.login("me")
    for name in ("open", "disabled", "private", "gated"):
        made = server.repository(f"org/{name}", **({} if name == "open" else {name: True}))
        made.commit({"a.bin": b"content"})
    page = f"{server.endpoint}/org"
    where = f"{page}/{{}}/resolve/main/a.bin"
    settings = f"{server.endpoint}/settings/tokens"
    return [
        ("gated/a.bin", None, LicenceError, where.format("gated"), "needs a login", settings),
        ("private/a.bin", None, LicenceError, where.format("private"), "no such repository", "hf auth login"),
        ("none/a.bin", None, LicenceError, where.format("none"), "needs a login", "HF_TOKEN"),
        ("open/a.bin", "hf_wrong", LicenceError, where.format("open"), "is not accepted", settings),
        ("gated/a.bin", me, LicenceError, f"{page}/gated", "not been given access", f"Open {page}/gated"),
        ("private/a.bin", me, NotFound, f"{page}/private", "no such repository that", "hf auth whoami"),
        ("none/a.bin", me, NotFound, f"{page}/none", "no such repository that", "hf auth whoami"),
        ("disabled/a.bin", None, NotFound, f"{page}/disabled", "has been disabled", "page"),
        ("open/a.bin@v9", None, NotFound, f"{page}/open", "no revision 'v9'", f"{page}/open/commits"),
        ("open/b.bin", None, NotFound, f"{page}/open", "no file 'b.bin' at", f"{page}/open/tree/main"),
    ]


def test_each_refusal_has_its_own_text(monkeypatch, tmp_path, server, cache, pauses):
    told = set()
    for path, token, kind, url, words, hint in refusals(server):
        with monkeypatch.context() as patch:
            if token is not None:
                patch.setenv("HF_TOKEN", token)
            with pytest.raises(kind) as caught:
                hub.describe_file(hub.parse_hub(f"hf://org/{path}"))
        error = caught.value
        assert type(error) is kind
        assert error.exit_code == (ExitCode.LICENCE if kind is LicenceError else ExitCode.NOT_FOUND)
        assert error.message.startswith(url), path
        assert words in error.message
        assert hint in error.hint
        assert error.message.isprintable()
        assert token is None or token not in error.message + error.hint
        told.add(error.message)
    assert len(told) == len(refusals(server))
    assert pauses == []
    assert files_below(tmp_path) == []


def test_what_the_server_says_of_a_gate_is_passed_on_in_one_line(monkeypatch, server, cache):
    monkeypatch.setenv("HF_TOKEN", server.login("me"))
    server.repository("org/gated", gated=True).commit({"a.bin": b""})
    with pytest.raises(LicenceError) as caught:
        hub.describe_file(hub.parse_hub("hf://org/gated/a.bin"))
    assert caught.value.hint.splitlines()[-1] == (
        "The server says: Access to model org/gated is restricted and you are not in the authorized list."
    )


def test_a_token_without_the_right_is_told_as_that(monkeypatch, server, cache, model):
    server.burst(403, 1, X_Error_Message="Enable access to gated repositories \x1b[2J in the token")
    with pytest.raises(LicenceError, match="not been given access") as caught:
        hub.describe_file(hub.parse_hub("hf://org/model/config.json"))
    assert all(line.isprintable() for line in caught.value.hint.splitlines())
    assert "in the token" in caught.value.hint


# Tries


def test_a_busy_server_is_asked_again(server, cache, model, pauses):
    for status in (500, 502, 503):
        server.reset()
        server.burst(status, 2)
        assert hub.describe_file(ADDRESS).size == len(WEIGHTS)
        assert server.asked("/resolve/main/") == 3
    assert pauses == [1.0, 2.0] * 3


def test_three_tries_are_all(server, cache, model, pauses):
    server.burst(503, 9)
    with pytest.raises(NetworkError, match="503") as caught:
        hub.describe_file(ADDRESS)
    assert server.asked("/resolve/") == 3
    assert caught.value.exit_code == ExitCode.FAILED
    assert server.endpoint in caught.value.message


@releases_that_leave_it_to_us
@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"RateLimit": '"resolvers";r=0;t=9'}, 9.0),
        ({"RateLimit": '"resolvers";r=5;t=9'}, 1.0),
        ({"Retry_After": "0"}, 1.0),
        ({"Retry_After": "soon"}, 1.0),
    ],
)
def test_the_server_says_how_long_to_wait(server, cache, model, pauses, headers, pause):
    server.burst(429, 1, **headers)
    hub.describe_file(ADDRESS)
    assert pauses == [pause]


@releases_that_leave_it_to_us
def test_a_server_that_asks_for_a_long_pause_is_left_alone(server, cache, model, pauses):
    server.burst(429, 1, Retry_After="300")
    with pytest.raises(NetworkError, match="too often") as caught:
        hub.describe_file(ADDRESS)
    assert "300 s" in caught.value.hint
    assert (server.asked("/resolve/"), pauses) == (1, [])


def test_a_request_that_makes_no_sense_is_not_repeated(server, cache, model, pauses):
    server.burst(400, 1)
    with pytest.raises(NetworkError, match="400"):
        hub.describe_file(ADDRESS)
    assert (server.asked("/resolve/"), pauses) == (1, [])


def test_a_broken_connection_is_tried_again(server, cache, model, pauses):
    server.drop(2)
    assert hub.describe_file(ADDRESS).size == len(WEIGHTS)
    server.drop(3)
    with pytest.raises(NetworkError, match="broke off"):
        hub.describe_file(ADDRESS)
    assert pauses == [1.0, 2.0, 1.0, 2.0]


def test_a_server_that_does_not_answer_is_given_up(monkeypatch, tmp_path, pauses):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        with pytest.raises(NetworkError, match="no answer in time"):
            hub.describe_file(hub.parse_hub("hf://org/model/w.bin"), timeout=0.02)
    assert len(pauses) == 2


def test_a_refused_connection_is_not_tried_again(monkeypatch, tmp_path, pauses):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use_hub(monkeypatch, f"http://127.0.0.1:{port}", tmp_path)
    with pytest.raises(NetworkError, match="was refused") as caught:
        hub.describe_file(hub.parse_hub("hf://org/model/w.bin"))
    assert f"127.0.0.1:{port}/org/model" in caught.value.message
    assert "HF_ENDPOINT" in caught.value.hint
    assert pauses == []


def test_a_name_that_cannot_be_resolved_is_not_tried_again(monkeypatch, tmp_path, pauses):
    asked = []

    def unknown(*args, **options):
        asked.append(args[0])
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    use_hub(monkeypatch, "https://hub.invalid", tmp_path)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NetworkError, match="cannot be resolved"):
        hub.describe_file(hub.parse_hub("hf://org/model/w.bin"))
    assert ([str(name) for name in asked], pauses) == (["hub.invalid"], [])


def test_a_server_that_is_no_hub_is_told_as_that(server, cache, model):
    server.lies["X-Repo-Commit"] = None
    with pytest.raises(NetworkError, match="not that of a hub") as caught:
        hub.describe_file(ADDRESS)
    assert server.endpoint in caught.value.hint


# Lies


@pytest.mark.parametrize("path", [NAME, "config.json"])
@pytest.mark.parametrize(
    "commit", ["../../..", "..", "main", "A" * 40, "a" * 39, "a" * 41, "/" + "a" * 39, "a" * 38 + "/.", ""]
)
def test_a_commit_that_is_none_is_refused(server, cache, model, tmp_path, path, commit):
    server.lies["X-Repo-Commit"] = commit
    with pytest.raises(WeightsError, match="commit") as caught:
        hub.describe_file(hub.parse_hub(f"hf://org/model/{path}"))
    assert caught.value.message.isprintable()
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("path", [NAME, "config.json"])
@pytest.mark.parametrize(
    "etag",
    [
        '"../../evil"',
        '"/etc/passwd"',
        'W/"../x"',
        '".."',
        '".hidden"',
        '"a/b"',
        '"a\\b"',
        '"a"b"',
        '"a b"',
        '"a\tb"',
        '"' + "a" * 129 + '"',
        '"x.zoo-part"',
        '"x.bad"',
        '""',
    ],
)
def test_an_etag_that_is_no_plain_name_is_refused(server, cache, model, tmp_path, path, etag):
    server.lies["ETag" if path == "config.json" else "X-Linked-ETag"] = etag
    with pytest.raises(WeightsError, match="etag") as caught:
        hub.describe_file(hub.parse_hub(f"hf://org/model/{path}"))
    assert caught.value.message.isprintable()
    assert files_below(tmp_path) == []


def test_another_commit_than_the_pinned_one_is_refused(server, cache, model):
    server.lies["X-Repo-Commit"] = "b" * 40
    with pytest.raises(WeightsError, match="b" * 40):
        hub.describe_file(hub.parse_hub(f"hf://org/model/sub/w.safetensors@{model.refs['main']}"))
    assert hub.describe_file(ADDRESS).commit == "b" * 40


# Xet


def a_file(cache, **changes):
    commit = "c" * 40
    values = {
        "address": hub.parse_hub("hf://org/model/sub/w.safetensors@main"),
        "revision": "main",
        "commit": commit,
        "size": len(WEIGHTS),
        "etag": DIGEST,
        "sha256": DIGEST,
        "git_sha1": None,
        "url": "https://hub.example/org/model/resolve/main/sub/w.safetensors",
        "headers": {},
        "blob": cache / "models--org--model" / "blobs" / DIGEST,
        "pointer": cache / "models--org--model" / "snapshots" / commit / "sub" / "w.safetensors",
        "only_xet": False,
    }
    return HubFile(**{**values, **changes})


def test_a_huge_file_in_xet_cannot_be_had_otherwise(server, cache, model):
    xet = {"X-Xet-Hash": "d" * 64, "X-Xet-Refresh-Route": f"{server.endpoint}/api/xet"}
    for lies, only in (
        ({"X-Linked-Size": "50000000001"} | xet, True),
        ({"X-Linked-Size": "50000000000"} | xet, False),
        ({"X-Linked-Size": "50000000001"}, False),
        (xet, False),
    ):
        server.lies = dict(lies)
        assert hub.describe_file(ADDRESS).only_xet is only


def test_the_library_fetches_what_only_it_can(server, cache, model):
    # The hub of the test does not speak xet: the library falls back to plain HTTP, all else is the same.
    file = hub.describe_file(ADDRESS)
    told = []
    pointer = hub.download_with_xet(file, lambda done, total: told.append((done, total)))
    assert pointer == file.pointer
    assert pointer.read_bytes() == WEIGHTS
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert told == sorted(told)
    found = hub.find_cached(file.address)
    assert found is not None
    assert (found.pointer, found.sha256) == (pointer, file.sha256)
    file.blob.write_bytes(b"damaged")
    assert hub.download_with_xet(file, lambda done, total: None).read_bytes() == WEIGHTS


def test_without_xet_the_package_is_named(monkeypatch, server, cache):
    file = a_file(cache, only_xet=True)
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    with pytest.raises(PluginError, match="hf_xet is missing") as caught:
        hub.download_with_xet(file, lambda done, total: None)
    assert caught.value.hint == "pip install hf_xet"
    monkeypatch.delitem(sys.modules, "hf_xet")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with pytest.raises(PluginError, match="HF_HUB_DISABLE_XET"):
        hub.download_with_xet(file, lambda done, total: None)
    assert server.requests == []


def test_refusals_of_the_library_are_told_as_ours(server, cache, model):
    file = hub.describe_file(ADDRESS)
    model.gated = True
    with pytest.raises(LicenceError, match="needs a login"):
        hub.download_with_xet(file, lambda done, total: None)
    model.gated = False
    file.folder.parent.mkdir(parents=True)
    file.folder.write_text("in the way")
    with pytest.raises(OutputNotWritable, match="models--org--model"):
        hub.download_with_xet(file, lambda done, total: None)
