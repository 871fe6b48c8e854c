"""The authors' checkpoints of the whole model: names and shapes there and back, with and without a head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_illume_model import CONFIG, small_model

from zoo.errors import WeightsError
from zoo.runtime.loading import check_tensors, convert_tensors
from zoo.session import Session
from zoo_illume.convert_model import convert, export

TIED: dict[str, Any] = {
    **CONFIG,
    "language_model": {**CONFIG["language_model"], "tie_word_embeddings": True},
}
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    """A checkpoint with a head of its own, under the authors' names."""
    return export(small_model().state_dict(), CONFIG)


@pytest.fixture(scope="module")
def tied() -> dict[str, torch.Tensor]:
    """One whose head shares the table of embeddings."""
    return export(small_model(**TIED).state_dict(), TIED)


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["head", "tied"])
def test_there_and_back_is_the_same(config) -> None:
    model = small_model(**config)
    ours = model.state_dict()
    back = convert(export(ours, config), config)
    check_tensors(model, back, "back")
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


def test_names_and_shapes_are_the_authors(checkpoint) -> None:
    expected = {
        EMBEDDINGS: (100, 32),
        HEAD: (100, 32),
        "model.norm.weight": (32,),
        "model.layers.1.self_attn.k_proj.bias": (16,),
        "model.vision_tower.semantic_encoder.patch_embed.proj.weight": (16, 3, 2, 14, 14),
        "model.vision_tower.semantic_encoder.blocks.0.mlp.fc1.weight": (32, 16),
        "model.vision_tower.semantic_encoder.merger.mlp.2.weight": (12, 16),
        "model.vision_tower.pixel_encoder.down.2.attn.0.proj_out.weight": (16, 16, 1, 1),
        "model.vision_tower.pixel_encoder.conv_out.weight": (4, 16, 3, 3),
        "model.mm_projector.projector_1.0.weight": (32, 12),
        "model.mm_projector.projector_2.2.weight": (32, 32),
    }
    assert {name: tuple(checkpoint[name].shape) for name in expected} == expected


def test_a_shared_head_may_stand_in_the_file_or_not(tied) -> None:
    assert torch.equal(tied[HEAD], tied[EMBEDDINGS])
    without = {name: tensor for name, tensor in tied.items() if name != HEAD}
    assert set(convert(tied, TIED)) == set(convert(without, TIED)) == set(small_model(**TIED).state_dict())
    copied = {**tied, HEAD: tied[HEAD].clone()}
    assert set(convert(copied, TIED)) == set(convert(without, TIED))


def test_a_head_that_is_not_the_shared_one_is_an_error(tied) -> None:
    changed = tied[HEAD].clone()
    changed[-1, -1] += 1.0
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        convert({**tied, HEAD: changed}, TIED)
    with pytest.raises(ValueError, match="differs"):
        convert({**tied, HEAD: tied[HEAD][1:]}, TIED)


def test_a_head_of_its_own_is_kept(checkpoint) -> None:
    converted = convert(checkpoint, CONFIG)
    assert torch.equal(converted["language_model.lm_head.weight"], checkpoint[HEAD])


def test_a_foreign_tensor_is_reported_under_its_name(checkpoint) -> None:
    session = Session()
    session.use(session.catalogue.cards["illume"])
    entry = session.converter("illume-plus", "a test")
    ours = convert_tensors(entry, {**checkpoint, "model.extra.weight": torch.zeros(1)}, CONFIG, "a file")
    with pytest.raises(WeightsError, match=r"unexpected tensor model\.extra\.weight"):
        check_tensors(small_model(), ours, "a file")


def test_parts_of_a_checkpoint_are_converted_as_the_whole(checkpoint) -> None:
    """A checkpoint in several files may be converted file by file."""
    names = sorted(checkpoint)
    parts = [names[::2], names[1::2]]
    joined: dict[str, torch.Tensor] = {}
    for part in parts:
        joined |= convert({name: checkpoint[name] for name in part}, CONFIG)
    whole = convert(checkpoint, CONFIG)
    assert joined.keys() == whole.keys()
    assert all(torch.equal(joined[name], tensor) for name, tensor in whole.items())
