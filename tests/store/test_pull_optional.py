"""Pulling a variant whose optional component has a file that no source gives: all else is here and works."""

import json

import pytest
from far_models import Listener, toy_safetensors
from servers.faulty import FaultyServer

import zoo as api
from zoo.catalogue import load_catalogue
from zoo.errors import LicenceError, NetworkError, NotFound, NotPulled, WeightsError
from zoo.store.layout import manifest_path
from zoo.store.locate import locate
from zoo.store.manifest import read_manifest
from zoo.store.pull import pull
from zoo.store.verifying import verify

TOY = toy_safetensors()
ROLES = ["extra_weights", "extra_settings"]
COMPONENTS = (
    'components = { extra = { architecture = "toy", config = { size = 8 }, optional = true, '
    f"files = {json.dumps(ROLES)} }} }}"
)


@pytest.fixture
def server():
    with FaultyServer({"/toy.safetensors": TOY}) as running:
        yield running


def variant(far, server, components=COMPONENTS, **sources):
    """`far:a`, whose component `extra` has weights that are there and settings that are not."""
    places = {"extra_weights": ["/toy.safetensors"], "extra_settings": ["/settings.json"], **sources}
    files = [
        {
            "role": role,
            "source": [place if "://" in place else server.url(place) for place in places[role]],
            "format": _format(role, places[role]),
        }
        for role in ROLES
    ]
    return far.variant("a", {"source": [server.url("/toy.safetensors")]}, *files, licence=components)


def _format(role, sources):
    if role == "extra_settings":
        return "raw"
    return "pytorch" if sources[0].endswith(".index.json") else "safetensors"


def test_all_else_is_pulled_and_a_warning_tells_what_does_not_work(far, server):
    listener = Listener()
    manifest = pull(variant(far, server), watcher=listener)
    assert [file.role for file in manifest.files] == ["model"]
    assert [file.role for file in listener.files] == ["model"]
    assert manifest.missing == ("extra_weights", "extra_settings")
    assert read_manifest("far", "a") == manifest
    said = next(text for text in listener.texts if "pulled without" in text)
    assert "far:a is pulled without its extra" in said
    assert f"there is no file at {server.url('/settings.json')}" in said


def test_the_model_works_and_the_component_is_told_to_be_missing(far, server):
    reference = variant(far, server)
    pull(reference)
    loaded = api.load(reference, device="cpu")
    assert next(iter(loaded.sample())).pixels.shape == (3, 8, 8)
    with pytest.raises(NotPulled, match="the extra of far:a is not on this machine") as raised:
        loaded.components["extra"]
    assert "zoo pull far:a" in raised.value.hint


def test_it_is_pulled_by_the_next_pull_that_finds_it(far, server):
    reference = variant(far, server)
    first = pull(reference)
    server.reset()
    assert pull(reference, watcher=Listener()).missing == first.missing
    assert "/settings.json" in {request.path for request in server.requests}
    server.put("/settings.json", b"{}")
    manifest = pull(reference)
    assert [file.role for file in manifest.files] == ["model", *ROLES] and manifest.missing == ()
    server.reset()
    assert pull(reference) == manifest and server.requests == []


def test_verify_tells_of_it_and_finds_nothing_wrong(far, server, zoo):
    reference = variant(far, server)
    pull(reference)
    checks = {check.role: check for check in verify([reference])}
    assert [checks[role].status for role in ("model", *ROLES)] == ["unverified", "absent", "absent"]
    assert checks["extra_weights"].path == manifest_path("far", "a")
    result = zoo("verify", reference)
    assert result.code == 0 and "absent" in result.out
    assert zoo("verify", reference, "--repair").code == 0


def test_the_command_line_tells_of_it(far, server, zoo):
    reference = variant(far, server)
    result = zoo("pull", reference)
    assert result.code == 0, result.err
    assert "extra_settings  missing" in result.out and "pulled without its extra" in result.err
    assert zoo("pull", reference, "--json").json["missing"] == ROLES
    assert zoo("show", reference, "--json").json["pulled"]["missing"] == ROLES
    assert zoo("sample", reference, "-o", "x.png").code == 0


def test_a_copy_has_what_is_here(far, server, zoo, tmp_path):
    reference = variant(far, server)
    pull(reference)
    folder = tmp_path / "copy"
    assert zoo("cp", reference, folder).code == 0
    assert {path.stem for path in folder.glob("*.safetensors")} == {"model"}
    assert zoo("sample", reference, "--weights", folder, "-o", "x.png").code == 0


def test_what_is_not_optional_has_to_be_there(far, server):
    reference = variant(far, server, COMPONENTS.replace("optional = true, ", ""))
    with pytest.raises(NotFound, match=r"settings\.json"):
        pull(reference)
    assert read_manifest("far", "a") is None


def test_a_manifest_without_what_is_needed_by_now_is_too_little(far, server):
    pull(variant(far, server))
    reference = variant(far, server, COMPONENTS.replace("optional = true, ", ""))
    with pytest.raises(WeightsError, match="was pulled without the file 'extra_weights'"):
        locate(*load_catalogue().resolve(reference))


def test_a_file_that_may_not_be_had_is_as_one_that_is_not_there(far, server):
    reference = variant(far, server)
    server.fault(path="/settings.json", status=401)
    listener = Listener()
    assert pull(reference, watcher=listener).missing == tuple(ROLES)
    assert "needs a login" in "".join(listener.texts)


def test_an_index_is_not_there_without_the_files_that_it_names(far, server):
    names = ["a.safetensors", "b.safetensors"]
    index = {"weight_map": {"linear.weight": names[0], "linear.bias": names[1]}}
    server.put("/extra.safetensors.index.json", json.dumps(index).encode())
    server.put("/a.safetensors", TOY)
    server.put("/settings.json", b"{}")
    reference = variant(far, server, extra_weights=["/extra.safetensors.index.json"])
    listener = Listener()
    assert pull(reference, watcher=listener).missing == tuple(ROLES)
    assert [file.role for file in listener.files] == ["model"]
    assert f"there is no file at {server.url('/b.safetensors')}" in "".join(listener.texts)
    assert "/a.safetensors" not in {request.path for request in server.requests if request.method == "GET"}


def test_a_server_that_is_away_may_have_it(far, server):
    with FaultyServer({}) as gone:
        away = gone.url("/settings.json")
    for sources in (["/settings.json", away], [away, "/settings.json"]):
        with pytest.raises((NetworkError, NotFound)):
            pull(variant(far, server, extra_settings=sources))
    assert read_manifest("far", "a") is None


def test_what_was_fetched_by_hand_is_not_left_out(far, server, tmp_path):
    by_hand = tmp_path / "weights.safetensors"
    by_hand.write_bytes(TOY)
    with pytest.raises((NotFound, LicenceError), match=r"settings\.json"):
        pull(variant(far, server), given={"extra_weights": by_hand})
