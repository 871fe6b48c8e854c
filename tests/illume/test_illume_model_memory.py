"""What ILLUME+'s networks say that they take beside their weights, before any of it is allocated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_illume import CONFIG as TOKENIZER
from small_illume_model import CONFIG, WIDTH

from zoo.runtime import devices
from zoo.runtime.loading import build_meta
from zoo.runtime.memory_plan import model_dtype
from zoo.runtime.shapes_only import shapes_only
from zoo.session import Session
from zoo_illume.config import DualViTokConfig
from zoo_illume.dualvitok import MOST_CODES, PIXELS_AT_ONCE, DualViTok
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import IllumeConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_memory_grows_with_the_batch_and_the_number_format() -> None:
    with shapes_only():
        model = IllumePlus(IllumeConfig(**CONFIG))
    needs = [model.sampling_memory(batch, torch.float32, CPU) for batch in (1, 2, 8, 64)]
    assert needs == sorted(set(needs))
    assert model.sampling_memory(8, torch.bfloat16, CPU) < model.sampling_memory(8, torch.float32, CPU)


def test_keys_and_values_are_those_of_the_device() -> None:
    """Half of the format's size on a GPU: nothing else is, where a long text is what takes most."""
    with shapes_only():
        model = IllumePlus(IllumeConfig(**{**CONFIG, "sizes": [[28, 56]], "longest_text": 2000}))
    assert model.sampling_memory(8, torch.bfloat16, GPU) < model.sampling_memory(8, torch.bfloat16, CPU)
    assert model.sampling_memory(8, torch.float32, GPU) == model.sampling_memory(8, torch.float32, CPU)


@pytest.mark.parametrize("name", ["3b", "7b"])
def test_released_models_are_bfloat16_where_that_is_computed_and_float32_elsewhere(name, monkeypatch) -> None:
    session = Session()
    card, variant = session.resolve(f"illume:{name}")
    module = build_meta(session.architecture(card, variant), variant.config)
    found = []
    for native in (True, False):
        monkeypatch.setattr(devices, "native_bfloat16", lambda native=native: native)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native: native)
        found.append([model_dtype(module, variant, device) for device in (CPU, GPU)])
    assert found == [[torch.bfloat16] * 2, [torch.float32] * 2]


def test_memory_grows_with_what_may_be_asked_for() -> None:
    def need(**changes: Any) -> int:
        with shapes_only():
            return IllumePlus(IllumeConfig(**{**CONFIG, **changes})).sampling_memory(4, torch.float32, CPU)

    one_size = need(sizes=[[28, 56]], longest_text=16)
    assert one_size < need(sizes=[[56, 56]], longest_text=16)
    assert one_size < need(sizes=[[28, 56]], longest_text=2000)
    # A model of several sizes reads pictures of any size.
    assert one_size < need(sizes=[[28, 56], [28, 28]], longest_text=16)


def test_the_cache_alone_is_covered() -> None:
    """Keys and values of both branches over prompt and picture, computed by hand."""
    with shapes_only():
        model = IllumePlus(IllumeConfig(**{**CONFIG, "sizes": [[28, 56]], "longest_text": 1}))
    tokens = 2 * model.config.picture_tokens(28, 56)
    entries = 2 * 2 * 2 * (WIDTH // 4)  # keys and values, layers, heads that share them, features of one
    for batch in (1, 16):
        assert model.sampling_memory(batch, torch.float32, CPU) > 2 * batch * tokens * entries * 4


def test_released_sizes_take_what_their_tensors_do() -> None:
    """A tokenizer's decoder holds tensors of a whole picture at its widest; the codebooks come beside it."""
    with shapes_only():
        tokenizer = DualViTok(DualViTokConfig(pixel={}))
    tensor = 320 * 960 * 384 * 4
    need = tokenizer.sampling_memory(1, torch.float32, CPU)
    assert 5 * tensor < need < 7 * tensor
    # One of them is more than what goes through it together.
    assert tokenizer.sampling_memory(64, torch.float32, CPU) == need


def test_small_pictures_take_more_until_no_more_go_through_it_together() -> None:
    levels = {"multipliers": [1, 2, 2, 4], "attention_levels": []}
    pixel = {part: {**TOKENIZER["pixel"][part], **levels} for part in ("encoder", "decoder")}
    with shapes_only():
        tokenizer = DualViTok(DualViTokConfig(pixel={**TOKENIZER["pixel"], **pixel}))
    largest, codebook = tokenizer.factor**2 * MOST_CODES, 70 * 5 * 4
    needs = [tokenizer.sampling_memory(n, torch.float32, CPU) for n in (1, 2, 64, 65)]
    one, two, many, more = (need - codebook for need in needs)
    assert 2 * largest < PIXELS_AT_ONCE < 64 * largest
    assert two == 2 * one and many == more == PIXELS_AT_ONCE * one // largest


def test_a_tokenizer_of_one_branch_takes_less() -> None:
    def need(**branches: Any) -> int:
        with shapes_only():
            return DualViTok(DualViTokConfig(**branches)).sampling_memory(3, torch.float32, CPU)

    both = need(**TOKENIZER)
    assert need(semantic=TOKENIZER["semantic"]) > 0
    assert need(pixel=TOKENIZER["pixel"]) < both
