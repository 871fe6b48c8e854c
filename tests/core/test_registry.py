"""Names, owners, and targets that are imported late."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from third_party import install

from zoo.errors import InvalidInput, PluginError
from zoo.registry import Registry, resolve


@dataclass(frozen=True)
class Config:
    width: int = 3

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError("width is below 1")


def test_names_are_compared_without_case_and_never_taken_over():
    registry = Registry()
    registry.callbacks("a")["register_samplers"]("Euler", "a:b", options=Config)
    with pytest.raises(PluginError, match="sampler 'euler' of plugin 'b' is already registered by 'a'"):
        registry.callbacks("b")["register_samplers"]("euler", "c:d", options=Config)
    found = registry.samplers.find("EULER")
    assert found is not None
    assert (found.owner, found.sample) == ("a", "a:b")
    assert registry.samplers.names() == ["Euler"]


def test_an_owner_can_be_forgotten():
    registry = Registry()
    for owner in ("a", "b"):
        callbacks = registry.callbacks(owner)
        callbacks["register_architectures"](f"arch-{owner}", dict, config=Config)
        callbacks["register_samplers"](f"s-{owner}", dict, options=Config)
        callbacks["register_converters"](f"c-{owner}", dict)
        callbacks["register_recipes"](f"r-{owner}", dict)
    registry.remove_owner("a")
    tables = (registry.architectures, registry.samplers, registry.converters, registry.recipes)
    assert [table.names() for table in tables] == [["arch-b"], ["s-b"], ["c-b"], ["r-b"]]


def architecture(build=lambda config: config, config=Config):
    registry = Registry()
    registry.callbacks("me")["register_architectures"]("net", build, config=config)
    found = registry.architectures.find("net")
    assert found is not None
    return found


def test_an_architecture_is_built_from_a_table():
    assert architecture().create({"width": 5}) == Config(5)


def test_a_config_is_checked():
    with pytest.raises(InvalidInput, match="'net' has no setting 'widht'") as caught:
        architecture().create({"widht": 5})
    assert caught.value.hint == "Did you mean: width?"
    with pytest.raises(InvalidInput, match="refuses its config: width is below 1"):
        architecture().create({"width": 0})
    with pytest.raises(PluginError, match="no dataclass"):
        architecture(config=dict).create({})


def test_targets_are_imported_late(site):
    install(site, "acme-late", "value = 3", {})
    assert resolve("acme_late:value", "me") == 3
    assert resolve(Config, "me") is Config


@pytest.mark.parametrize(
    ("code", "target", "expected"),
    [
        ("import not_installed_anywhere", "acme_1", "needs the package 'not_installed_anywhere'"),
        ("import sys; sys.exit(3)", "acme_2", "SystemExit: 3"),
        ("1 / 0", "acme_3", "ZeroDivisionError"),
        ("", "acme_4:missing", "AttributeError"),
        # A missing module of the plugin's own is its mistake, not something to install.
        ("", "acme_5.model:build", "acme_5.model:build cannot be loaded"),
    ],
)
def test_a_target_that_cannot_be_had_names_the_owner(site, code, target, expected):
    install(site, target.split(":")[0].split(".")[0].replace("_", "-"), code, {})
    with pytest.raises(PluginError, match="plugin 'me'") as caught:
        resolve(target if ":" in target else f"{target}:x", "me")
    assert expected in caught.value.message
