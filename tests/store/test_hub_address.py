"""Addresses of files on a hub, where the hub is, and where its cache lies."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import hf_hub_url
from servers.hub import environment

from zoo.errors import InvalidInput
from zoo.store.hub import client as hub

# Addresses


@pytest.mark.parametrize(
    ("source", "repository", "path", "revision"),
    [
        ("hf://org/model/w.safetensors", "org/model", "w.safetensors", None),
        ("hf://org/model/a/b c/w.bin@main", "org/model", "a/b c/w.bin", "main"),
        ("hf://Org-1/m.o_d/w.bin@refs/pr/1", "Org-1/m.o_d", "w.bin", "refs/pr/1"),
        ("hf://o/r/ä.bin@v1.0-rc_2", "o/r", "ä.bin", "v1.0-rc_2"),
        ("hf://o/r/.hidden@" + "0" * 40, "o/r", ".hidden", "0" * 40),
    ],
)
def test_an_address_has_three_parts(source, repository, path, revision):
    address = hub.parse_hub(source)
    assert (address.repository, address.path, address.revision) == (repository, path, revision)
    assert str(address) == source


@pytest.mark.parametrize(
    "source",
    [
        "https://org/model/w.bin",
        "hf://",
        "hf://org/model",
        "hf://org/model/",
        "hf://org//w.bin",
        "hf:///etc/passwd",
        "hf://org/model//etc/passwd",
        "hf://org/model/a//b",
        "hf://org/model/a/",
        "hf://org/model/../w.bin",
        "hf://org/model/a/../../w.bin",
        "hf://org/model/./w.bin",
        "hf://org/model/a\\b",
        "hf://org/model/C:/w.bin",
        "hf://org/model/a\nb",
        "hf://org/model/a\x00b",
        "hf://org/model/a\x1b[2Jb",
        "hf://org/model/\ud800",
        "hf://org/model/" + "w" * 256,
        "hf://org/model/" + "w/" * 600 + "w",
        "hf://../model/w.bin",
        "hf://org/../w.bin",
        "hf://o--rg/model/w.bin",
        "hf://-org/model/w.bin",
        "hf://org/model.git/w.bin",
        "hf://o rg/model/w.bin",
        "hf://org/" + "m" * 97 + "/w.bin",
        "hf://datasets/org/model/w.bin",
        "hf://spaces/org/model/w.bin",
        "hf://org/model@main/w.bin",
        "hf://org/model/w.bin@",
        "hf://org/model/w.bin@a@b",
        "hf://org/model/w.bin@../../x",
        "hf://org/model/w.bin@a..b",
        "hf://org/model/w.bin@/a",
        "hf://org/model/w.bin@a//b",
        "hf://org/model/w.bin@a/",
        "hf://org/model/w.bin@a b",
        "hf://org/model/w.bin@a\n",
        "hf://org/model/w.bin@-x",
        "hf://org/model/w.bin@" + "x" * 201,
    ],
)
def test_a_malformed_address_is_refused(source):
    with pytest.raises(InvalidInput) as caught:
        hub.parse_hub(source)
    assert caught.value.message.isprintable()
    assert "hf://organisation/repository/path" in caught.value.hint


def test_no_address_can_be_made_that_leads_out_of_its_folder():
    good = hub.parse_hub("hf://org/model/w.bin")
    with pytest.raises(InvalidInput):
        hub.HubAddress("org/model", "../w.bin")
    with pytest.raises(InvalidInput):
        hub.HubAddress("../model", "w.bin")
    with pytest.raises(InvalidInput):
        good.at("../x")
    assert good.at(None) is good
    assert good.at("v1").revision == "v1"


@pytest.mark.parametrize("revision", [None, "v1", "refs/pr/1", "0" * 40])
@pytest.mark.parametrize("path", ["w.bin", "a b/ä#?%.bin"])
def test_addresses_for_a_browser_are_those_of_the_library(monkeypatch, path, revision):
    address = hub.HubAddress("org/model", path)
    for endpoint in ("https://huggingface.co", "https://mirror.example:8443/hf"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        expected = hf_hub_url("org/model", path, revision=revision, endpoint=endpoint)
        assert address.url(revision) == expected
        assert address.at(revision).url() == expected
        assert address.page == f"{endpoint}/org/model"


def test_the_endpoint_is_read_when_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub.endpoint() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf//")
    assert hub.endpoint() == "https://mirror.example/hf"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.endpoint() == "http://127.0.0.1:9"
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert hub.endpoint() == "https://huggingface.co"


@pytest.mark.parametrize(
    "value",
    [
        "mirror.example",
        "http://mirror.example",
        "ftp://mirror.example",
        "https://",
        "https://mirror example",
        "https://mirror.example:port",
        "https://user:password@mirror.example",
        "https://mirror.example?a=b",
        "https://mirror.example\n",
    ],
)
def test_an_endpoint_that_would_not_be_safe_to_ask_is_refused(monkeypatch, value):
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(InvalidInput, match="HF_ENDPOINT") as caught:
        hub.endpoint()
    assert caught.value.message.isprintable()


# The environment


def test_the_cache_is_where_the_library_has_it(monkeypatch, tmp_path):
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    settings = [
        {},
        {"XDG_CACHE_HOME": "/x"},
        {"HF_HOME": "/h"},
        {"HF_HOME": "~/h", "XDG_CACHE_HOME": "/x"},
        {"HF_HOME": "$ELSEWHERE/h"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
        {"HF_HUB_CACHE": "~/c", "HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HUB_CACHE": "$ELSEWHERE/c"},
        {"HF_HUB_CACHE": "relative/c"},
    ]
    code = """
import importlib, json, os, sys
from huggingface_hub import constants
for given in json.load(sys.stdin):
    for name in json.loads(sys.argv[1]):
        os.environ.pop(name, None)
    os.environ.update(given)
    print(os.path.abspath(importlib.reload(constants).HF_HUB_CACHE))
"""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ELSEWHERE", "/e")
    told = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    ours = []
    for given in settings:
        with monkeypatch.context() as patch:
            for name in names:
                patch.delenv(name, raising=False)
            for name, value in given.items():
                patch.setenv(name, value)
            ours.append(str(hub.cache_folder()))
    assert ours == told
    assert len(set(ours)) == len(settings)


def test_looking_into_the_cache_does_not_import_the_library(tmp_path):
    code = """
import sys
from zoo.store.hub import client as hub
address = hub.parse_hub("hf://org/model/w.bin")
print(hub.find_cached(address), address.url(), hub.offline(), hub.leftovers())
print(sorted({"huggingface_hub", "httpx", "httpx2", "torch"} & sys.modules.keys()))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment("https://hub.example", tmp_path) | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.stdout == ("None https://hub.example/org/model/resolve/main/w.bin None []\n[]\n")
