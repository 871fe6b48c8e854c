"""The sampler of the dual tokenizer alone: a picture through its codes and back."""

from __future__ import annotations

import pytest
import torch
from small_illume import pictures, small_session
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel, load
from zoo_illume import reconstructing


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    session = small_session(tmp_path_factory.mktemp("weights"))
    return load("small:tokenizer", device="cpu", session=session, threads=1)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours in [0, 1] that have 8 bits."""
    return pictures(1, height, width, seed)[0].add(1.0).mul(127.5).round().div(255.0)


def reconstructed(loaded: LoadedModel, *given: Tensor, **request: object) -> list[Tensor]:
    return [made.pixels for made in loaded.sample(Request(images={"image": given}, **request))]


def test_it_is_the_tokenizers_own_pass(loaded) -> None:
    given = picture(64, 96)
    (made,) = reconstructed(loaded, given)
    with torch.no_grad():
        expected = loaded.model(given[None] * 2.0 - 1.0).images[0]
    assert torch.allclose(made, expected.clamp(-1.0, 1.0).add(1.0).mul(0.5), rtol=0.0, atol=1e-5)
    assert made.amin() >= 0.0 and made.amax() <= 1.0


def test_sides_are_rounded_down_to_whole_codes(loaded) -> None:
    made = reconstructed(loaded, picture(70, 95), picture(10, 33))
    assert [tuple(one.shape) for one in made] == [(3, 64, 80), (3, 16, 32)]


def test_pictures_of_different_sizes_are_the_same_alone_and_together(loaded) -> None:
    given = [picture(64, 64, 0), picture(32, 48, 1), picture(64, 64, 2)]
    together = reconstructed(loaded, *given)
    for one, other in zip(together, reconstructed(loaded, *given, batch_size=1), strict=True):
        assert torch.allclose(one, other, rtol=0.0, atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-3)


def test_the_seed_does_not_matter(loaded) -> None:
    first, second = reconstructed(loaded, picture(32, 32), num=2)
    assert torch.equal(first, second)


def test_progress_counts_pictures_and_ends_with_what_was_made(loaded, monkeypatch) -> None:
    told: list[tuple[int, int, Tensor | None]] = []
    monkeypatch.setattr(reconstructing, "PIXELS_AT_ONCE", 2 * 32 * 32)
    request = Request(images={"image": [picture(32, 32, seed) for seed in range(3)]})
    made = list(loaded.sample(request, lambda *step: told.append(step)))
    assert [(step, total, preview is None) for step, total, preview in told] == [(2, 3, True), (3, 3, False)]
    assert torch.equal(told[-1][2][1].add(1.0).mul(0.5), made[1].pixels)


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"size": (64, 64)}, "keeps its size"),
        ({"prompts": ["a circle"]}, "reads no prompt"),
        ({"images": {}}, "needs a picture"),
        ({"images": {"image": torch.zeros(2, 4, 8, 8)}}, "stack of layers"),
    ],
)
def test_what_it_cannot_take_is_refused(loaded, request_, problem) -> None:
    with pytest.raises(InvalidInput, match=problem):
        list(loaded.sample(Request(**{"images": {"image": picture(32, 32)}, **request_})))
