"""What illume:shapes begins with: embeddings by the distance of codes, heads that look at one distance."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.nn.language_model import FRESH_WEIGHTS, LanguageModel, LanguageModelConfig
from zoo.runtime.noise import BatchNoise
from zoo_illume.dualvitok import DualViTok
from zoo_illume.initialising import aligned_heads, neighbouring_codes
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import PICTURE
from zoo_illume.recipe import SIZE, ShapesRecipe


@pytest.fixture(scope="module")
def recipe() -> ShapesRecipe:
    return ShapesRecipe()


@pytest.fixture(scope="module")
def fresh(recipe: ShapesRecipe) -> IllumePlus:
    torch.manual_seed(0)
    return IllumePlus(recipe.setting.config)


def furthest_moved(model: LanguageModel, sequence: Tensor, place: int) -> list[int]:
    """Where what the model makes of a sequence changes when one place does, furthest first."""
    changed = sequence.clone()
    changed[0, place] = -changed[0, place]
    with torch.no_grad():
        moved = (model.hidden(changed) - model.hidden(sequence))[0].norm(dim=1)
    assert not moved[:place].any()
    return [int(index) for index in moved.argsort(descending=True)]


@pytest.mark.parametrize("distance", [7, 40, 100])
def test_an_aligned_head_looks_at_one_distance(distance: int) -> None:
    config = LanguageModelConfig(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_theta=10000.0,
    )
    torch.manual_seed(0)
    model, sequence = LanguageModel(config), torch.randn(1, 160, 64)
    before = furthest_moved(model, sequence, 20)
    aligned_heads(model, distance)
    assert furthest_moved(model, sequence, 20)[:2] == [20, 20 + distance] != before[:2]


def test_an_edit_looks_at_the_place_that_it_writes(recipe: ShapesRecipe, fresh: IllumePlus) -> None:
    model = copy.deepcopy(fresh)
    recipe.initialise(model, BatchNoise("initialise"))
    prompt, config = recipe.setting.prompts.edit("make the circle blue", (SIZE, SIZE)), recipe.setting.config
    mark, read = prompt.index(PICTURE), config.picture_tokens(SIZE, SIZE)
    written = len(prompt) - 1 + read
    torch.manual_seed(1)
    sequence = 0.3 * torch.randn(1, written + read, config.language_model.hidden_size)
    for place in (3, 12, 60):
        # What is written at a place is told by the token before.
        assert furthest_moved(model.language_model, sequence, mark + place)[1] == written + place - 1


def test_codes_that_are_near_begin_near(recipe: ShapesRecipe, fresh: IllumePlus) -> None:
    model = copy.deepcopy(fresh)
    tokenizer: DualViTok = recipe.tokenizer
    neighbouring_codes(model, tokenizer, BatchNoise("initialise"))
    table, old = (one.language_model.head_weight.detach() for one in (model, fresh))
    tokens = recipe.setting.config.tokens
    for level, look_up in enumerate((tokenizer.semantic_codes, tokenizer.pixel_codes)):
        first, count = tokens.first_code[level], tokens.codes[level]
        codes = look_up(torch.arange(count)[:, None, None]).flatten(1)
        rows = table[first : first + count]
        assert float(rows.std()) == pytest.approx(FRESH_WEIGHTS, rel=0.05)
        unit = F.normalize(rows, dim=1)
        likeness, distance = unit @ unit.T, torch.cdist(codes, codes)
        near, far = likeness[(distance > 0) & (distance < 0.2)], likeness[distance > 2.0]
        assert float(near.mean()) > 0.5 and abs(float(far.mean())) < 0.1
    assert torch.equal(table[: tokens.first_code[0]], old[: tokens.first_code[0]])
