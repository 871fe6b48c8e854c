"""Drawing and editing with a small model: the structure of pictures, guidance, batches, sizes, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_illume_sdxl import ScriptedUnet
from small_illume import GRIDS, loaded_model, small_words, token_table
from small_sdxl import EnlargingVae
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import Noise
from zoo.runtime.reports import Work, collecting
from zoo.runtime.sampling import Unwatched
from zoo_illume import decoding
from zoo_illume.decoding import unsigned
from zoo_illume.drawing import Order, write_codes
from zoo_illume.dualvitok import DualViTok
from zoo_illume.formats import PromptFormats
from zoo_illume.options import DrawOptions
from zoo_illume.prompting import Prompts
from zoo_illume.sdxl import SdxlConfig, SdxlDecoder
from zoo_illume.sketches import Sketch, Watch

TABLE = token_table()
TOKENS = TABLE.interleaved()
PROMPTS = ("a red circle", "the blue square on white", "an image of a circle")
SQUARE, WIDE, HIGH = (64, 64), (64, 128), (128, 64)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded_model(tmp_path_factory.mktemp("weights"))


def drawn(loaded: LoadedModel, *prompts: str, **request: Any) -> list[Tensor]:
    options = {name: request.pop(name) for name in list(request) if name not in Request.__dataclass_fields__}
    return [made.pixels for made in loaded.sample(Request(prompts=prompts, options=options, **request))]


def written(
    loaded: LoadedModel, orders: Sequence[Order], seeds: Sequence[int], **options: Any
) -> list[list[int]]:
    """Tokens of pictures."""
    sketches = [Sketch(TOKENS, GRIDS[order.size]) for order in orders]
    watch = Watch(Unwatched(), 1, sketches, lambda maps: torch.zeros(1))
    return write_codes(loaded, orders, DrawOptions(**options), Noise(seeds), watch)


def order(prompt: str | None, size: tuple[int, int] = SQUARE) -> Order:
    prompts = Prompts(PromptFormats(), small_words(), TABLE)
    return Order(size, prompts.draw(prompt, size), prompts.draw(None, size))


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]


def kinds(size: tuple[int, int]) -> list[int | tuple[int, int]]:
    """What stands at each place of a picture: a single token, or (first, end) of a level's codes."""
    expected: list[int | tuple[int, int]] = [TOKENS.start_of_image]
    for level, (rows, columns) in enumerate(GRIDS[size]):
        line = [*[TOKENS.codes[level]] * columns, TOKENS.end_of_line]
        expected += [TOKENS.start_of_level[level], *line * rows, TOKENS.end_of_level[level]]
    return [*expected, TOKENS.end_of_image]


# What is written


@pytest.mark.parametrize("size", [SQUARE, WIDE, HIGH])
@pytest.mark.parametrize("options", [{"guidance": 1.0}, {"guidance": 3.0, "top_k": 5}, {"temperature": 0}])
def test_every_sequence_is_a_whole_picture(loaded, size, options) -> None:
    orders = [order("a red circle", size), order(None, size)]
    for tokens in written(loaded, orders, [3, 4], **options):
        assert len(tokens) == len(kinds(size)) == TOKENS.in_picture(GRIDS[size])
        for token, kind in zip(tokens, kinds(size), strict=True):
            assert token == kind if isinstance(kind, int) else kind[0] <= token < kind[1]


def test_pictures_of_different_sizes_are_written_together(loaded) -> None:
    orders = [order("a red circle", size) for size in (WIDE, SQUARE, HIGH)]
    together = written(loaded, orders, [1, 2, 3], top_k=0)
    assert [len(tokens) for tokens in together] == [52, 32, 58]
    alone = [written(loaded, [one], [seed], top_k=0)[0] for one, seed in zip(orders, [1, 2, 3], strict=True)]
    assert together == alone


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_greedy_decoding_is_that_of_a_plain_loop_without_cache(loaded, guidance) -> None:
    asked = order("the blue square")
    (tokens,) = written(loaded, [asked], [0], temperature=0, guidance=guidance)
    assert tokens == plain_loop(loaded, asked, guidance)


@torch.no_grad()
def plain_loop(loaded: LoadedModel, asked: Order, guidance: float) -> list[int]:
    """All that was written goes through the network anew for each token."""
    model, tokens = loaded.model, []
    for kind in kinds(asked.size):
        scores = []
        for prompt in (asked.prompt, asked.unconditional):
            ids = torch.tensor([[*prompt, *tokens]])
            scores.append(model.language_model(ids)[0, -1].log_softmax(-1))
        conditional, unconditional = scores
        guided = unconditional + guidance * (conditional - unconditional)
        first, end = (kind, kind + 1) if isinstance(kind, int) else kind
        tokens.append(first + int(guided[first:end].argmax()))
    return tokens


def test_a_picture_is_what_the_tokenizer_makes_of_its_codes(loaded) -> None:
    (tokens,) = written(loaded, [order(PROMPTS[0])], [7], top_k=0, guidance=1.5)
    codes = [[t - first for t in tokens if first <= t < end] for first, end in TOKENS.codes]
    maps = [torch.tensor(level).view(1, *grid) for level, grid in zip(codes, GRIDS[SQUARE], strict=True)]
    images = loaded.components["image_tokenizer"].decode(*maps)[0]
    (made,) = drawn(loaded, PROMPTS[0], seed=7)
    # Not to the last digit: torch may take another number of threads.
    assert torch.allclose(made, unsigned(images), rtol=0.0, atol=1e-5)


def test_pictures_are_decoded_together_as_far_as_memory_is_counted(loaded, monkeypatch) -> None:
    tokenizer, seen = loaded.components["image_tokenizer"], []

    def counted(semantic: Tensor, pixel: Tensor) -> Tensor:
        seen.append(tuple(pixel.shape))
        return DualViTok.decode(tokenizer, semantic, pixel)

    monkeypatch.setattr(tokenizer, "decode", counted)
    together = drawn(loaded, PROMPTS[0], num=5)
    assert seen == [(5, 4, 4)]
    monkeypatch.setattr(decoding, "PIXELS_AT_ONCE", 2 * 64 * 64 + 1)
    apart = drawn(loaded, PROMPTS[0], num=5)
    assert seen[1:] == [(2, 4, 4), (2, 4, 4), (1, 4, 4)]
    assert all(torch.allclose(a, b, rtol=0.0, atol=1e-5) for a, b in zip(together, apart, strict=True))
    given = [picture(64, 64), picture(60, 120), picture(64, 64)]
    sizes = [made.shape for made in edited(loaded, given)]
    assert sizes == [one.shape for one in given] and seen[4:] == [(2, 4, 4), (1, 4, 8)]


def test_a_component_is_asked_for_once_a_batch(loaded) -> None:
    """One that does not stay is made anew whenever it is asked for and nobody holds it."""
    asked: list[str] = []

    class Asked(dict[str, Any]):
        def __getitem__(self, role: str) -> Any:
            asked.append(role)
            return super().__getitem__(role)

    made = Asked({role: loaded.components[role] for role in loaded.components})
    list(replace(loaded, components=made).sample(Request(prompts=PROMPTS, batch_size=3), Steps(wants=True)))
    assert asked.count("image_tokenizer") == 1


def test_pictures_are_rounded_to_8_bits_as_the_authors_do() -> None:
    values = torch.linspace(-1.2, 1.2, 3 * 50 * 50).view(3, 50, 50)
    expected = (127.5 * values.double() + 128.0).clamp(0.0, 255.0).floor().byte()
    assert torch.equal(Image(unsigned(values)).to_bytes8().movedim(-1, 0), expected)


# Chance


def test_a_sample_is_the_same_alone_and_in_a_batch(loaded) -> None:
    together = drawn(loaded, *PROMPTS, num=2, seed=5)
    alone = drawn(loaded, *PROMPTS, num=2, seed=5, batch_size=1)
    threes = drawn(loaded, *PROMPTS, num=2, seed=5, batch_size=3)
    for pixels, one, three in zip(together, alone, threes, strict=True):
        # Sums of several pictures may run in another order.
        assert torch.allclose(pixels, one, rtol=0.0, atol=1e-5)
        assert torch.allclose(pixels, three, rtol=0.0, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_likeliest_picture_does_not_depend_on_the_seed(loaded) -> None:
    first, second = drawn(loaded, PROMPTS[0], num=2, temperature=0)
    assert torch.equal(first, second)
    (other,) = drawn(loaded, PROMPTS[1], temperature=0)
    assert not torch.equal(first, other)


def test_one_level_can_be_the_likeliest_and_the_other_not(loaded) -> None:
    options = {"semantic_temperature": 0, "pixel_temperature": 1.0, "top_k": 0}
    first, second = written(loaded, [order(PROMPTS[0])] * 2, [0, 1], **options)
    semantic = len([kind for kind in kinds(SQUARE) if kind == TOKENS.codes[0]]) + 4
    assert first[:semantic] == second[:semantic]
    assert first[semantic:] != second[semantic:]
    (greedy,) = written(loaded, [order(PROMPTS[0])], [0], temperature=0)
    assert first[:semantic] == greedy[:semantic]


def test_only_the_likeliest_few_is_nearly_greedy(loaded) -> None:
    assert written(loaded, [order(PROMPTS[0])], [0], top_k=1, pixel_top_k=1) == written(
        loaded, [order(PROMPTS[0])], [0], temperature=0
    )


def test_doubled_is_the_warps_applied_twice(loaded) -> None:
    orders, seeds = [order(prompt) for prompt in PROMPTS], [0, 1, 2]
    # The text's top-k caps that of the pixel codes, which is three times as large by itself.
    doubled = written(loaded, orders, seeds, temperature=0.7, top_k=6, doubled=True)
    by_hand = written(loaded, orders, seeds, temperature=0.7**2, top_k=6, pixel_top_k=6)
    once = written(loaded, orders, seeds, temperature=0.7, top_k=6)
    assert doubled == by_hand
    assert doubled != once


# Words


def test_prompts_of_the_shapes_world_are_read_in_its_words(loaded) -> None:
    shapes = replace(loaded, variant=replace(loaded.variant, captions="shapes"))
    (plain,) = drawn(loaded, "a red circle")
    (loosely,) = drawn(shapes, "There is ONE red disc!")
    assert torch.equal(loosely, plain)
    instruction = {"images": {"image": picture(64, 64)}, "task": "edit"}
    assert torch.equal(
        *(
            drawn(model, text, **instruction)[0]
            for model, text in (
                (loaded, "make the red circle blue"),
                (shapes, "please paint the red disk blue"),
            )
        )
    )


# Guidance


def test_guidance_of_one_runs_no_unconditional_branch(loaded) -> None:
    def flops(**request: Any) -> int:
        with collecting() as findings:
            drawn(loaded, *request.pop("prompts", PROMPTS), **request)
        (work,) = (found for found in findings if isinstance(found, Work))
        return work.flops

    one, two = flops(guidance=1.0), flops(guidance=2.0)
    assert 1.9 * one < two < 2.2 * one
    # Without a prompt both branches would read the same.
    assert flops(prompts=(), guidance=2.0, num=3) == pytest.approx(one, rel=0.1)


def test_guidance_leads_away_from_the_negative_prompt(loaded) -> None:
    (plain,), (guided,) = drawn(loaded, PROMPTS[0]), drawn(loaded, PROMPTS[0], negatives=[PROMPTS[1]])
    (same,) = drawn(loaded, PROMPTS[0], negatives=[PROMPTS[0]])
    (unguided,) = drawn(loaded, PROMPTS[0], guidance=1.0)
    assert not torch.equal(plain, guided)
    assert torch.equal(same, unguided)


def test_a_guidance_of_zero_follows_the_negative_prompt_alone(loaded) -> None:
    (away,) = drawn(loaded, PROMPTS[0], negatives=[PROMPTS[1]], guidance=0.0)
    (told,) = drawn(loaded, PROMPTS[1], guidance=1.0)
    assert torch.equal(away, told)


# Editing


def edited(loaded: LoadedModel, pictures: Sequence[Tensor], **request: Any) -> list[Tensor]:
    prompts = ["make the circle blue"] * len(pictures)
    return drawn(loaded, *prompts, images={"image": pictures}, task="edit", **request)


def test_an_edited_picture_has_the_size_that_it_had(loaded) -> None:
    given = [picture(64, 64), picture(50, 90), picture(33, 20), picture(200, 301)]
    assert [made.shape for made in edited(loaded, given)] == [one.shape for one in given]


def test_edits_of_different_sizes_are_the_same_alone_and_in_a_batch(loaded) -> None:
    given = [picture(64, 64), picture(60, 120), picture(130, 60)]
    together = edited(loaded, given, seed=3)
    alone = edited(loaded, given, seed=3, batch_size=1)
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_an_edit_depends_on_picture_and_instruction(loaded) -> None:
    def made(prompt: str, given: Tensor) -> Tensor:
        options = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}
        return torch.stack(drawn(loaded, prompt, num=3, images={"image": given}, task="edit", **options))

    one = made("make the circle blue", picture(64, 64, 0))
    assert not torch.equal(one, made("make the circle blue", picture(64, 64, 1)))
    assert not torch.equal(one, made("make the square red", picture(64, 64, 0)))


# Watching


class Steps:
    """Keeps what it is told."""

    def __init__(self, wants: bool) -> None:
        self.wants, self.steps, self.previews = wants, [], []

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None:
        self.steps.append((step, total))
        if preview is not None:
            self.previews.append((step, preview))

    def wants_preview(self, step: int, total: int) -> bool:
        return self.wants


def test_progress_counts_tokens_and_shows_pictures_line_by_line(loaded) -> None:
    watched, unwatched = Steps(wants=True), Steps(wants=False)
    first = list(loaded.sample(Request(prompts=PROMPTS[:2]), watched))
    second = list(loaded.sample(Request(prompts=PROMPTS[:2]), unwatched))
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))
    assert watched.steps == unwatched.steps == [(step, 32) for step in range(1, 33)]
    assert unwatched.previews == []
    # Behind SOI, SOL0, two lines of 3, EOL0, SOL1 come lines of 5.
    assert [step for step, _ in watched.previews] == [15, 20, 25, 30, 32]
    shown = watched.previews[-1][1]
    assert shown.shape == (2, 3, 64, 64) and not shown.requires_grad and not shown.is_inference()
    assert torch.equal(shown[1].add(1.0).mul(0.5), first[1].pixels)
    before = watched.previews[0][1]
    assert before.amin() >= -1.0 and before.amax() <= 1.0 and not torch.equal(before, shown)


def test_pictures_of_different_sizes_are_not_shown_together(loaded) -> None:
    watched = Steps(wants=True)
    given = [picture(64, 64), picture(60, 120)]
    list(loaded.sample(Request(prompts=["make a circle"] * 2, images={"image": given}, task="edit"), watched))
    assert watched.previews == []
    assert watched.steps == [(step, 52) for step in range(1, 53)]


def test_what_is_not_written_yet_is_filled_with_the_last_code() -> None:
    sketch = Sketch(TOKENS, GRIDS[SQUARE])
    first, _ = TOKENS.codes[1]
    for token in (TOKENS.start_of_level[1], first + 4, first + 9, TOKENS.end_of_line):
        sketch.read(token)
    semantic, pixel = sketch.maps()
    assert semantic.tolist() == [[[0, 0], [0, 0]]]
    assert pixel.flatten().tolist() == [4] + [9] * 15


# The decoder by diffusion


@pytest.fixture(scope="module")
def diffusing(loaded: LoadedModel) -> LoadedModel:
    """The model with a decoder by diffusion, whose modules are stand-ins."""
    channels = 6 + 4  # of the codes of both branches
    generator = torch.Generator().manual_seed(0)
    weight = 0.1 * torch.randn(4, 4 + channels, generator=generator)
    config = SdxlConfig(
        unet={"in_channels": 4 + channels},
        vae={"scaling_factor": 0.5},
        sizes=((128, 128), (128, 256), (256, 128)),
    )
    decoder = SdxlDecoder(config, ScriptedUnet(weight, torch.zeros(4)), EnlargingVae()).requires_grad_(False)
    made = {name: loaded.components[name] for name in loaded.components}
    return replace(loaded, components={**made, "decoder": decoder})


def test_a_decoder_by_diffusion_draws_twice_the_size(diffusing) -> None:
    options = {"decoder": "diffusion", "decoder_steps": 2}
    watched = Steps(wants=True)
    request = Request(prompts=PROMPTS[:2], seed=3, options=options)
    pictures = [made.pixels for made in diffusing.sample(request, watched)]
    assert [picture.shape for picture in pictures] == [(3, 128, 128)] * 2
    # Behind the tokens: both pictures are drawn together, so that a step of one is two of the run.
    assert watched.steps == [(step, 32 + 2 * 2) for step in [*range(1, 32), 34, 36]]
    assert [preview.shape[-1] for _, preview in watched.previews] == [64, 64, 64, 64, 128]
    alone = drawn(diffusing, *PROMPTS[:2], seed=3, batch_size=1, **options)
    for one, other in zip(pictures, alone, strict=True):
        assert torch.allclose(one, other, rtol=0.0, atol=1e-5)
    more = drawn(diffusing, *PROMPTS[:2], seed=3, **{**options, "decoder_guidance": 4.0})
    assert not torch.allclose(more[0], pictures[0], atol=1e-3)


def test_edits_of_different_sizes_are_decoded_by_diffusion(diffusing) -> None:
    given = [picture(64, 64), picture(60, 120), picture(50, 50)]
    options = {"decoder": "diffusion", "decoder_steps": 2, "seed": 3}
    together = edited(diffusing, given, **options)
    assert [made.shape for made in together] == [one.shape for one in given]
    for one, other in zip(together, edited(diffusing, given, batch_size=1, **options), strict=True):
        assert (one - other).abs().max() < 1.5 / 255.0


# Errors


def test_sizes_that_the_model_does_not_draw_are_refused(loaded) -> None:
    with pytest.raises(InvalidInput, match="no pictures of 100x64"):
        drawn(loaded, PROMPTS[0], size=(64, 100))
    with pytest.raises(InvalidInput, match="keeps its size"):
        drawn(loaded, PROMPTS[0], size=SQUARE, images={"image": picture(64, 64)}, task="edit")


def test_what_a_variant_lacks_is_named(loaded) -> None:
    with pytest.raises(InvalidInput, match="small:model has no decoder by diffusion"):
        drawn(loaded, PROMPTS[0], decoder="diffusion")
    for role in ("image_tokenizer", "text_tokenizer"):
        kept = {name: loaded.components[name] for name in loaded.components if name != role}
        with pytest.raises(InvalidInput, match=f"small:model has no {role}"):
            drawn(replace(loaded, components=kept), PROMPTS[0])


def test_a_model_without_sizes_draws_nothing(tmp_path: Path) -> None:
    reads_only = loaded_model(tmp_path, sizes=[])
    for request in ({}, {"images": {"image": picture(64, 64)}, "task": "edit"}):
        with pytest.raises(InvalidInput, match="draws no pictures"):
            drawn(reads_only, PROMPTS[0], **request)


def test_layers_are_no_picture_to_edit(loaded) -> None:
    with pytest.raises(InvalidInput, match="stack of layers"):
        drawn(loaded, PROMPTS[0], images={"image": torch.zeros(2, 4, 8, 8)}, task="edit")


def test_unknown_words_are_named(loaded) -> None:
    with pytest.raises(InvalidInput, match="does not know the word 'zebra'"):
        drawn(loaded, "a zebra")
