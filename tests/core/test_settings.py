"""The user's settings."""

from __future__ import annotations

import stat

import pytest

from zoo import settings
from zoo.errors import InvalidInput, NotFound, OutputNotWritable, ZooError
from zoo.io.writers import FORMATS
from zoo.settings import KEYS, checked_value, load_settings, save_setting


@pytest.fixture(autouse=True)
def _folder(site):
    """No settings, no plugins but ours."""


def test_nothing_is_set_at_first():
    assert load_settings().values == {}
    assert not load_settings().path.exists()


@pytest.mark.parametrize("value", ["x", "a\tb\nc", 'quo"te\\', "ünï \U0001f600", "\x7f\x01", "C:\\new", "'"])
def test_values_survive(value):
    save_setting("model", "tarflow")
    save_setting("out", value)
    assert load_settings().values == {"model": "tarflow", "out": value}
    save_setting("out", None)
    assert load_settings().values == {"model": "tarflow"}


def test_removing_what_is_not_set_is_fine():
    assert save_setting("out", None).values == {}


def test_an_unknown_key_has_a_near_match():
    for call in (lambda: load_settings().get("modle"), lambda: save_setting("modle", "x")):
        with pytest.raises(InvalidInput, match="no setting 'modle'") as caught:
            call()
        assert caught.value.hint == "Did you mean: model?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("model = 3", "expected a text, got 3"), ("x = 'y'", "x: is not a setting"), ("=", "cannot be read")],
)
def test_a_damaged_file_is_named(text, expected):
    path = load_settings().path
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ZooError, match=expected) as caught:
        load_settings()
    assert str(path) in caught.value.message


def test_a_failed_write_keeps_the_old_settings(monkeypatch):
    save_setting("out", "a")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(settings.os, "replace", refuse)
    with pytest.raises(OutputNotWritable, match="No space left"):
        save_setting("out", "b")
    assert load_settings().get("out") == "a"


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InvalidInput, match="not valid text"):
        save_setting("out", "\udcff")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "cuda"),
        ("device", "cuda:12"),
        ("device", "mps"),
        ("device", "cpu"),
        ("dtype", "bfloat16"),
        ("format", "webp"),
        ("out", "some/folder"),
    ],
)
def test_values_that_are_accepted(key, value):
    assert checked_value(key, value) == value


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("device", "gpu", ""),
        ("device", "cuda:", "cuda"),
        ("device", "cuda:x", "cuda"),
        ("dtype", "float23", "float32"),
        ("dtype", "int8", ""),
        ("format", "jpg", "jpeg"),
        ("out", " ", "unset"),
        ("model", "", "unset"),
    ],
)
def test_values_that_are_refused(key, value, hint):
    with pytest.raises(InvalidInput, match=key) as caught:
        checked_value(key, value)
    assert hint in caught.value.hint


def test_a_file_is_no_folder_for_samples(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is a file"):
        checked_value("out", str(tmp_path / "file"))


def test_a_model_has_to_exist():
    assert checked_value("model", "TarFlow:Shapes") == "tarflow:shapes"
    with pytest.raises(NotFound) as caught:
        checked_value("model", "tarflow:shape")
    assert "tarflow:shapes" in caught.value.hint


def test_known_values_are_those_of_the_runtime():
    from zoo.runtime.devices import DTYPES

    assert tuple(DTYPES) == settings.DTYPES
    assert set(settings.FORMATS) == set(FORMATS)
    assert all(name in KEYS["dtype"] for name in settings.DTYPES)
    assert all(name in KEYS["format"] for name in settings.FORMATS)
    assert all(name in KEYS["device"] for name in settings.DEVICES)


def test_where_the_settings_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    path = save_setting("out", "x").path
    assert path == tmp_path / "c" / "zoo" / "config.toml"
    assert stat.S_ISREG(path.stat().st_mode)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(load_settings().path).startswith(str(tmp_path / "home"))
