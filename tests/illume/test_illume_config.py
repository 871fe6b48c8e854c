"""Configurations that cannot be built, and the authors' settings."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from small_illume import CONFIG

from zoo.errors import InvalidInput
from zoo.runtime.loading import build_meta
from zoo.session import Session
from zoo_illume.authors import config_from_authors
from zoo_illume.config import DualViTokConfig

FOUR = {"multipliers": [1, 2, 4, 4], "attention_levels": [3]}
MANIFEST = Path(__file__).parents[1] / "golden" / "illume_plus" / "manifests" / "dualvitok.json"


def changed(place: str, value: Any, table: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested tables with another value at a dotted place."""
    table = copy.deepcopy(table)
    *way, name = place.split(".")
    inner = table
    for part in way:
        inner = inner[part]
    inner[name] = value
    return table


def authors() -> dict[str, Any]:
    return json.loads(MANIFEST.read_text(encoding="utf-8"))["config"]


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("semantic.vit.width", 20, r"vit.width (20) must be a multiple of 4 times the 2 heads"),
        ("semantic.width", 80, r"width (80) must be a multiple of 4 times the 16 heads"),
        ("semantic.vit.patch", 0, "patch is 0, expected at least 1"),
        ("semantic.vit.layers", 3, "vit has no setting 'layers'; it has: depth, expansion, frames"),
        ("semantic.quantiser", 5, "quantiser is 5, expected a table"),
        ("semantic.quantiser.codes", 0, "codes is 0, expected at least 1"),
        ("semantic.projection", "conv", "projection is 'conv', expected one of: linear, linear-norm"),
        ("pixel.encoder.latent", 2, "encoder.latent is 2, expected the quantiser's dim, 4"),
        ("pixel.encoder.channels", 10, "a width of 10 must be a multiple of norm_groups (4) and of 4"),
        ("pixel.encoder.multipliers", [], "multipliers is empty"),
        ("pixel.encoder.attention_levels", [16], "attention_levels holds 16, expected 0 .. 4"),
        ("pixel.encoder.residual_blocks", -1, "residual_blocks is -1, expected at least 0"),
        ("pixel.decoder", {"channels": 20, "latent": 10, "norm_groups": 4, **FOUR}, "have 5 and 4 levels"),
        ("pixel.decoder.latent", 8, "pixel.decoder.latent is 8, expected 10"),
        ("pixel.decoder.latent", 7, "the coarsest width (80) must be a multiple of latent (7)"),
    ],
)
def test_what_does_not_go_together_is_refused(place: str, value: Any, words: str) -> None:
    session = Session()
    session.use(session.catalogue.cards["illume"])
    architecture = session.registry.architectures.find("dualvitok")
    with pytest.raises(InvalidInput) as refused:
        build_meta(architecture, changed(place, value, CONFIG))
    assert words in str(refused.value)


def test_a_tokenizer_has_a_branch() -> None:
    with pytest.raises(ValueError, match="neither semantic nor pixel is given"):
        DualViTokConfig()


def test_defaults_are_the_released_sizes() -> None:
    # An empty table is what a card writes for them.
    defaults = DualViTokConfig(semantic={}, pixel={})  # type: ignore[arg-type]
    assert defaults == DualViTokConfig(**config_from_authors(authors()))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("pixel_drop_rate", 0.1, "pixel_drop_rate is 0.1, expected None"),
        ("vit.hidden_act", "gelu", "hidden_act is 'gelu', expected 'quick_gelu'"),
        ("semantic_encoder.target_mlp", "linear", "target_mlp is 'linear', expected 'norm'"),
        ("semantic_quantizer.rotation_trick", True, "rotation_trick is True, expected False"),
        ("pixel_encoder.double_z", True, "double_z is True, expected False"),
        ("pixel_decoder.use_dc_up_down_blocks", False, "use_dc_up_down_blocks is False, expected True"),
        ("pixel_decoder.embed_dim", 32, "embed_dim is 32, expected z_channels: 64"),
        ("semantic_encoder.z_channels", 16, "semantic_encoder.z_channels is 16, expected 32"),
        ("semantic_decoder.output_channels", 16, "semantic_decoder.output_channels is 16, expected 3584"),
    ],
)
def test_settings_that_do_not_exist_here_are_refused(place: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        config_from_authors(changed(place, value, authors()))
    assert words in str(refused.value)


def test_one_branch_of_the_authors_settings() -> None:
    settings = authors()
    pixel = config_from_authors({name: value for name, value in settings.items() if name.startswith("pixel")})
    assert list(pixel) == ["pixel"]
    settings["vit"] = {}
    semantic = DualViTokConfig(**config_from_authors(settings)).semantic
    assert semantic is not None
    assert (semantic.vit.depth, semantic.vit.out_channels) == (32, 3584)
