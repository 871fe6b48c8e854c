"""The hub that the tests run: it is one for the real client, and lies only where it is told to."""

import subprocess
import sys
from pathlib import Path

import pytest
from hub_cases import CONFIG, DIGEST, NAME, WEIGHTS
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from servers.asking import ask
from servers.hub import environment, random_file


def metadata(server, name, path="a.bin", revision=None, token=False):
    url = hf_hub_url(name, path, revision=revision, endpoint=server.endpoint)
    return get_hf_file_metadata(url, token=token, endpoint=server.endpoint)


def test_the_client_reads_a_repository(server, cache, model):
    api = HfApi(endpoint=server.endpoint, token=False)
    info = api.model_info("org/model", files_metadata=True)
    assert info.sha == model.refs["main"]
    assert api.list_repo_files("org/model") == ["config.json", NAME]
    assert api.model_info("org/model", revision=info.sha).sha == info.sha
    large = next(each for each in info.siblings if each.rfilename == NAME)
    assert (large.size, large.lfs.sha256) == (len(WEIGHTS), DIGEST)
    assert [each.path for each in api.list_repo_tree("org/model")] == ["config.json", "sub"]
    assert [each.name for each in api.list_repo_refs("org/model").branches] == ["main"]
    assert [each.size for each in api.get_paths_info("org/model", ["config.json"])] == [len(CONFIG)]
    folder = Path(snapshot_download("org/model", endpoint=server.endpoint, cache_dir=cache, token=False))
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "sub" / "w.safetensors").read_bytes() == WEIGHTS
    assert server.sent() == len(CONFIG) + len(WEIGHTS)


def test_the_command_of_the_client_downloads(server, model, tmp_path):
    command = [Path(sys.executable).with_name("hf"), "download", "org/model", "config.json"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=environment(server, tmp_path),
    )
    found = list((tmp_path / "hub").rglob("snapshots/*/config.json"))
    assert [path.read_bytes() for path in found] == [CONFIG]
    assert str(found[0]) in result.stdout


def test_large_files_come_from_another_origin(server, cache, model):
    told = metadata(server, "org/model", NAME)
    assert told.location.startswith(server.cdn.address + "/")
    assert server.cdn.address != server.endpoint
    token = server.login("me")
    answer = ask(told.location, Authorization=f"Bearer {token}")
    assert answer.status == 400, "a storage service takes a signature or a token"
    assert server.tokens_shown("cdn") == {f"Bearer {token}"}
    assert ask(told.location.partition("?")[0]).status == 403
    assert ask(told.location, Range="bytes=10-19").body == WEIGHTS[10:20]


def test_a_signature_can_be_used_up(server, model):
    server.signature_uses = 2
    place = metadata(server, "org/model", NAME).location
    assert [ask(place, Range="bytes=0-0").status for _ in range(3)] == [206, 206, 403]


def test_small_files_have_ranges_too(server, model):
    place = metadata(server, "org/model", "config.json").location
    answer = ask(place, Range="bytes=2-")
    assert (answer.status, answer.body) == (206, CONFIG[2:])
    assert answer.headers["Content-Range"] == f"bytes 2-{len(CONFIG) - 1}/{len(CONFIG)}"
    assert ask(place, Range="bytes=99-").status == 416
    assert ask(place, Range="bytes=2-", If_Range='"other"').body == CONFIG
    assert server.sent() == 2 * len(CONFIG) - 2


def test_strangers_are_kept_out(server, model):
    me, friend = server.login("me"), server.login("friend")
    for name in ("gated", "private"):
        made = server.repository(f"org/{name}", **{name: True})
        made.commit({"a.bin": b"content"})
        made.granted.add(friend)
    with pytest.raises(GatedRepoError, match="401"):
        metadata(server, "org/gated")
    with pytest.raises(GatedRepoError, match="403"):
        metadata(server, "org/gated", token=me)
    assert metadata(server, "org/gated", token=friend).size == 7
    assert HfApi(endpoint=server.endpoint, token=False).list_repo_files("org/gated") == ["a.bin"]
    for name in ("org/private", "org/none"):
        with pytest.raises(RepositoryNotFoundError, match="401"):
            metadata(server, name)
        with pytest.raises(RepositoryNotFoundError, match="404"):
            metadata(server, name, token=me)
    assert metadata(server, "org/private", token=friend).size == 7
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        metadata(server, "org/model", "config.json", token="hf_unknown")
    assert HfApi(endpoint=server.endpoint, token=me).whoami()["name"] == "me"


def test_what_is_not_there_is_told_apart(server, model):
    with pytest.raises(EntryNotFoundError):
        metadata(server, "org/model", "none.bin")
    with pytest.raises(RevisionNotFoundError):
        metadata(server, "org/model", "config.json", revision="v9")
    model.disabled = True
    with pytest.raises(DisabledRepoError):
        metadata(server, "org/model", "config.json")


def test_revisions_are_branches_and_commits(server, cache, model):
    first = model.refs["main"]
    second = model.commit({"config.json": b"{}"}, branch="dev/x")
    assert metadata(server, "org/model", "config.json").commit_hash != second
    model.refs["dev/x"] = second
    for revision, commit in ((first, first), (first[:10], first), ("dev/x", second)):
        assert metadata(server, "org/model", "config.json", revision=revision).commit_hash == commit


def test_a_renamed_repository_redirects(server, cache, model):
    server.rename("org/model", "org/new")
    assert metadata(server, "org/model", "config.json").size == len(CONFIG)
    assert HfApi(endpoint=server.endpoint, token=False).model_info("org/model").id == "org/new"
    path = hf_hub_download("org/model", NAME, endpoint=server.endpoint, cache_dir=cache)
    assert Path(path).read_bytes() == WEIGHTS


def test_lies_are_told_until_reset(server, model):
    server.lies |= {"X-Repo-Commit": "../..", "X-Linked-ETag": '"evil"', "X-Linked-Size": "5"}
    told = metadata(server, "org/model", NAME)
    assert (told.commit_hash, told.etag, told.size) == ("../..", "evil", 5)
    server.reset()
    told = metadata(server, "org/model", NAME)
    assert (told.commit_hash, told.size) == (model.refs["main"], len(WEIGHTS))


def test_invented_paths_stand_in_listings(server, model):
    server.invented_paths.append("../../evil.bin")
    api = HfApi(endpoint=server.endpoint, token=False)
    assert "../../evil.bin" in api.list_repo_files("org/model")
    assert "../../evil.bin" in [each.rfilename for each in api.model_info("org/model").siblings]


def test_bursts_and_broken_connections_pass(server, model):
    url = hf_hub_url("org/model", "config.json", endpoint=server.endpoint)
    server.burst(429, 1, Retry_After="3")
    refused = ask(url)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "3")
    server.drop(1)
    with pytest.raises(ConnectionError):
        ask(url)
    assert ask(url).status == 307
    assert server.asked("/resolve/") == 3


def test_it_runs_as_a_process_of_its_own(tmp_path):
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    command = [sys.executable, "-m", "servers.hub", "--until-stdin-ends", "--size", "2500000"]
    command += ["--file", f"w.bin={tmp_path / 'w.bin'}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        endpoint, *addresses = (process.stdout.readline().strip() for _ in range(3))
        assert addresses == ["hf://bench/files/w.bin", "hf://bench/files/random.safetensors"]
        given = {"endpoint": endpoint, "cache_dir": tmp_path / "cache", "token": False}
        assert Path(hf_hub_download("bench/files", "w.bin", **given)).read_bytes() == WEIGHTS
        content = Path(hf_hub_download("bench/files", "random.safetensors", **given)).read_bytes()
        process.communicate()
    assert process.returncode == 0
    with random_file(2_500_000) as again:
        assert again.read_bytes() == content
    assert len(content) == 2_500_000
    assert content[: 2**20] != content[2**20 : 2**21]
