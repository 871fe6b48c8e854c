"""Configurations: what they fill in, what they refuse, and what the authors' settings become."""

from __future__ import annotations

from typing import Any

import pytest
from small_mdm import INNER, OUTER

from zoo.errors import InvalidInput
from zoo.runtime.loading import build_meta, parameter_count
from zoo.session import Session
from zoo_mdm.authors import config_from_authors
from zoo_mdm.config import NestedUNetConfig, UNetConfig


@pytest.fixture(scope="module")
def session() -> Session:
    session = Session()
    session.use(session.catalogue.cards["mdm"])
    return session


def refusal(session: Session, architecture: str, config: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        build_meta(session.registry.architectures.find(architecture), config)
    return caught.value.message


def test_absent_settings_are_filled_in() -> None:
    config = UNetConfig(image_size=32, channels=[8, 16, 16], residual_blocks=[1, 1, 2])
    assert config.embedding_dim == 32
    assert config.attention_layers == (0, 0, 0)
    assert config.ratio == 4
    assert config.text_width == 0


def test_a_nested_table_becomes_a_configuration_of_the_same_depth() -> None:
    config = NestedUNetConfig(**{**OUTER, "image_size": 32, "inner": OUTER})
    assert isinstance(config.inner, NestedUNetConfig)
    assert config.inner == NestedUNetConfig(**OUTER)
    assert config.innermost == UNetConfig(**INNER)
    assert config.text_width == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"residual_blocks": [1]}, "residual_blocks has 1 entries, channels has 2"),
        ({"attention_layers": [0, 1, 1]}, "attention_layers has 3 entries, channels has 2"),
        ({"embedding_dim": 20}, "embedding_dim (20) must be a multiple of 8"),
        ({"image_size": 9}, "image_size (9) must be a multiple of 2"),
        ({"prediction": "x0"}, "prediction is 'x0', expected one of: v, epsilon"),
        ({"channels": [8, 30]}, "num_channels (30) must be divisible by num_groups (4)"),
    ],
)
def test_a_plain_network_that_cannot_be_is_refused(
    session: Session, changes: dict[str, Any], words: str
) -> None:
    assert words in refusal(session, "mdm-unet", {**INNER, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 32}, "inner makes pictures of side 8, expected 16"),
        ({"embedding_dim": 64}, "inner has embedding_dim 32, outside it is 64"),
        ({"inner": {**INNER, "width": 3}}, "inner has no setting 'width'; it has: attention_feedforward"),
    ],
)
def test_levels_that_do_not_go_together_are_refused(
    session: Session, changes: dict[str, Any], words: str
) -> None:
    assert words in refusal(session, "mdm-nested-unet", {**OUTER, **changes})


def test_the_authors_defaults_are_theirs() -> None:
    config = UNetConfig(**config_from_authors({}, 0, 64))
    assert config.channels == (128, 256, 256, 512, 1024)
    assert config.residual_blocks == (2, 2, 2, 2, 2)
    assert config.attention_layers == (0, 0, 1, 1, 0)
    assert config.embedding_dim == 512
    assert config.mask_padding and config.middle


def test_the_authors_nested_settings_are_put_where_they_belong() -> None:
    inner = {"resolution_channels": "8,32", "attention_levels": "", "temporal_dim": 32}
    unet = {**inner, "micro_conditioning": "scale:32,quality:0.5", "inner_config": inner}
    sampler = {"prediction_type": "DDIM", "schedule_type": "COSINE", "num_diffusion_steps": 50}
    reader = {"max_token_length": 7, "max_caption_length": -1}
    config = NestedUNetConfig(**config_from_authors(unet, 12, 32, sampler, reader))
    assert config.micro_conditions == {"scale": 32.0, "quality": 0.5}
    assert (config.prediction, config.schedule, config.training_steps) == ("epsilon", "cosine-log-ratio", 50)
    assert config.normalise_input
    assert config.noise_shift is None
    assert (config.innermost.image_size, config.innermost.text_dim) == (16, 12)
    assert (config.innermost.text_tokens, config.innermost.text_characters) == (7, 0)


def test_the_shift_of_the_noise_is_the_authors_power() -> None:
    sampler = {"prediction_type": "V_PREDICTION", "schedule_type": "DEEPFLOYD", "num_diffusion_steps": 1000}
    unet = {"inner_config": {}}
    shifts = [
        config_from_authors(unet, 0, 1024, {**sampler, "schedule_shifted": True, **power})["noise_shift"]
        for power in ({}, {"schedule_shifted_power": 2})
    ]
    assert shifts == [1, 2]


def test_the_scale_of_the_signal_is_that_of_plain_networks_alone() -> None:
    sampler = {"prediction_type": "V_PREDICTION", "schedule_type": "DEEPFLOYD", "num_diffusion_steps": 1000}
    sampler["rescale_signal"] = 2
    assert config_from_authors({}, 0, 64, sampler)["signal_scale"] == 2.0
    assert config_from_authors({"inner_config": {}}, 0, 1024, sampler)["inner"]["signal_scale"] == 1.0


@pytest.mark.parametrize("name", ["temporal_mode", "interp_conditioning", "skip_inner_unet_input"])
def test_settings_that_do_not_exist_here_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is True, expected False"):
        config_from_authors({name: True}, 0, 64)


def test_betas_that_do_not_exist_here_are_refused() -> None:
    sampler = {"prediction_type": "DDPM", "schedule_type": "DDPM", "num_diffusion_steps": 10, "beta_end": 0.1}
    with pytest.raises(ValueError, match=r"expected 0.0001 and 0.02"):
        config_from_authors({}, 0, 64, sampler)


def test_levels_add_up(session: Session) -> None:
    """The released models differ in nothing but their outer levels."""
    card = session.catalogue.cards["mdm"]
    inner = card.variants["flickr64"].config
    for name in ("flickr256", "flickr1024"):
        config = card.variants[name].config
        while "inner" in config:
            config = config["inner"]
        assert {**config, "text_characters": 512} == inner
    plain = build_meta(session.registry.architectures.find("mdm-unet"), inner)
    assert parameter_count(plain) == card.variants["flickr64"].params
