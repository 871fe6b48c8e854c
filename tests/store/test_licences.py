"""Terms: when they are asked for, what is remembered of them, and a record that was damaged."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo.cards import Card, parse_card
from zoo.errors import ExitCode, LicenceError, OutputNotWritable, ZooError
from zoo.store.layout import licences_path
from zoo.store.licences import Acceptance, Terms, accept, accepted, require, terms_of


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))


def card(method: str = "m", **licences: dict[str, object] | None) -> Card:
    """A card with one variant for each licence."""
    variants = {
        name: {"summary": "", "architecture": "a", **({"licence": licence} if licence else {})}
        for name, licence in licences.items()
    }
    top = {"schema": 1, "method": method, "title": "", "summary": "", "tasks": [], "default": min(licences)}
    return parse_card({**top, "variant": variants})


NC = {"weights": "CC-BY-NC-4.0", "url": "https://example.org/nc", "accept": True}


def never(terms: Terms) -> bool:
    raise AssertionError(f"asked for {terms}")


@pytest.mark.parametrize("licence", [None, {"weights": "MIT"}, {"weights": "MIT", "accept": False}])
def test_most_licences_need_no_answer(licence):
    made = card(v=licence)
    assert terms_of(made, made.variants["v"]) is None
    assert require(made, made.variants["v"], never) is None
    assert not licences_path().exists()


def test_terms_are_what_the_card_says():
    made = card(v=NC)
    terms = terms_of(made, made.variants["v"])
    assert terms == Terms("m", "v", "CC-BY-NC-4.0", "https://example.org/nc")
    assert terms.reference == "m:v"
    assert terms.sha256 == hashlib.sha256(b"CC-BY-NC-4.0\nhttps://example.org/nc").hexdigest()
    assert terms.sha256 == Terms("other", "x", "CC-BY-NC-4.0", "https://example.org/nc").sha256
    assert terms.sha256 != Terms("m", "v", "CC-BY-NC-4.0", None).sha256


@pytest.mark.parametrize("answer", [False, lambda terms: False], ids=["no", "asked"])
def test_a_refusal_names_the_model_the_terms_and_the_command(answer):
    made = card(v=NC)
    with pytest.raises(LicenceError) as caught:
        require(made, made.variants["v"], answer)
    assert caught.value.exit_code == ExitCode.LICENCE == 5
    assert caught.value.message == (
        "the licence of m:v has to be accepted first: CC-BY-NC-4.0 (https://example.org/nc)"
    )
    assert caught.value.hint == "zoo pull m:v --accept-licence"
    assert not licences_path().exists()


def test_terms_without_an_address_are_named_alone():
    made = card(v={"weights": "unknown", "accept": True})
    with pytest.raises(LicenceError, match=r"accepted first: unknown$"):
        require(made, made.variants["v"], False)


def test_an_acceptance_is_kept_and_nobody_is_asked_again(monkeypatch):
    monkeypatch.setattr("zoo.store.licences.now", lambda: "2025-01-02T03:04:05+00:00")
    made = card(v=NC)
    asked: list[Terms] = []
    first = require(made, made.variants["v"], lambda terms: not asked.append(terms))
    assert first == Acceptance(
        asked[0].sha256, "CC-BY-NC-4.0", "https://example.org/nc", "m:v", "2025-01-02T03:04:05+00:00"
    )
    monkeypatch.setattr("zoo.store.licences.now", lambda: "later")
    assert require(made, made.variants["v"], never) == first
    assert require(made, made.variants["v"], False) == first
    assert accept(asked[0]) == first, "accepting again changes nothing"
    assert len(asked) == 1
    assert json.loads(licences_path().read_text(encoding="utf-8")) == {
        "schema": 1,
        "accepted": [
            {
                "sha256": asked[0].sha256,
                "text": "CC-BY-NC-4.0",
                "url": "https://example.org/nc",
                "reference": "m:v",
                "date": "2025-01-02T03:04:05+00:00",
            }
        ],
    }


def test_the_text_is_accepted_for_the_method_and_not_beyond():
    made = card(v=NC, w=NC)
    require(made, made.variants["v"], True)
    found = require(made, made.variants["w"], never)
    assert found is not None
    assert found.reference == "m:v"
    other = card("n", v=NC)
    with pytest.raises(LicenceError, match="n:v"):
        require(other, other.variants["v"], False)


@pytest.mark.parametrize("change", [{"weights": "CC-BY-NC-5.0"}, {"url": "https://example.org/new"}])
def test_a_changed_text_has_to_be_accepted_again(change):
    before, after = card(v=NC), card(v={**NC, **change})
    require(before, before.variants["v"], True)
    with pytest.raises(LicenceError):
        require(after, after.variants["v"], False)
    require(after, after.variants["v"], True)
    # Both stand in the record: who goes back to the older card is not asked again.
    assert require(before, before.variants["v"], never)
    assert require(after, after.variants["v"], never)


DAMAGED = {
    "cut off": b'{"schema": 1, "accepted": [',
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "empty": b"",
    "no object": b"[]",
    "no list": b'{"schema": 1, "accepted": {}}',
    "nothing accepted": b'{"schema": 1}',
    "later schema": b'{"schema": 2, "accepted": []}',
    "entry without digest": b'{"schema": 1, "accepted": [{"text": "x", "url": null}]}',
    "entry of another type": b'{"schema": 1, "accepted": ["x"]}',
    "value of another type": b'{"schema": 1, "accepted": [{"sha256": 3, "text": "x"}]}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_an_error_and_is_left_as_it_is(content):
    licences_path().parent.mkdir(parents=True)
    licences_path().write_bytes(content)
    terms = Terms("m", "v", "x", None)
    for call in (accepted, accept):
        with pytest.raises(ZooError, match="is damaged") as caught:
            call(terms)
        assert caught.value.message.startswith(f"{licences_path()}: ")
        assert "the terms that were accepted" in caught.value.hint
        assert caught.value.hint.splitlines()[-1] == f"mv {licences_path()} {licences_path()}.damaged"
    assert licences_path().read_bytes() == content


def test_a_record_that_cannot_be_read_is_an_error():
    licences_path().mkdir(parents=True)
    with pytest.raises(ZooError, match="cannot be read: is a directory"):
        accepted(Terms("m", "v", "x", None))


def test_a_full_disk_is_the_user_s_to_know(monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.store.records.write_json", fail)
    with pytest.raises(OutputNotWritable, match=r"licences.json: cannot be written: no space left on device"):
        accept(Terms("m", "v", "x", None))


def test_acceptances_at_the_same_time_are_all_kept():
    every = [Terms("m", f"v{index}", f"text {index}", None) for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(accept, every))
    assert all(accepted(terms) for terms in every)
