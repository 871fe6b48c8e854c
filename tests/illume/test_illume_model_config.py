"""What an ILLUME+ model is determined by: ids of tokens, sizes that are drawn, grids, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.errors import InvalidInput
from zoo_illume.authors import model_config
from zoo_illume.model_config import SIZES, IllumeConfig

LANGUAGE_MODEL: dict[str, Any] = {
    "vocab_size": 283047,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
RELEASED = IllumeConfig(language_model=LANGUAGE_MODEL)

#: Of the authors' model for a vocabulary of 128, as its settings stand in their files.
AUTHORS: dict[str, Any] = {
    "llm": {**LANGUAGE_MODEL, "arch": "Qwen2", "vocab_size": 128, "eos_token_id": 2},
    "vit": {"depth": 1, "embed_dim": 12, "hidden_size": 20, "num_heads": 3, "mlp_ratio": 2},
    "pixel_encoder": {
        "attn_resolutions": [1],
        "embed_dim": 8,
        "z_channels": 8,
        "ch": 32,
        "ch_mult": [1],
        "num_res_blocks": 0,
    },
    "projector": {"type": "MixedProjector", "mlp_depth": 2, "mm_hidden_size": [20, 8]},
    "special_tokens_ids": [100, 101, 102, 103, 104, 105, 106],
}


def test_released_ids_are_those_of_the_authors_table() -> None:
    tokens = RELEASED.tokens
    assert tokens.size(64, 1024) == (151672, 151703)
    assert tokens.size(512, 384) == (151679, 151693)
    assert tokens.end == 282776
    rules = tokens.interleaved()
    assert rules.codes == ((151704, 184472), (184472, 282776))
    assert (rules.start_of_image, rules.end_of_image, rules.end_of_line) == (151665, 151666, 151667)
    assert rules.start_of_level == (151668, 151670)
    assert rules.end_of_level == (151669, 151671)
    assert rules.end_of_text == 151645


@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((512, 512), ((18, 18), (32, 32))),
        ((256, 256), ((9, 9), (16, 16))),
        ((512, 384), ((16, 12), (32, 24))),
        ((384, 768), ((13, 26), (24, 48))),
        ((256, 1024), ((9, 36), (16, 64))),
        ((384, 576), ((12, 18), (24, 36))),
        ((320, 960), ((11, 33), (20, 60))),
    ],
)
def test_grids_and_lengths_are_those_of_the_authors_table(size, grids) -> None:
    (h1, w1), (h2, w2) = grids
    assert RELEASED.grids(*size) == grids
    # Their budget has four tokens more around a picture: it is a limit, and two of its six are ours.
    assert RELEASED.picture_tokens(*size) == h1 * (w1 + 1) + 2 + h2 * (w2 + 1) + 2 + 2


def test_every_size_that_is_drawn_has_its_tokens() -> None:
    assert RELEASED.sizes == SIZES
    assert len(set(SIZES)) == 12 and SIZES[0] == (512, 512)
    assert {(width, height) for height, width in SIZES} == set(SIZES)
    assert len({RELEASED.tokens.size(*size) for size in SIZES}) == 12
    assert (RELEASED.semantic_cell, RELEASED.factor) == (28, 16)


@pytest.mark.parametrize("side", [0, -64, 63, 100, 1088])
def test_a_side_without_a_token_is_refused(side) -> None:
    for size in ((side, 512), (512, side)):
        with pytest.raises(InvalidInput, match=f"side of {side} pixels"):
            RELEASED.tokens.size(*size)


def test_a_picture_that_does_not_fit_the_grid_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"500x512.*multiples of 16"):
        RELEASED.grids(500, 512)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": {"end_of_image": 151665}}, "start_of_image"),
        ({"tokens": {"end_of_line": 160000}}, r"codes\[0\] and end_of_line"),
        ({"tokens": {"first_width": 151680}}, "widths"),
        ({"tokens": {"start_of_image": -1}}, "start_of_image begins with the id -1"),
        ({"tokens": {"codes": [1, 2, 3]}}, "each of the two levels"),
        ({"tokens": {"codes": [-1, 2]}}, "no negatives"),
        ({"tokens": {"size_step": 0}}, "size_step"),
        ({"tokens": {"codes": [32768, 200000]}}, "vocab_size"),
        ({"tokens": {"code": []}}, "no setting 'code'"),
        ({"sizes": [[500, 512]]}, "500x512"),
        ({"sizes": [[512, 1040]]}, "512x1040.*no token"),
        ({"sizes": [[0, 0]]}, "0x0"),
        ({"tokens": {"codes": [32768, 0]}}, "no codes"),
        ({"longest_text": 0}, "longest_text"),
        ({"language_model": {**LANGUAGE_MODEL, "layers": 3}}, "no setting 'layers'"),
        ({"formats": {"paint": ""}}, "no setting 'paint'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        IllumeConfig(**{"language_model": LANGUAGE_MODEL, **changes})


# The authors' settings


def test_their_settings_without_codes_make_a_model_that_reads() -> None:
    config = IllumeConfig(**model_config(AUTHORS))
    assert config.sizes == ()
    assert config.tokens.codes == (0, 0)
    assert config.tokens.interleaved().end_of_text == 2
    assert config.encoder.attention_levels == (), "their code passes over a level that is not there"


def test_their_settings_with_codes_make_one_that_writes() -> None:
    tokens = IllumeConfig(**model_config(AUTHORS, [(107, 115), (115, 128)])).tokens
    assert tokens.interleaved().codes == ((107, 115), (115, 128))
    assert tokens.interleaved().start_of_level == (103, 105)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("projector", {"mlp_depth": 3}, "mlp_depth"),
        ("projector", {"type": "Linear"}, "Linear"),
        ("projector", {"mm_hidden_size": [20, 9]}, "mm_hidden_size"),
        ("llm", {"arch": "Llama"}, "Llama"),
    ],
)
def test_settings_that_no_release_uses_are_refused(part, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        model_config({**AUTHORS, part: {**AUTHORS[part], **changes}})
