"""The samplers' options: the authors' defaults, what follows from what, and what is refused."""

from __future__ import annotations

import pytest

from zoo.errors import InvalidInput
from zoo.runtime.options import build_options
from zoo.runtime.tokens.processors import Warp
from zoo_illume.options import DrawOptions, EditOptions, ReconstructOptions, TextOptions
from zoo_illume.processor import Warps


def test_defaults_are_those_of_the_authors_scripts() -> None:
    drawing, editing = DrawOptions(), EditOptions()
    assert (drawing.temperature, drawing.top_k, drawing.top_p, drawing.guidance) == (1.0, 2048, 1.0, 2.0)
    assert (editing.temperature, editing.top_k, editing.top_p, editing.guidance) == (0.7, 512, 0.8, 1.25)
    assert (drawing.decoder, drawing.decoder_steps, drawing.decoder_guidance) == ("pixel", 50, 2.0)
    assert (TextOptions().max_tokens, drawing.doubled, TextOptions().doubled) == (1024, False, False)


@pytest.mark.parametrize(
    ("given", "semantic", "pixel"),
    [
        ({}, Warp(1.0, 2048, 1.0), Warp(1.0, 6144, 1.0)),
        ({"temperature": 0.7, "top_k": 5, "top_p": 0.8}, Warp(0.7, 5, 0.8), Warp(0.7, 15, 0.8)),
        ({"semantic_temperature": 0.5, "semantic_top_k": 7}, Warp(0.5, 7, 1.0), Warp(0.5, 21, 1.0)),
        ({"semantic_top_p": 0.5, "pixel_top_k": 3}, Warp(1.0, 2048, 0.5), Warp(1.0, 3, 0.5)),
        ({"pixel_temperature": 2.0, "pixel_top_p": 0.9}, Warp(1.0, 2048, 1.0), Warp(2.0, 6144, 0.9)),
        ({"top_k": 0, "pixel_top_k": 9}, Warp(1.0, 0, 1.0), Warp(1.0, 9, 1.0)),
    ],
)
def test_what_is_not_given_follows_from_the_rest_as_in_the_authors_code(given, semantic, pixel) -> None:
    options = DrawOptions(**given)
    text = Warp(options.temperature, options.top_k, options.top_p)
    assert options.warps == Warps(text, (semantic, pixel))


def test_a_temperature_of_zero_takes_the_likeliest() -> None:
    assert DrawOptions(temperature=0).greedy_levels == (True, True)
    assert DrawOptions(semantic_temperature=0).greedy_levels == (True, True)
    assert DrawOptions(semantic_temperature=0, pixel_temperature=1.0).greedy_levels == (True, False)
    assert DrawOptions(pixel_temperature=0).greedy_levels == (False, True)
    assert TextOptions(temperature=0).greedy and not TextOptions().greedy


def test_applied_twice_a_greedy_text_makes_all_greedy() -> None:
    mixed = {"temperature": 0, "semantic_temperature": 1.0, "pixel_temperature": 1.0}
    assert DrawOptions(**mixed).greedy_levels == (False, False)
    assert DrawOptions(**mixed, doubled=True).greedy_levels == (True, True)


def test_only_what_is_needed_is_used() -> None:
    assert DrawOptions().uses("image_tokenizer") and not DrawOptions().uses("decoder")
    assert DrawOptions(decoder="diffusion").uses("decoder") and EditOptions().uses("text_tokenizer")
    assert TextOptions().uses("text_tokenizer") and not TextOptions().uses("image_tokenizer")
    assert not TextOptions().uses("decoder")
    stages = [EditOptions().stage_of(role) for role in ("decoder", "image_tokenizer", "text_tokenizer")]
    assert stages == ["after", "after", "with"]


@pytest.mark.parametrize(
    ("kind", "given", "problem"),
    [
        (DrawOptions, {"temperature": -0.1}, "temperature is -0.1, expected a number of at least 0"),
        (TextOptions, {"top_k": -1}, "top_k is -1"),
        (EditOptions, {"top_p": 0}, "top_p is 0.0, expected above 0 and at most 1"),
        (DrawOptions, {"semantic_temperature": -1}, "semantic_temperature is -1.0"),
        (DrawOptions, {"semantic_top_k": -2}, "semantic_top_k is -2"),
        (DrawOptions, {"pixel_top_p": 1.5}, "pixel_top_p is 1.5"),
        (DrawOptions, {"guidance": -1}, "guidance is -1.0"),
        (DrawOptions, {"decoder_guidance": -1}, "decoder_guidance is -1.0"),
        (DrawOptions, {"decoder_steps": 0}, "decoder_steps is 0"),
        (DrawOptions, {"decoder": "none of it"}, "option decoder is 'none of it', expected one of: pixel"),
        (TextOptions, {"max_tokens": 0}, "max_tokens is 0, expected at least 1"),
        (TextOptions, {"guidance": 2}, "has no option 'guidance'"),
        (ReconstructOptions, {"temperature": 1}, "has no option 'temperature'"),
    ],
)
def test_what_means_nothing_is_refused(kind, given, problem) -> None:
    with pytest.raises(InvalidInput) as raised:
        build_options(kind, "illume", given)
    assert problem in raised.value.message
