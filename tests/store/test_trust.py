"""First pulls: believed once, held to it afterwards, forgotten only on request."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo.errors import ChecksumError, ExitCode, OutputNotWritable, ZooError
from zoo.store.layout import first_pulls_path
from zoo.store.trust import FirstPull, first_pull, forget, record

SOURCE = "https://example.org/model.pth"
A, B = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def clock(tmp_path, monkeypatch):
    """The store is empty, and every record is of another second."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    dates = (f"2025-01-01T00:00:{second:02}+00:00" for second in range(60))
    monkeypatch.setattr("zoo.store.trust.now", lambda: next(dates))


def test_nothing_is_known_of_a_source_at_first():
    assert first_pull(SOURCE) is None
    assert not first_pulls_path().exists()


def test_a_first_pull_is_recorded_as_it_was():
    record(SOURCE, A, 7, None)
    record("hf://o/r/m.safetensors", B, 8, "c" * 40)
    assert first_pull(SOURCE) == FirstPull(A, 7, None, "2025-01-01T00:00:00+00:00")
    assert first_pull("hf://o/r/m.safetensors") == FirstPull(B, 8, "c" * 40, "2025-01-01T00:00:01+00:00")
    assert json.loads(first_pulls_path().read_text(encoding="utf-8")) == {
        "schema": 1,
        "files": {
            SOURCE: {"sha256": A, "size": 7, "revision": None, "date": "2025-01-01T00:00:00+00:00"},
            "hf://o/r/m.safetensors": {
                "sha256": B,
                "size": 8,
                "revision": "c" * 40,
                "date": "2025-01-01T00:00:01+00:00",
            },
        },
    }


def test_the_same_content_keeps_its_first_date():
    record(SOURCE, A, 7, "old")
    record(SOURCE, A, 7, "new")
    assert first_pull(SOURCE) == FirstPull(A, 7, "old", "2025-01-01T00:00:00+00:00")


def test_other_content_is_refused_until_the_source_is_forgotten():
    record(SOURCE, A, 7, None)
    with pytest.raises(ChecksumError) as caught:
        record(SOURCE, B, 8, None)
    assert caught.value.exit_code == ExitCode.CHECKSUM == 4
    assert caught.value.message == f"{SOURCE}: expected sha256 {A} as on 2025-01-01T00:00:00+00:00, got {B}"
    assert "--accept-change" in caught.value.hint
    assert first_pull(SOURCE) == FirstPull(A, 7, None, "2025-01-01T00:00:00+00:00")
    forget(SOURCE)
    assert first_pull(SOURCE) is None
    record(SOURCE, B, 8, None)
    assert first_pull(SOURCE) == FirstPull(B, 8, None, "2025-01-01T00:00:01+00:00")


def test_forgetting_touches_no_other_source():
    record(SOURCE, A, 7, None)
    before = first_pulls_path().stat().st_mtime_ns
    forget("https://example.org/other")
    assert first_pulls_path().stat().st_mtime_ns == before, "nothing was written"
    record("https://example.org/other", B, 8, None)
    forget("https://example.org/other")
    assert first_pull(SOURCE) is not None


def entry(**changes: object) -> dict[str, object]:
    return {"sha256": A, "size": 7, "revision": None, "date": "2025", **changes}


DAMAGED = {
    "cut off": '{"schema": 1, "fi',
    "no table": '{"schema": 1, "files": []}',
    "later schema": '{"schema": 2, "files": {}}',
    "no schema": '{"files": {}}',
    **{
        f"{key} {value!r}": json.dumps({"schema": 1, "files": {SOURCE: entry(**{key: value})}})
        for key, value in [
            ("sha256", "abc"),
            ("sha256", A.upper()),
            ("sha256", None),
            ("size", -1),
            ("size", True),
            ("size", "7"),
            ("revision", 3),
            ("date", None),
        ]
    },
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_an_error_and_is_left_as_it_is(content):
    first_pulls_path().parent.mkdir(parents=True)
    first_pulls_path().write_text(content, encoding="utf-8")
    # Also for a source of which nothing is said: what was recorded of it may be what is lost.
    calls = [lambda: first_pull("x"), lambda: record("x", A, 1, None), lambda: forget("x")]
    for call in calls:
        with pytest.raises(ZooError, match="is damaged") as caught:
            call()
        assert caught.value.message.startswith(f"{first_pulls_path()}: ")
        assert "for which nobody publishes one" in caught.value.hint
    assert first_pulls_path().read_text(encoding="utf-8") == content


def test_a_full_disk_is_the_user_s_to_know(monkeypatch):
    record(SOURCE, A, 7, None)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.store.records.write_json", fail)
    with pytest.raises(OutputNotWritable, match=r"first-pulls.json: cannot be written: no space left"):
        record("other", B, 8, None)
    assert first_pull(SOURCE) is not None


def test_records_at_the_same_time_are_all_kept():
    sources = [f"https://example.org/{index}" for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda source: record(source, A, 7, None), sources))
    assert all(first_pull(source) for source in sources)
