"""Looking up what a card names among what plugins registered."""

from __future__ import annotations

import pytest
from third_party import card, install, install_plugin

from zoo.errors import NotFound, PluginError
from zoo.session import Session

REGISTERS = (
    "from zoo import hookimpl\n@hookimpl\ndef register_architectures(register):\n"
    "    register('{name}', dict, config=dict)\n"
)


@pytest.fixture(autouse=True)
def _installed(site):
    """No plugins but ours."""


def test_only_the_method_s_plugin_is_loaded(site):
    install_plugin(site, "other", "raise RuntimeError")
    session = Session()
    found, variant = session.resolve("tarflow:mnist")
    assert session.architecture(found, variant).owner == "tarflow"
    assert session.plugins.failures == {}


def test_an_architecture_may_come_from_another_plugin(site):
    install_plugin(site, "base", REGISTERS.format(name="shared"))
    install_plugin(
        site, "user2", "", {"user2": card("user2").replace('"user2"\nsampler', '"shared"\nsampler')}
    )
    session = Session()
    found = session.catalogue.cards["user2"]
    with pytest.raises(PluginError, match="'user2'"):
        # Its own plugin registers nothing, which is a mistake of that plugin.
        session.architecture(found, found.variants["base"])
    install(
        site,
        "acme-cards",
        "",
        {"zoo.cards": {"c": "acme_cards:cards"}},
        {"free": card("free").replace('architecture = "free"', 'architecture = "Shared"')},
    )
    session = Session()
    found = session.catalogue.cards["free"]
    assert session.architecture(found, found.variants["base"]).owner == "base"


def test_what_nobody_registered_names_what_is_known_and_what_failed(site):
    install_plugin(site, "broken3", "raise RuntimeError('why')")
    session = Session()
    with pytest.raises(
        PluginError, match="no plugin provides the sampler 'tarflwo' that x:y needs"
    ) as caught:
        session.sampler("tarflwo", "x:y")
    assert "Did you mean: tarflow?" in caught.value.hint
    assert "broken3: RuntimeError: why" in caught.value.hint
    with pytest.raises(PluginError) as caught:
        session.converter("zzzzzz", "x:y")
    assert "Known: apple-" in caught.value.hint


def test_recipes_belong_to_variants_that_have_one():
    session = Session()
    found, variant = session.resolve("tarflow:afhq256")
    with pytest.raises(NotFound, match="tarflow:afhq256 has no training recipe"):
        session.recipe(found, variant)
    assert session.recipe(*session.resolve("tarflow:shapes")) is not session.recipe(
        *session.resolve("tarflow:shapes")
    )


def test_plugins_that_extend_the_core_are_loaded_at_once_and_may_fail(site):
    install_plugin(site, "extension", REGISTERS.format(name="extra"), cards={})
    install_plugin(site, "badextension", "raise RuntimeError('broken extension')", cards={})
    session = Session()
    assert session.registry.architectures.find("extra") is not None
    assert any("broken extension" in warning for warning in session.warnings)


def test_a_disabled_extension_is_no_warning(site, monkeypatch):
    install_plugin(site, "quiet", "raise RuntimeError", cards={})
    (site / "acme_quiet" / "cards").mkdir()
    monkeypatch.setenv("ZOO_PLUGINS", "tarflow")
    session = Session()
    assert session.registry.architectures.names() == []
    assert session.warnings == []


def test_a_card_without_any_plugin(site):
    install(site, "acme-lone", "", {"zoo.cards": {"c": "acme_lone:cards"}}, {"lone": card("lone")})
    session = Session()
    found, variant = session.resolve("lone")
    with pytest.raises(PluginError, match="no plugin provides the architecture 'lone' that lone:base needs"):
        session.architecture(found, variant)


def test_the_user_s_card_stays_before_one_made_by_code(site, tmp_path, monkeypatch):
    code = (
        "from zoo import hookimpl\n@hookimpl\ndef register_weights(register):\n"
        "    from zoo.cards import parse_card\n    import tomllib\n"
        f"    register(parse_card(tomllib.loads('''{card('code2', 'By code')}''')))\n"
    )
    install_plugin(site, "code2", code, cards={})
    (site / "acme_code2" / "cards").mkdir()
    session = Session()
    assert session.plugins.load("code2")
    assert session.catalogue.cards["code2"].title == "By code"
    (tmp_path / "code2.toml").write_text(card("code2", "Mine"), encoding="utf-8")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path))
    session = Session()
    session.use(session.catalogue.cards["code2"])
    assert session.catalogue.cards["code2"].title == "Mine"
    assert session.warnings == []
