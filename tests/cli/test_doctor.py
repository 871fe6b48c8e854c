"""`zoo doctor`."""

from __future__ import annotations

import hashlib

import pytest
from third_party import card, install, install_plugin


@pytest.fixture
def diagnosis(zoo):
    """Findings by text, and the exit code."""

    def ask():
        result = zoo("doctor", "--json")
        return {finding["text"]: finding["status"] for finding in result.json}, result.code

    return ask


@pytest.fixture
def no_plugins(monkeypatch):
    """For findings about something else: asking the plugins takes most of the time."""
    monkeypatch.setattr("zoo.plugincheck.check_plugins", lambda timeout: [])
    monkeypatch.setattr("zoo.plugincheck.ask_doctor", lambda timeout: [])


def with_weights(folder, content, **facts):
    """A user's card with a local file, and its facts."""
    lines = "".join(f"{key} = {value!r}\n" for key, value in facts.items())
    text = card("mine") + f"[[variant.base.files]]\nrole = 'model'\nsource = ['w.safetensors']\n{lines}"
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    if content is not None:
        (folder / "w.safetensors").write_bytes(content)


def test_everything_is_looked_at(diagnosis):
    findings, _ = diagnosis()
    text = "\n".join(findings)
    for expected in (
        "python 3",
        "platform ",
        "torch ",
        "device cpu: ",
        "store ",
        "settings ",
        "cards: ",
        "plugin toy",
    ):
        assert expected in text
    assert set(findings.values()) <= {"ok", "warn", "fail"}


def test_lines_for_people_and_values_for_scripts(zoo, monkeypatch):
    from zoo.diagnosis import Finding

    found = [Finding("ok", "fine"), Finding("fail", "broken", "mend it")]
    monkeypatch.setattr("zoo.diagnosis.diagnose", lambda timeout: iter(found))
    result = zoo("doctor")
    assert result.code == 1
    assert result.lines == ["ok    fine", "fail  broken", "      mend it"]
    assert zoo("doctor", "-q").out == "broken\n"
    monkeypatch.setattr("zoo.diagnosis.diagnose", lambda timeout: iter(found[:1]))
    assert zoo("doctor").code == 0


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize(
    ("content", "facts", "status", "text"),
    [
        (
            b"abc",
            {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()},
            "ok",
            "mine:base: w.safetensors is whole",
        ),
        (b"abc", {}, "warn", "mine:base: w.safetensors is there; its card gives no digest"),
        (b"abc", {"size": 4}, "fail", "has 3 bytes, expected 4"),
        (b"abc", {"sha256": "0" * 64}, "fail", "expected " + "0" * 64),
        (None, {}, "fail", "w.safetensors is missing"),
    ],
)
def test_built_in_weights(diagnosis, tmp_path, monkeypatch, content, facts, status, text):
    cards = tmp_path / "cards"
    cards.mkdir()
    with_weights(cards, content, **facts)
    monkeypatch.setenv("ZOO_CARDS", str(cards))
    findings, code = diagnosis()
    [found] = [line for line in findings if line.startswith("mine:base: ")]
    assert text in found
    assert findings[found] == status
    assert code == 1 or status != "fail"


@pytest.mark.usefixtures("no_plugins")
def test_settings_are_checked(zoo, diagnosis, tmp_path):
    path = tmp_path / "config" / "zoo" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("model = 'gone:away'\ndtype = 'float32'\n", encoding="utf-8")
    findings, code = diagnosis()
    assert findings["setting model = gone:away: no model is called 'gone:away'"] == "fail"
    assert not any(text.startswith("setting dtype") for text in findings)
    assert code == 1
    path.write_text("model = ", encoding="utf-8")
    assert any("config.toml: cannot be read" in text for text in diagnosis()[0])


def test_cards_and_plugins_that_are_broken(diagnosis, tmp_path, monkeypatch):
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    install_plugin(site, "sick", "1 / 0", {"sick": "=", "well": card("well")})
    findings, code = diagnosis()
    assert any(
        "sick.toml: is not valid TOML" in text and status == "warn" for text, status in findings.items()
    )
    assert findings["plugin sick (acme-sick 1.0): ZeroDivisionError: division by zero"] == "fail"
    assert code == 1


def test_a_damaged_in_tree_card_is_a_finding(diagnosis, tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text("schema = 1\n", encoding="utf-8")
    monkeypatch.setattr("zoo.catalogue.builtin_folder", lambda: tmp_path)
    findings, code = diagnosis()
    assert any("x.toml" in text and status == "fail" for text, status in findings.items())
    assert any(text.startswith("plugin toy") for text in findings)
    assert code == 1


@pytest.mark.usefixtures("no_plugins")
def test_a_store_that_cannot_be_written(diagnosis, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "locked" / "zoo"))
    # Root may write anywhere, so the answer is made up rather than the permission.
    monkeypatch.setattr("zoo.diagnosis.os.access", lambda path, mode: False)
    findings, code = diagnosis()
    assert any("cannot be written" in text and status == "fail" for text, status in findings.items())
    assert code == 1


@pytest.mark.usefixtures("no_plugins")
def test_a_small_disk_is_a_warning(diagnosis, monkeypatch):
    monkeypatch.setattr("zoo.diagnosis.LITTLE_DISK", 2**63)
    findings, _ = diagnosis()
    [(text, status)] = [(text, status) for text, status in findings.items() if text.startswith("store ")]
    assert status == "warn", text


def test_a_check_that_breaks_down_is_a_finding(diagnosis, monkeypatch):
    def explode():
        raise OSError("no such thing")

    monkeypatch.setattr("zoo.store.layout.home", explode)
    findings, code = diagnosis()
    assert any("OSError: no such thing" in text and status == "fail" for text, status in findings.items())
    assert any(text.startswith("plugin toy") for text in findings)
    assert code == 1


@pytest.mark.usefixtures("no_plugins")
def test_missing_packages(diagnosis, monkeypatch):
    monkeypatch.setattr("zoo.diagnosis.NEEDED", ("json", "a_package_nobody_has"))
    findings, code = diagnosis()
    assert (
        findings["a_package_nobody_has cannot be imported: No module named 'a_package_nobody_has'"] == "fail"
    )
    assert code == 1


@pytest.mark.usefixtures("no_plugins")
def test_optional_packages(diagnosis, monkeypatch):
    monkeypatch.setattr(
        "zoo.diagnosis.requires",
        lambda name: [
            "click>=8",
            "pytest; extra == 'test'",
            "click; extra == 'method'",
            'nobody; extra == "other"',
        ],
    )
    findings, _ = diagnosis()
    assert [text for text in findings if text.startswith("optional package")] == [
        next(text for text in findings if text.startswith("optional package click ")),
        "optional package nobody is not installed, for other",
    ]


def test_plugins_are_asked(diagnosis, tmp_path, monkeypatch):
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    code = "from zoo import hookimpl\n@hookimpl\n"
    code += "def doctor(report): report('fail', 'no licence server', 'start it')\n"
    install(site, "acme-asked", code, {"zoo.plugins": {"asked": "acme_asked"}})
    findings, result = diagnosis()
    assert findings["no licence server"] == "fail"
    assert result == 1
