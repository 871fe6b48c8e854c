"""ILLUME+'s model: the order in which a picture is read, prompts with pictures, batches, memory."""

from __future__ import annotations

import pytest
import torch
from small_illume import pictures
from small_illume_model import (
    CELL,
    END,
    FACTOR,
    LEVEL_ENDS,
    LEVEL_STARTS,
    LINE,
    START,
    VOCABULARY,
    small_model,
)
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.runtime.capabilities import MemoryEstimate, TokenLM
from zoo_illume import model as illume_model
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import PICTURE


@pytest.fixture(scope="module")
def model() -> IllumePlus:
    return small_model()


def by_hand(model: IllumePlus, image: Tensor) -> Tensor:
    """What stands for one picture, token after token: the order that the authors' protocol gives."""
    features = model.features(image[None])
    levels = (
        model.semantic_projector(features.semantic)[0],
        model.pixel_projector(features.pixel)[0],
    )
    height, width = image.shape[1:]
    grids = ((height // CELL, width // CELL), (height // FACTOR, width // FACTOR))

    def token(index: int) -> Tensor:
        return model.embed(torch.tensor([index]))

    parts = [token(START)]
    for level, (rows, columns) in enumerate(grids):
        parts.append(token(LEVEL_STARTS[level]))
        for row in range(rows):
            parts += [levels[level][row * columns : (row + 1) * columns], token(LINE)]
        parts.append(token(LEVEL_ENDS[level]))
    return torch.cat([*parts, token(END)])


# Reading pictures


@pytest.mark.parametrize("size", [(28, 56), (56, 28), (56, 56)])
def test_a_picture_is_read_row_by_row_meaning_first(model, size) -> None:
    image = pictures(1, *size)[0]
    expected = by_hand(model, image)
    assert torch.allclose(model.read(image[None])[0], expected, atol=1e-6)
    assert len(expected) == model.config.picture_tokens(*size)


def test_structure_stands_where_the_grids_say(model) -> None:
    read = model.read(pictures(1, 28, 56))[0]
    table = model.language_model.model.embed_tokens.weight
    places = {
        index: token
        for index, row in enumerate(read)
        for token in (START, END, LINE, *LEVEL_STARTS, *LEVEL_ENDS)
        if torch.equal(row, table[token])
    }
    # Two semantic rows of four and an end of line, seven rows of fourteen pixel features.
    lines = [6, 11, *range(14 + 14, 14 + 7 * 15, 15)]
    expected = {0: START, 1: LEVEL_STARTS[0], 12: LEVEL_ENDS[0], 13: LEVEL_STARTS[1], 119: LEVEL_ENDS[1]}
    assert places == {**expected, 120: END, **dict.fromkeys(lines, LINE)}


def test_semantic_features_do_not_lose_their_scale(model) -> None:
    """The tokenizer normalises what the vision transformer says; the model reads it as it is."""
    images = pictures(2, 28, 28)
    features = model.features(images)
    assert torch.equal(features.semantic, model.vision.semantic(images))
    normalised = torch.nn.functional.layer_norm(features.semantic, features.semantic.shape[-1:])
    assert not torch.allclose(features.semantic, normalised, atol=1e-2)
    assert features.pixel.shape == (2, 49, 4)


def test_a_picture_does_not_depend_on_the_others(model, monkeypatch) -> None:
    images = pictures(3, 28, 56)
    together = model.read(images)
    for index in range(3):
        assert torch.allclose(together[index], model.read(images[index : index + 1])[0], atol=1e-5)
    # So many pictures at once that they are looked at one after the other.
    monkeypatch.setattr(illume_model, "PIXELS_AT_ONCE", 28 * 56)
    assert torch.allclose(model.read(images), together, atol=1e-5)


def test_gradients_reach_everything_that_looks(model) -> None:
    fresh = small_model().requires_grad_(True)
    fresh(fresh.read(pictures(2, 28, 28))).square().mean().backward()
    silent = [name for name, tensor in fresh.named_parameters() if tensor.grad is None]
    assert not silent


@pytest.mark.parametrize(
    ("shape", "what"),
    [((1, 3, 28, 30), "28x30"), ((1, 4, 28, 28), "4, 28, 28"), ((3, 28, 28), r"\[3, 28, 28\]")],
)
def test_what_is_no_picture_is_refused(model, shape, what) -> None:
    for method in (model.read, model.features):
        with pytest.raises(InvalidInput, match=what):
            method(torch.zeros(shape))


# Prompts


def test_pictures_stand_where_their_marks_are(model) -> None:
    first, second = model.read(pictures(1, 28, 28))[0], model.read(pictures(1, 28, 56, seed=1))[0]
    ids = torch.tensor([5, PICTURE, 6, 7, PICTURE])
    embedded = model.embed_prompt(ids, [first, second])
    expected = [model.embed(torch.tensor([5])), first, model.embed(torch.tensor([6, 7])), second]
    assert torch.equal(embedded, torch.cat(expected))
    assert torch.equal(model.embed_prompt(ids[2:4]), expected[2])


def test_a_prompt_and_its_pictures_have_to_agree(model) -> None:
    picture = model.read(pictures(1, 28, 28))[0]
    with pytest.raises(InvalidInput, match="places for 1 pictures and 0"):
        model.embed_prompt(torch.tensor([5, PICTURE]))
    with pytest.raises(InvalidInput, match="places for 1 pictures and 2"):
        model.embed_prompt(torch.tensor([5, PICTURE]), [picture, picture])
    for wrong in (VOCABULARY, -1):
        with pytest.raises(InvalidInput, match=str(wrong)):
            model.embed_prompt(torch.tensor([5, wrong]))
    with pytest.raises(InvalidInput, match=r"\[1, 2\]"):
        model.embed_prompt(torch.tensor([[5, 6]]))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("given", ["right", "left"])
def test_a_batch_is_padded_and_its_rows_stay_what_they_are(model, side, given) -> None:
    read = model.read(pictures(2, 28, 28))
    rows = [[5, PICTURE, 6], [7, 8], [PICTURE, 9, 10, 11]]
    most = max(map(len, rows))
    # A prompt without a picture takes one from the list all the same.
    supply = [read[0], torch.zeros_like(read[0]), read[1]]
    ids, mask = torch.zeros(3, most, dtype=torch.int64), torch.zeros(3, most, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if given == "right" else slice(most - len(row), most)
        ids[index, place], mask[index, place] = torch.tensor(row), True
    embedded, there = model.embed_batch(ids, mask, supply, side)
    alone = [
        model.embed_prompt(torch.tensor(row), [supply[index]] if PICTURE in row else [])
        for index, row in enumerate(rows)
    ]
    for index, row in enumerate(alone):
        assert torch.equal(embedded[index][there[index]], row)
        ends = there[index].int().diff().abs().sum()
        assert ends == (len(row) < embedded.shape[1]), "what stands in a row is one run"
        assert bool(there[index, 0 if side == "right" else -1])
    assert not embedded[~there].any()
    logits = model(embedded, mask=there)
    for index, row in enumerate(alone):
        assert torch.allclose(logits[index][there[index]], model(row[None])[0], atol=1e-4)


def test_without_a_mask_nothing_is_padding(model) -> None:
    embedded, there = model.embed_batch(torch.tensor([[5, 0], [0, 6]]), None, ())
    assert there.all()
    assert torch.equal(embedded, model.embed(torch.tensor([[5, 0], [0, 6]])))


def test_what_is_too_long_is_cut_off_at_its_end(model) -> None:
    read = model.read(pictures(1, 28, 28))
    ids = torch.tensor([[5, PICTURE, 6], [7, 8, 9]])
    whole, _ = model.embed_batch(ids, None, [read[0], read[0]])
    cut, there = model.embed_batch(ids, None, [read[0], read[0]], most_tokens=20)
    assert torch.equal(cut, whole[:, :20])
    assert there.sum(1).tolist() == [20, 3]


# What samplers and plans ask


def test_it_offers_what_it_is_registered_with(model) -> None:
    assert isinstance(model, TokenLM)
    assert isinstance(model, MemoryEstimate)
    assert model.grids(28, 56) == ((2, 4), (7, 14))
