"""How ILLUME+ chooses tokens: the grammar of pictures, settings, samples at different places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.nn.language_model import LanguageModel, LanguageModelConfig
from zoo.runtime.noise import Noise
from zoo.runtime.tokens.engine import TokenEngine
from zoo.runtime.tokens.processors import Warp
from zoo.runtime.tokens.rules import StepLogits
from zoo.runtime.tokens.sampling import AtRandom
from zoo.runtime.tokens.stopping import StopAt, StopBehind
from zoo_illume.processor import (
    InterleavedRules,
    InterleavedTokens,
    UnconditionalPrompt,
    Warps,
    appended,
)

NEVER = float("-inf")
SOI, EOI, EOL, SOL0, EOL0, SOL1, EOL1, END = 10, 11, 12, 13, 14, 15, 16, 2
TOKENS = InterleavedTokens(SOI, EOI, EOL, (SOL0, SOL1), (EOL0, EOL1), END, ((20, 26), (26, 36)))
VOCABULARY, GRIDS = 40, ((2, 3), (3, 4))
CODES = set(range(20, 36))


# What the unconditional branch starts with


@pytest.mark.parametrize(
    ("prompt", "generated", "expected"),
    [
        ([1, 2, 10], [5, 9, 10], []),
        ([1, 7, 8], [7, 8, 10], [10]),
        ([1, 7, 8], [8, 7, 10], [8, 7, 10]),
        ([1, 7, 8], [3, 7, 8, 10], [10]),
        ([1, 7, 8], [10], [10]),
        ([1, 7, 8], [8, 10], [8, 10]),
        ([1, 7, 8], [1, 2, 3, 4, 10], [3, 4, 10]),
        ([], [1, 2, 10], [1, 2, 10]),
    ],
)
def test_what_the_unconditional_branch_starts_with(prompt, generated, expected) -> None:
    assert appended(prompt, generated) == expected


def test_a_prompt_that_ends_as_the_sample_does_is_read_as_it_is(model) -> None:
    prompt = torch.tensor([1, 7, SOI])
    made = rules(
        embed=model.embed,
        scale=2.0,
        prompts=[UnconditionalPrompt(tuple(prompt.tolist()), model.embed(prompt))],
    )
    for token in (5, 6, SOI):
        assert not made.guided(0)
        made.read(0, token)
    assert made.guided(0)
    assert torch.equal(made.unconditional(0), model.embed(prompt))
    assert len(prompt) <= made.longest_unconditional


# The grammar of pictures


def rules(samples: int = 1, **more: object) -> InterleavedRules:
    more.setdefault("embed", lambda ids: ids[:, None].float())
    return InterleavedRules(TOKENS, VOCABULARY, [GRIDS] * samples, **more)


def scores_of(made: InterleavedRules, logits: Tensor) -> Tensor:
    """Scores of all samples, conditional logits in the place of the unconditional ones."""
    rows = range(len(logits))
    guided = tuple(row for row in rows if made.guided(row))
    return made.process(StepLogits(tuple(rows), logits, guided, logits[list(guided)] if guided else None))


def picture() -> list[int]:
    semantic = [code for _ in range(2) for code in (20, 21, 25, EOL)]
    pixels = [code for _ in range(3) for code in (26, 35, 30, 31, EOL)]
    return [SOI, SOL0, *semantic, EOL0, SOL1, *pixels, EOL1, EOI]


def test_what_may_follow_at_every_place() -> None:
    made, tokens = rules(), picture()
    text = set(range(VOCABULARY)) - CODES - {EOL, SOL0, EOL0, SOL1, EOL1}
    levels = {20: set(range(20, 26)), 21: set(range(20, 26)), 25: set(range(20, 26))}
    for token in [5, *tokens, 6, *tokens, END]:
        possible = (scores_of(made, torch.randn(1, VOCABULARY))[0] > NEVER).nonzero().flatten().tolist()
        if token in CODES:
            assert set(possible) == levels.get(token, set(range(26, 36)))
        elif token in (5, 6, SOI, END):
            assert set(possible) == text
        else:
            assert possible == [token]
        made.read(0, token)


def test_places_in_a_picture_are_told() -> None:
    made = rules()
    assert made.place(0) is None
    places = []
    for token in picture():
        made.read(0, token)
        places.append(made.place(0))
    assert places[0] is None and places[1] == (0, 0, 0)
    assert places[5:7] == [(0, 1, 0), (0, 1, 1)]
    assert places[10] is None and places[11] == (1, 0, 0)
    assert places[-3] == (1, 3, 0) and places[-2:] == [None, None]
    assert TOKENS.in_picture(GRIDS) == len(picture())


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(4)
    made = LanguageModel(LanguageModelConfig(VOCABULARY, 32, 48, 2, 4, 2)).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def draw(
    model: LanguageModel, seeds: list[int], prompts: list[Tensor], said: list[list[int]], **more: object
):
    """Samples that say something, draw a picture and go on; each with an unconditional prompt of its own."""

    class AfterwardsAtRandom:
        def __init__(self) -> None:
            self.random = AtRandom(Noise(seeds), len(seeds))

        def __call__(self, scores: Tensor, rows: tuple[int, ...], step: int) -> Tensor:
            chosen = self.random(scores, rows, step)
            for index, row in enumerate(rows):
                if step < len(said[row]):
                    chosen[index] = said[row][step]
            return chosen

    others = [prompt[1:] for prompt in prompts]
    made = InterleavedRules(
        TOKENS,
        VOCABULARY,
        [((1 + row, 3), (3, 2 + row)) for row in range(len(seeds))],
        embed=model.embed,
        scale=1.7,
        prompts=[UnconditionalPrompt(tuple(other.tolist()), model.embed(other)) for other in others],
        **more,
    )
    engine = TokenEngine(model, rows=2 * len(seeds))
    return engine.generate(prompts, made, AfterwardsAtRandom(), 60, [StopAt(END), StopBehind(EOI)])


def test_samples_at_different_places_are_each_as_alone(model) -> None:
    """Different prompts, grids and starts: here the authors' processor would follow the first sample."""
    prompts = [torch.tensor([1, 5, 6, 7]), torch.tensor([1, 8]), torch.tensor([3, 4, 5, 6, 7, 8])]
    said = [[5, 6, SOI], [SOI], [7, 8, 9, 5, SOI]]
    shaped = Warps(Warp(top_p=0.9), (Warp(0.8, top_k=4), Warp(1.3, top_p=0.8)))
    together = draw(model, [1, 2, 3], prompts, said, warps=shaped)
    for row, tokens in enumerate(together):
        start = len(said[row])
        assert tokens[:start] == said[row]
        lines = [tokens[start:][1 + 4 * line : 5 + 4 * line] for line in range(1 + row)]
        assert all(set(line[:3]) <= set(range(20, 26)) and line[3] == EOL for line in lines)
        assert tokens[-1] == EOI
        assert len(tokens) - start + 1 == TOKENS.in_picture(((1 + row, 3), (3, 2 + row)))
    # Alone, a sample has the grid and seed of its number: those before it end at once.
    for row in (1, 2):
        alone = draw(
            model,
            [1, 2, 3][: row + 1],
            prompts[: row + 1],
            [[END]] * row + [said[row]],
            warps=shaped,
        )
        assert alone[row] == together[row]


# Scores


def test_scores_in_a_picture_are_normalised_without_guidance_too() -> None:
    made, logits = rules(), torch.randn(1, VOCABULARY)
    assert torch.equal(scores_of(made, logits)[0, :10], logits[0, :10])
    for token in (SOI, SOL0):
        made.read(0, token)
    assert not made.guided(0) and made.longest_unconditional == 0
    assert torch.allclose(scores_of(made, logits)[0, 20:26], logits.log_softmax(-1)[0, 20:26])


def test_a_level_has_its_own_settings_and_text_those_between() -> None:
    shaped = Warps(Warp(2.0), (Warp(4.0), Warp(8.0)))
    made, logits = rules(warps=shaped), torch.randn(1, VOCABULARY)
    known = logits.log_softmax(-1)[0]
    found = []
    for token in picture():
        made.read(0, token)
        scores = scores_of(made, logits)[0]
        allowed = scores > NEVER
        ratio = (known if token != EOI else logits[0])[allowed] / scores[allowed]
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-3)
        found.append(round(float(ratio[0])))
    # Ends of lines and of the level are still the level's.
    assert found == [2, *[4] * 9, 2, *[8] * 16, 2, 2]


def test_the_text_ends_where_nothing_is_left() -> None:
    made = rules(samples=2, warps=Warps(Warp(0.7, 3, 0.5), (Warp(0.7, 3, 0.5), Warp(0.7, 9, 0.5))))
    logits = torch.randn(2, VOCABULARY)
    for token in (SOI, SOL0):
        made.read(1, token)
    logits[1, 20:26] = NEVER
    scores = scores_of(made, logits)
    assert (scores[1] > NEVER).nonzero().flatten().tolist() == [END]
    assert float(scores[1, END]) == 0.0
    assert (scores[0] > NEVER).any()
    logits[0] = NEVER
    scores = scores_of(made, logits)
    assert float(scores[0, END]) == 0.0 and int((scores[0] > NEVER).sum()) == 1


def test_doubled_applies_the_settings_of_text_again() -> None:
    shaped = Warps(Warp(0.5, top_k=3), (Warp(0.8, top_k=5), Warp()))
    once, twice = rules(warps=shaped), rules(warps=shaped, doubled=True)
    logits = torch.randn(1, VOCABULARY)
    for token in (None, SOI, SOL0):
        if token is not None:
            once.read(0, token)
            twice.read(0, token)
        expected = Warp(0.5, top_k=3)(scores_of(once, logits))
        assert torch.equal(scores_of(twice, logits), expected)
    assert int((scores_of(once, logits) > NEVER).sum()) == 5
    assert int((scores_of(twice, logits) > NEVER).sum()) == 3


def test_guidance_needs_a_prompt_for_each_sample() -> None:
    with pytest.raises(InvalidInput, match="an unconditional prompt for each of 2 samples; there are 1"):
        rules(samples=2, scale=2.0, prompts=[UnconditionalPrompt((1,), torch.zeros(1, 1))])
