"""`zoo config`."""

from __future__ import annotations

from pathlib import Path


def test_set_get_list_unset(zoo):
    assert zoo("config", "set", "model", "toy").out == "model = toy\n"
    assert zoo("config", "get", "model").out == "toy\n"
    rows = {row["key"]: row["value"] for row in zoo("config", "list", "--json").json}
    assert rows["model"] == "toy"
    assert rows["out"] is None
    assert zoo("config", "list", "-q").out == "model=toy\n"
    assert "model" in zoo("config", "list").out
    assert zoo("config", "unset", "model").out == "model is not set\n"
    assert zoo("config", "unset", "model", "--json").json == {"key": "model", "value": None}
    result = zoo("config", "get", "model")
    assert result.code == 1
    assert "Hint: zoo config set model" in result.err


def test_the_setting_is_used(zoo):
    zoo("config", "set", "model", "toy:shapes")
    assert zoo("sample", "--json").json["reference"] == "toy:shapes"


def test_values_are_checked(zoo):
    for key, value, code, text in [
        ("model", "toyy", 3, "Did you mean: toy"),
        ("model", "toy:shape", 3, "toy:shapes"),
        ("model", "a:b:c", 2, "not a reference"),
        ("dtype", "float15", 2, "Did you mean: float16"),
        ("device", "gpu", 2, "expected one of"),
        ("format", "jpg", 2, "Did you mean: jpeg"),
        ("modell", "x", 2, "Did you mean: model"),
    ]:
        result = zoo("config", "set", key, value)
        assert result.code == code, (key, value)
        assert text in result.err
    assert zoo("config", "list", "-q").out == ""


def test_path(zoo, tmp_path):
    path = zoo("config", "path", "--json").json["path"]
    assert Path(path) == tmp_path / "config" / "zoo" / "config.toml"
    assert zoo("config", "path").out == zoo("config", "path", "-q").out == f"{path}\n"


def test_a_damaged_file_is_named(zoo):
    path = Path(zoo("config", "path", "-q").out.strip())
    path.parent.mkdir(parents=True)
    path.write_text("model = ", encoding="utf-8")
    result = zoo("config", "list")
    assert result.code == 1
    assert str(path) in result.err
    # Listing models does not need the settings.
    assert zoo("list").code == 0
