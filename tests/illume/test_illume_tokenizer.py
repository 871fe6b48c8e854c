"""The whole tokenizer through its public methods."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_illume import pictures, randomised, small_tokenizer
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.session import Session
from zoo_illume.config import DualViTokConfig
from zoo_illume.dualvitok import DualViTok


@pytest.mark.parametrize("size", [(32, 64), (112, 64), (64, 32)])
def test_codes_of_other_sizes_have_their_grids(size: tuple[int, int]) -> None:
    tokenizer = small_tokenizer()
    made, grids = tokenizer.encode(pictures(2, *size)), tokenizer.grids(*size)
    semantic, pixel = made.semantic.quantised, made.pixel.quantised
    assert (tuple(semantic.indices.shape[1:]), tuple(pixel.indices.shape[1:])) == grids
    assert made.semantic.features.shape == semantic.values.shape == (2, 6, *grids[0])
    assert made.semantic.target.shape == (2, 24, *grids[0])
    assert tokenizer.decode_features(semantic.values).shape == (2, 24, *grids[0])
    assert tokenizer.merge(semantic.values, pixel.values).shape == (2, 10, *grids[1])
    assert tokenizer.decode(semantic.indices, pixel.indices).shape == (2, 3, *size)


def test_a_batch_is_its_pictures_one_by_one() -> None:
    tokenizer, images = small_tokenizer(), pictures(3, 64, 96)
    together = tokenizer(images)
    for row in range(3):
        alone = tokenizer(images[row : row + 1])
        for part in ("semantic", "pixel"):
            ours, theirs = getattr(together.encoded, part), getattr(alone.encoded, part)
            torch.testing.assert_close(ours.features[row : row + 1], theirs.features, atol=1e-5, rtol=1e-4)
            assert torch.equal(ours.quantised.indices[row : row + 1], theirs.quantised.indices)
        torch.testing.assert_close(together.images[row : row + 1], alone.images, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.features[row : row + 1], alone.features, atol=1e-4, rtol=1e-4)


def test_decoding_indices_is_decoding_their_codes() -> None:
    tokenizer, images = small_tokenizer(), pictures(2, 64, 96)
    made = tokenizer(images)
    semantic, pixel = made.encoded.semantic.quantised, made.encoded.pixel.quantised
    torch.testing.assert_close(
        tokenizer.decode(semantic.indices, pixel.indices), made.images, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(tokenizer.semantic_codes(semantic.indices), semantic.values)
    torch.testing.assert_close(tokenizer.pixel_codes(pixel.indices), pixel.values)


def test_both_branches_change_the_picture() -> None:
    tokenizer = small_tokenizer()
    made = tokenizer.encode(pictures(1, 64, 64))
    semantic, pixel = made.semantic.quantised.indices, made.pixel.quantised.indices
    drawn = tokenizer.decode(semantic, pixel)
    for other in (tokenizer.decode((semantic + 1) % 50, pixel), tokenizer.decode(semantic, (pixel + 1) % 70)):
        assert float((other - drawn).abs().max()) > 0.01


def test_the_target_has_neither_mean_nor_scale() -> None:
    target = small_tokenizer().encode_semantic(pictures(2, 60, 90)).target
    torch.testing.assert_close(target.mean(dim=1), torch.zeros(2, 2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.square().mean(dim=1), torch.ones(2, 2, 3), atol=1e-3, rtol=0)


def test_the_parts_of_a_loss_reach_every_weight() -> None:
    tokenizer, images = small_tokenizer(), pictures(1, 64, 64)
    tokenizer.requires_grad_(True)
    made = tokenizer(images)
    semantic, pixel = made.encoded.semantic, made.encoded.pixel
    loss = (made.images - images).square().mean() + (made.features - semantic.target).square().mean()
    (loss + semantic.quantised.commitment + pixel.quantised.commitment).backward()
    assert [name for name, weight in tokenizer.named_parameters() if weight.grad is None] == []
    # Keys' biases change no softmax, so nothing is asked of the size of their gradients.
    still = [
        name
        for name, weight in tokenizer.named_parameters()
        if not weight.grad.any() and ".k.bias" not in name
    ]
    assert still == []


def test_the_released_sizes_fit_together() -> None:
    _, variant = Session().resolve("illume:dualvitok")
    with torch.device("meta"):
        tokenizer = DualViTok(DualViTokConfig(**variant.config))
        made = tokenizer(torch.empty(2, 3, 512, 384))
    assert made.images.shape == (2, 3, 512, 384)
    assert made.features.shape == made.encoded.semantic.target.shape == (2, 3584, 16, 12)
    assert made.encoded.pixel.quantised.indices.shape == (2, 32, 24)


@pytest.mark.parametrize("projection", ["linear", "linear-norm", "norm-linear", "mlp"])
def test_every_kind_of_projection(projection: str) -> None:
    config = small_tokenizer().config.semantic
    assert config is not None
    table = {"vit": config.vit, "quantiser": config.quantiser, "width": 64, "decoder_width": 64}
    kinds = {"projection": projection, "decoder_projection": projection}
    branch = {**table, **kinds, "blocks": 0, "decoder_blocks": 0}
    tokenizer = randomised(DualViTok(DualViTokConfig(semantic=branch))).requires_grad_(False)  # type: ignore[arg-type]
    expected = {"linear": ["0"], "linear-norm": ["0", "1"], "norm-linear": ["0", "1"], "mlp": ["0", "2"]}
    names = tokenizer.state_dict()
    for part in ("encoder", "decoder"):
        start = f"semantic.{part}.proj_out."
        assert sorted({name[len(start)] for name in names if name.startswith(start)}) == expected[projection]
    made = tokenizer.encode_semantic(pictures(1, 56, 56))
    assert made.features.shape == (1, 6, 2, 2)
    assert tokenizer.decode_features(made.quantised.values).shape == (1, 24, 2, 2)


def test_half_precision_runs_with_codes_in_float32() -> None:
    tokenizer = small_tokenizer().bfloat16()
    made = tokenizer(pictures(1, 64, 64))
    assert made.images.dtype == made.features.dtype == made.encoded.pixel.features.dtype == torch.bfloat16
    assert made.encoded.semantic.quantised.values.dtype == torch.float32


IMAGES, INDICES = pictures(2, 64, 64), torch.zeros(2, 2, 2, dtype=torch.int64)

REFUSED: dict[str, tuple[Callable[[DualViTok], object], str]] = {
    "sides": (lambda t: t.encode(pictures(1, 64, 60)), r"64x60 .*expected multiples of 16"),
    "one picture": (
        lambda t: t.encode_semantic(IMAGES[0]),
        r"\[3, 64, 64\], expected \[n, 3, height, width\]",
    ),
    "four channels": (
        lambda t: t.encode_pixel(torch.zeros(1, 4, 16, 16)),
        r"expected \[n, 3, height, width\]",
    ),
    "no pixels": (lambda t: t.encode_semantic(torch.zeros(1, 3, 0, 16)), r"expected \[n, 3, height, width\]"),
    "bytes": (lambda t: t.encode(IMAGES.to(torch.uint8)), r"torch.uint8, expected floating-point numbers"),
    "semantic index": (lambda t: t.decode(INDICES + 50, INDICES), r"no code 50, expected 0 \.\. 49"),
    "pixel index": (lambda t: t.decode(INDICES, INDICES - 1), r"no code -1, expected 0 \.\. 69"),
    "flat indices": (
        lambda t: t.decode(INDICES.flatten(1), INDICES),
        r"\[2, 4\], expected \[n, rows, columns\]",
    ),
    "unequal batches": (lambda t: t.decode(INDICES, INDICES[:1]), r"with the same n"),
    "channels": (
        lambda t: t.decode_codes(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)),
        r"have 4 and 4 channels, expected 10 together",
    ),
    "feature codes": (
        lambda t: t.decode_features(torch.zeros(6, 2, 2)),
        r"expected \[n, dim, rows, columns\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_refused(name: str) -> None:
    call, words = REFUSED[name]
    with pytest.raises(InvalidInput, match=words):
        call(small_tokenizer())


def test_a_branch_that_is_not_there_is_named() -> None:
    pixel, semantic = small_tokenizer(semantic=None), small_tokenizer(pixel=None)
    images: Tensor = pictures(1, 32, 32)
    with pytest.raises(InvalidInput, match="the tokenizer has no semantic branch"):
        pixel.encode(images)
    with pytest.raises(InvalidInput, match="the tokenizer has no pixel branch"):
        semantic.encode(images)
    with pytest.raises(InvalidInput, match="the tokenizer has no pixel branch"):
        semantic.grids(32, 32)
    assert not any(name.startswith("semantic") for name in pixel.state_dict())
    assert not any(name.startswith("pixel") for name in semantic.state_dict())
