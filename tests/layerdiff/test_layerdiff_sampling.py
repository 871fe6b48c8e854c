"""From prompts to layered pictures with a small network: noise, guidance, layers drawn anew, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_layerdiff import small_cards
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.layers import LayeredImage
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel, load
from zoo.session import Session

PROMPT = "a red circle left of a blue square on a white background"
PARTS = ("a white background", "a red circle", "a blue square")
PAIR = ("", "a green ring")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.setenv("ZOO_CARDS", str(small_cards(tmp_path)))
    return load("small:layers", device="cpu", session=Session())


def draw(
    loaded: LoadedModel,
    parts: Sequence[Any] = PARTS,
    prompts: Sequence[str] = (PROMPT,),
    images: dict[str, Any] | None = None,
    seed: int = 5,
    num: int = 1,
    **options: Any,
) -> list[LayeredImage]:
    request = Request(
        prompts=prompts, part_prompts=parts, images=images or {}, seed=seed, num=num, options=options
    )
    return list(loaded.sample(request))  # type: ignore[arg-type]


def rgba(image: LayeredImage) -> Tensor:
    return torch.stack([layer.pixels for layer in image.layers])


def test_a_sample_is_a_layer_for_each_prompt(loaded: LoadedModel) -> None:
    (image,) = draw(loaded)
    assert image.size == (32, 32)
    assert tuple(layer.name for layer in image.layers) == PARTS
    assert (image.layers[0].pixels[3] == 1.0).all()
    assert 0.05 < float(rgba(image)[1:, 3].mean()) < 0.95
    assert image.drawn is not None and image.drawn.shape == (3, 3, 32, 32)
    assert image.provenance is not None
    assert image.provenance.part_prompts == PARTS
    assert json.loads(json.dumps(image.provenance.to_dict()))["part_prompts"] == list(PARTS)


def test_a_picture_does_not_depend_on_the_others_of_its_batch(loaded: LoadedModel) -> None:
    prompts, parts = (PROMPT, "a green ring", PROMPT), (PARTS, PAIR, PARTS)
    together = draw(loaded, parts, prompts, mask_guidance=0.5, solver="ddpm")
    for index in range(3):
        (alone,) = draw(
            loaded,
            (parts[index],),
            prompts[index : index + 1],
            seed=5 + index,
            mask_guidance=0.5,
            solver="ddpm",
        )
        torch.testing.assert_close(rgba(together[index]), rgba(alone), atol=1e-4, rtol=0)


def test_layers_of_a_prompt_are_found_in_it(loaded: LoadedModel) -> None:
    (told,), (found,) = draw(loaded, PARTS), draw(loaded, ())
    assert tuple(layer.name for layer in found.layers) == PARTS
    assert torch.equal(rgba(told), rgba(found))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_self_mask_guidance_of_weight_zero_is_classifier_free_guidance(
    loaded: LoadedModel, guidance: float
) -> None:
    (plain,) = draw(loaded, guidance=guidance)
    (never,) = draw(loaded, guidance=guidance, mask_guidance=0.8, mask_guidance_from=1.0)
    (faint,) = draw(loaded, guidance=guidance, mask_guidance=1e-9, mask_guidance_from=0.0)
    (strong,) = draw(loaded, guidance=guidance, mask_guidance=0.8, mask_guidance_from=0.0)
    if guidance != 1.0:
        # With a guidance of 1 the plain run has no unconditional rows, and rounds differently without them.
        assert torch.equal(rgba(plain), rgba(never))
    torch.testing.assert_close(rgba(plain), rgba(faint), atol=1e-4, rtol=0)
    assert float((rgba(plain) - rgba(strong)).abs().max()) > 0.01


def test_prompts_and_exchange_can_be_taken_away(loaded: LoadedModel) -> None:
    other = (PARTS[0], PARTS[1], "a green ring")
    (first,), (second,) = draw(loaded, layer_prompts=False), draw(loaded, other, layer_prompts=False)
    assert torch.equal(rgba(first), rgba(second))
    (first,), (second,) = draw(loaded, inter_layer=False), draw(loaded, other, inter_layer=False)
    assert torch.equal(rgba(first)[:2], rgba(second)[:2])
    assert not torch.equal(rgba(first)[2], rgba(second)[2])
    (first,), (second,) = draw(loaded), draw(loaded, other)
    assert not torch.equal(rgba(first)[:2], rgba(second)[:2])


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "ddpm", "heun"])
def test_one_layer_is_drawn_anew_and_the_others_stay(loaded: LoadedModel, solver: str) -> None:
    (before,) = draw(loaded)
    layers = rgba(before)
    parts = (*PARTS[:2], "a green ring")
    (after,) = draw(loaded, parts, images={"layers": layers}, redraw=2, solver=solver, mask_guidance=0.5)
    assert torch.equal(rgba(after)[:2], layers[:2])
    assert float((rgba(after)[2] - layers[2]).abs().mean()) > 0.01
    assert after.layers[2].name == "a green ring"


def test_a_layer_that_is_restyled_stays_nearer_to_what_it_was(loaded: LoadedModel) -> None:
    layers = rgba(draw(loaded)[0])
    changes = []
    for strength in (0.25, 0.5, 1.0):
        (after,) = draw(
            loaded,
            (*PARTS[:2], "a green ring"),
            images={"layers": layers},
            redraw=2,
            strength=strength,
            seed=77,
            guidance=1.0,
            steps=8,
        )
        changes.append(float((after.layers[2].pixels - layers[2]).abs().mean()))
    assert changes == sorted(changes)
    assert changes[0] < 0.8 * changes[-1]


def test_every_sample_keeps_the_layers_of_a_picture_of_its_own(loaded: LoadedModel) -> None:
    prompts, parts = (PROMPT, "a green ring", PROMPT), (PARTS, PAIR, PARTS)
    layers = [rgba(image) for image in draw(loaded, parts, prompts, seed=40)]
    new = ((*PARTS[:1], "a pink cross", PARTS[2]), ("", "a pink cross"), (*PARTS[:1], "a red ring", PARTS[2]))
    together = draw(loaded, new, prompts, images={"layers": layers}, redraw=1, strength=0.5)
    for row, before in enumerate(layers):
        after = rgba(together[row])
        kept = [i for i in range(len(before)) if i != 1]
        assert torch.equal(after[kept], before[kept])
        (alone,) = draw(
            loaded,
            new[row],
            (prompts[row],),
            images={"layers": before},
            seed=5 + row,
            redraw=1,
            strength=0.5,
        )
        torch.testing.assert_close(after, rgba(alone), atol=1e-4, rtol=0)


def test_previews_show_the_whole_picture_and_change_nothing(loaded: LoadedModel) -> None:
    seen: list[Tensor] = []

    def watch(step: int, total: int, preview: Tensor | None) -> None:
        assert preview is not None
        seen.append(preview)

    request = Request(prompts=(PROMPT,), part_prompts=(PARTS,), seed=5)
    (watched,) = loaded.sample(request, watch)
    assert [tuple(preview.shape) for preview in seen] == [(1, 3, 32, 32)] * 4
    assert float(seen[-1].abs().max()) <= 1.0
    (unwatched,) = draw(loaded)
    assert torch.equal(rgba(watched), rgba(unwatched))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "images", "options", "reason"),
    [
        (("a white background",), {}, {}, "1 layer prompt was given, expected 2 to 4"),
        (("", *["a red circle"] * 4), {}, {}, "5 layer prompts were given, expected 2 to 4"),
        (PARTS, {}, {"redraw": 1}, "layer 1 is to be drawn anew, and the picture"),
        (PARTS, {"layers": torch.zeros(3, 4, 32, 32)}, {}, "none of them is to be drawn anew"),
        (PARTS, {"layers": torch.zeros(3, 4, 32, 32)}, {"redraw": 3}, "there is no layer 3, expected 0 to 2"),
        (
            PARTS,
            {"layers": torch.zeros(2, 4, 32, 32)},
            {"redraw": 1},
            "2 layers were given with 3 layer prompts",
        ),
        (PARTS, {"layers": torch.zeros(3, 4, 16, 16)}, {"redraw": 1}, r"expected \[n, 4, 32, 32\]"),
        (PARTS, {}, {"strength": 0.0}, "strength is 0.0"),
        (PARTS, {}, {"strength": 0.5}, "strength is 0.5 without redraw"),
        (PARTS, {}, {"mask_guidance": -1.0}, "mask_guidance is -1.0"),
        (PARTS, {}, {"mask_guidance_from": 2.0}, "mask_guidance_from is 2.0"),
        (PARTS, {}, {"redraw": -1}, "redraw is -1"),
    ],
)
def test_what_does_not_fit_is_refused(
    loaded: LoadedModel, parts: Any, images: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        draw(loaded, parts, images=images, **options)
