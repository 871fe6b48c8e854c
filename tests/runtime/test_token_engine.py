"""The token engine: prompts, guidance whose branch starts late, choices, stops, streams."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from zoo.errors import InvalidInput, ZooError
from zoo.nn.language_model import LanguageModel, LanguageModelConfig
from zoo.runtime import reports
from zoo.runtime.capabilities import CAPABILITIES, TokenLM
from zoo.runtime.decoding import plan
from zoo.runtime.noise import Noise, RecordedNoise
from zoo.runtime.tokens.engine import TokenEngine
from zoo.runtime.tokens.processors import Allowed, Warp, guided, keep_top_k, keep_top_p
from zoo.runtime.tokens.rules import PlainRules, StepLogits
from zoo.runtime.tokens.sampling import STEPS_PER_DRAW, AtRandom, Told, likeliest
from zoo.runtime.tokens.stopping import StopAfter, StopAt, StopBehind
from zoo.runtime.tokens.streaming import TextStream
from zoo.runtime.tokens.weights import decoding_bytes, plan_weights

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NEVER, VOCABULARY = float("-inf"), 50


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(2)
    made = LanguageModel(LanguageModelConfig(VOCABULARY, 32, 48, 2, 4, 2)).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


@pytest.fixture(scope="module")
def engine(model) -> TokenEngine:
    return TokenEngine(model, rows=4)


def ids(*lengths: int, seed: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (length,), generator=generator) for length in lengths]


def greedy(model: LanguageModel, prompt: Tensor, count: int) -> list[int]:
    """The likeliest tokens by whole sequences, one after another."""
    sequence = prompt
    for _ in range(count):
        sequence = torch.cat([sequence, model(sequence[None])[0, -1].argmax(-1, keepdim=True)])
    return sequence[len(prompt) :].tolist()


# Generating


def test_the_language_model_offers_the_capability(model) -> None:
    assert CAPABILITIES["token-lm"] is TokenLM
    assert isinstance(model, TokenLM)
    assert model.language_model is model


def test_greedy_tokens_are_those_of_whole_sequences(model, engine) -> None:
    prompts = ids(7, 2, 12)
    written = engine.generate(prompts, PlainRules(), likeliest, 40)
    assert written == [greedy(model, prompt, 40) for prompt in prompts]
    assert len({token for row in written for token in row}) > 10


def test_prompts_may_be_embeddings(model, engine) -> None:
    prompts = ids(7, 2)
    embedded = [model.embed(prompt) for prompt in prompts]
    assert engine.generate(embedded, PlainRules(), likeliest, 9) == engine.generate(
        prompts, PlainRules(), likeliest, 9
    )


def test_prompts_in_another_format_are_taken(model) -> None:
    halved = copy.deepcopy(model).to(torch.bfloat16)
    (prompt,) = ids(7)
    (written,) = TokenEngine(halved, 1).generate(
        [model.embed(prompt).bfloat16().float()], PlainRules(), likeliest, 5
    )
    assert [written] == TokenEngine(halved, 1).generate([prompt], PlainRules(), likeliest, 5)


def guided_logits(
    model: LanguageModel, prompt: Tensor, other: Tensor, tokens: list[int], scale: float
) -> Tensor:
    written = torch.tensor(tokens, dtype=torch.int64)
    lc, lu = (model(torch.cat([p, written])[None])[0, -1].log_softmax(-1) for p in (prompt, other))
    return lu + scale * (lc - lu)


def test_guidance_runs_both_branches(model, engine) -> None:
    prompts, others = ids(7, 2, 5), ids(3, 6, 1, seed=4)
    written = engine.generate(prompts, PlainRules(scale=2.5, prompts=others), likeliest, 12)
    for prompt, other, tokens in zip(prompts, others, written, strict=True):
        for place, token in enumerate(tokens):
            assert int(guided_logits(model, prompt, other, tokens[:place], 2.5).argmax()) == token
    assert written != engine.generate(prompts, PlainRules(), likeliest, 12)
    assert engine.generate(prompts, PlainRules(scale=1.0, prompts=others), likeliest, 12) == [
        greedy(model, prompt, 12) for prompt in prompts
    ]


class Episodes(PlainRules):
    """Guidance for some steps of each sample, from a prompt and the newest token; keeps what it saw."""

    def __init__(self, prompts: list[Tensor], spans: list[range]) -> None:
        super().__init__()
        self.others, self.spans = prompts, spans
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.seen: list[StepLogits] = []

    @property
    def longest_unconditional(self) -> int:
        return max(map(len, self.others)) + 1

    def guided(self, row: int) -> bool:
        return len(self.tokens[row]) in self.spans[row]

    def unconditional(self, row: int) -> Tensor:
        return torch.cat([self.others[row], torch.tensor(self.tokens[row][-1:], dtype=torch.int64)])

    def process(self, logits: StepLogits) -> Tensor:
        self.seen.append(logits)
        return logits.conditional

    def read(self, row: int, token: int) -> None:
        self.tokens[row].append(token)


def test_a_branch_starts_late_from_its_own_prompt_and_ends(model, engine) -> None:
    prompts, others = ids(7, 2, 4), ids(3, 5, 2, seed=4)
    rules = Episodes(others, [range(2, 6), range(0), range(4, 9)])
    written = engine.generate(prompts, rules, likeliest, 10)
    assert written == [greedy(model, prompt, 10) for prompt in prompts]
    for step, seen in enumerate(rules.seen):
        expected = [row for row in range(3) if step in rules.spans[row]]
        assert [seen.rows[index] for index in seen.guided] == expected
        assert (seen.unconditional is None) == (not expected)
        for number, row in enumerate(expected):
            start = rules.spans[row].start
            read = torch.cat([others[row], torch.tensor(written[row][start - 1 : step])])
            assert torch.allclose(seen.unconditional[number], model(read[None])[0, -1], atol=3e-5)


def test_a_branch_that_starts_again_remembers_nothing(model, engine) -> None:
    rules = Episodes(ids(3, seed=4), [range(0)])
    rules.spans = [[1, 2, 5, 6]]
    (written,) = engine.generate(ids(6), rules, likeliest, 8)
    read = torch.cat([rules.others[0], torch.tensor(written[4:6])])
    assert torch.allclose(rules.seen[6].unconditional[0], model(read[None])[0, -1], atol=3e-5)


# Ending


def test_samples_that_end_leave_the_batch(model, engine) -> None:
    prompts = ids(7, 2, 12, 4)
    alone = [greedy(model, prompt, 20) for prompt in prompts]
    counts = [3, 20, 1, 8]
    with reports.collecting() as findings:
        written = engine.generate(prompts, PlainRules(), likeliest, 20, [StopAfter(counts)])
    assert written == [tokens[:count] for tokens, count in zip(alone, counts, strict=True)]
    (work,) = findings
    weights = sum(p.numel() for p in model.parameters()) - model.model.embed_tokens.weight.numel()
    # The last token of a sample is never read, and no row is read in vain.
    reads = sum(count - 1 for count in counts)
    places = sum(
        sum(range(len(prompt) + 1, len(prompt) + count))
        for prompt, count in zip(prompts, counts, strict=True)
    )
    assert work.flops == 2 * reads * weights + 4 * places * 2 * 4 * 8
    assert work.working_set == 4 * weights


def test_both_branches_of_a_sample_leave(model, engine) -> None:
    prompts, others = ids(7, 2, 5), ids(3, 6, 1, seed=4)
    rules = PlainRules(scale=2.0, prompts=others)
    whole = engine.generate(prompts, rules, likeliest, 10)
    cut = engine.generate(prompts, rules, likeliest, 10, [StopAfter([10, 2, 6])])
    assert cut == [whole[0], whole[1][:2], whole[2][:6]]


def test_stop_rules() -> None:
    assert StopAt(3, 5)(0, [1, 5]) and not StopAt(3, 5)(0, [5, 1])
    assert StopAfter([2, 3])(0, [1, 1]) and not StopAfter([2, 3])(1, [1, 1])
    assert StopBehind(4, 5)(0, [1, 4, 5]) and not StopBehind(4, 5)(0, [4, 5, 1])
    assert not StopBehind(4, 5)(0, [5])


def test_an_id_ends_a_sample(model, engine) -> None:
    (prompt,) = ids(7)
    expected = greedy(model, prompt, 30)
    end = expected.index(expected[11])
    assert engine.generate([prompt], PlainRules(), likeliest, 30, [StopAt(expected[11])]) == [
        expected[: end + 1]
    ]


def test_tokens_are_told_as_they_come(engine) -> None:
    told: list[tuple[int, int, int]] = []

    def on_token(row: int, index: int, token: int) -> None:
        told.append((row, index, token))

    stop = [StopAfter([2, 4])]
    written = engine.generate(ids(7, 2), PlainRules(), likeliest, 5, stop, on_token)
    assert written == engine.generate(ids(7, 2), PlainRules(), likeliest, 5, stop)
    assert told == sorted(told, key=lambda entry: entry[1])
    for row in range(2):
        assert [token for r, _, token in told if r == row] == written[row]


@pytest.mark.parametrize(("prompts", "count"), [([0], 4), ([3, 0], 4), ([3], 0)])
def test_nothing_to_read_or_to_write_is_refused(engine, prompts, count) -> None:
    with pytest.raises(InvalidInput, match="expected at least 1 of each"):
        engine.generate(ids(*prompts), PlainRules(), likeliest, count)


# Choosing


def test_a_sample_does_not_depend_on_its_batch(engine) -> None:
    prompts, seeds, count = ids(7, 2, 12), [11, 12, 13], STEPS_PER_DRAW + 6
    rules = PlainRules([Warp(temperature=0.9, top_k=30, top_p=0.95)])
    together = engine.generate(prompts, rules, AtRandom(Noise(seeds), 3), count, [StopAfter([9, 70, 30])])
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        (alone,) = engine.generate([prompt], rules, AtRandom(Noise([seed]), 1), count)
        assert alone[: len(together[row])] == together[row]
    assert len({tuple(row[:9]) for row in together}) == 3


def test_tokens_are_as_frequent_as_likely() -> None:
    scores = torch.tensor([0.5, 0.0, 0.2, 0.3]).log()
    count = 4000
    uniform = (torch.arange(count) + 0.5) / count
    noise = RecordedNoise({"choice.0": uniform[:, None].expand(count, STEPS_PER_DRAW)})
    chosen = AtRandom(noise, count)(scores.expand(count, 4), range(count), 0)
    assert chosen.bincount(minlength=4).tolist() == [2000, 0, 800, 1200]


@pytest.mark.parametrize(("number", "expected"), [(0.0, 1), (1 - 2**-24, 3)])
def test_the_ends_of_the_range_choose_tokens_that_can_be(number, expected) -> None:
    noise = RecordedNoise({"choice.0": torch.full((1, STEPS_PER_DRAW), number)})
    scores = torch.tensor([[NEVER, 0.0, 1.0, 0.5, NEVER]])
    assert AtRandom(noise, 1)(scores, [0], 0).tolist() == [expected]


def test_the_likeliest_is_the_first_of_its_equals() -> None:
    assert likeliest(torch.tensor([[0.0, 2.0, 2.0], [1.0, 0.0, 1.0]]), [0, 1], 0).tolist() == [1, 0]


def test_tokens_can_be_given(engine) -> None:
    (told,) = engine.generate(ids(5), PlainRules(), Told([4, 9], likeliest), 6)
    assert told[:2] == [4, 9]
    (prompt,) = ids(5)
    longer = torch.cat([prompt, torch.tensor([4, 9])])
    assert [told[2:]] == engine.generate([longer], PlainRules(), likeliest, 4)


@pytest.mark.parametrize("bad", [float("nan"), NEVER])
@pytest.mark.parametrize("random", [False, True])
def test_scores_that_are_no_numbers_are_an_error(engine, bad, random) -> None:
    def spoil(logits: Tensor, rows: object) -> Tensor:
        return torch.full_like(logits, bad)

    choose = AtRandom(Noise([1]), 1) if random else likeliest
    with pytest.raises(ZooError, match="scores are not numbers") as error:
        engine.generate(ids(5), PlainRules([spoil]), choose, 6)
    assert "zoo verify" in error.value.hint


# Processors


def test_top_k_keeps_ties() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    kept = keep_top_k(logits, 2)
    assert (kept > NEVER).tolist() == [[False, True, True, True, False], [True, True, False, False, False]]
    assert torch.equal(kept[kept > NEVER], logits[kept > NEVER])
    for off in (0, 5, 9):
        assert torch.equal(keep_top_k(logits, off), logits)


@pytest.mark.parametrize(
    ("mass", "kept"), [(0.4, [1]), (0.55, [1, 3]), (0.79, [1, 3]), (0.81, [1, 3, 0]), (0.96, [1, 3, 0, 2])]
)
def test_top_p_keeps_what_crosses(mass, kept) -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    assert (keep_top_p(logits, mass) > NEVER).nonzero()[:, 1].tolist() == sorted(kept)
    assert torch.equal(keep_top_p(logits, 1.0), logits)


def test_a_warp_runs_in_order() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    expected = keep_top_p(keep_top_k(logits / 0.5, 7), 0.8)
    assert torch.equal(Warp(0.5, 7, 0.8)(logits), expected)
    assert torch.equal(Warp()(logits), logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        Warp(**settings)


def test_guidance_is_that_of_probabilities() -> None:
    lc, lu = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert torch.allclose(guided(lc + 3, lu - 5, 2.0), lu + 2 * (lc - lu), atol=1e-5)
    assert torch.allclose(guided(lc + 3, lu, 1.0), lc, atol=1e-6)
    assert torch.allclose(guided(lc, lu + 1, 0.0), lu, atol=1e-6)


def test_only_allowed_tokens_are_chosen(engine) -> None:
    mask = torch.zeros(2, VOCABULARY, dtype=torch.bool)
    mask[0, 3:6] = mask[1, 40:] = True
    first, second = engine.generate(ids(5, 5), PlainRules([Allowed(mask)]), likeliest, 8)
    assert set(first) <= {3, 4, 5} and set(second) <= set(range(40, 50))
    (same,) = engine.generate(ids(5), PlainRules([Allowed(mask[0])]), likeliest, 8)
    assert same == first


def test_a_mask_that_allows_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="allow every sample a token"):
        Allowed(torch.zeros(5, dtype=torch.bool))


def test_a_processor_may_follow_the_tokens(engine) -> None:
    class NoRepeat:
        def __init__(self) -> None:
            self.used: dict[int, set[int]] = {}

        def __call__(self, logits: Tensor, rows: tuple[int, ...]) -> Tensor:
            logits = logits.clone()
            for index, row in enumerate(rows):
                logits[index, list(self.used.get(row, []))] = NEVER
            return logits

        def read(self, row: int, token: int) -> None:
            self.used.setdefault(row, set()).add(token)

    written = engine.generate(ids(5, 8), PlainRules([NoRepeat()]), likeliest, VOCABULARY)
    assert [sorted(row) for row in written] == [list(range(VOCABULARY))] * 2


def test_guidance_without_prompts_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unconditional prompts"):
        PlainRules(scale=2.0)


# Weights and memory


def test_small_models_are_copied_and_large_ones_are_not(model, monkeypatch) -> None:
    assert plan_weights(model, 2).copied
    monkeypatch.setattr("zoo.runtime.tokens.weights.KEEP_BYTES", 1000)
    plan = plan_weights(model, 2)
    assert not plan.copied
    assert plan.layout_of(model.layers[0].mlp.gate_proj) == "columns"
    assert plan_weights(model, 1).layout_of(model.layers[0].mlp.gate_proj) == "rows"
    large = TokenEngine(model, rows=3)
    assert large.generate(ids(7, 2, 12), PlainRules(), likeliest, 10) == [
        greedy(model, prompt, 10) for prompt in ids(7, 2, 12)
    ]
    weight = model.layers[0].mlp.down_proj.weight
    assert plan.make(model.layers[0].self_attn.q_proj).weight.data_ptr() != weight.data_ptr()
    assert plan.make(model.layers[0].self_attn.q_proj).weight.data_ptr() == (
        model.layers[0].self_attn.q_proj.weight.data_ptr()
    )


def test_memory_is_told_beforehand(model) -> None:
    sizes = LanguageModelConfig(VOCABULARY, 32, 48, 2, 4, 2)
    large = decoding_bytes(sizes, 2, 64, torch.float32, CPU, 2**40)
    read = 2 * 64 * (3 * 48 + 4 * 32) * 4
    assert large == 2 * 2 * 2 * 2 * 64 * 8 * 4 + read
    wide = LanguageModelConfig(100_000, 32, 48, 2, 4, 2)
    assert decoding_bytes(wide, 2, 64, torch.float32, CPU, 2**40) == large - read + 2 * 100_000 * 28
    assert decoding_bytes(sizes, 2, 64, torch.float32, CPU, 1000) == large + 2000


@pytest.mark.parametrize("native", [True, False])
def test_memory_is_that_of_the_device_and_of_what_is_computed_there(native, monkeypatch) -> None:
    """Keys and values are float32 on a CPU, and so is all else where it lacks bfloat16."""
    monkeypatch.setattr(plan, "native_bfloat16", lambda: native)
    sizes = LanguageModelConfig(VOCABULARY, 32, 48, 2, 4, 2)
    whole = decoding_bytes(sizes, 2, 64, torch.float32, CPU, 2**40)
    assert decoding_bytes(sizes, 2, 64, torch.bfloat16, GPU, 2**40) == whole // 2
    copied = 0 if native else 2 * 2**40
    assert decoding_bytes(sizes, 2, 64, torch.bfloat16, CPU, 2**40) == whole + copied
    # The engine chooses by the same rules.
    chosen = plan.choose(CPU, 2, torch.bfloat16, 2**40, 2**40)
    assert (chosen.cache_dtype, chosen.dtype == torch.bfloat16) == (torch.float32, native)
    assert plan.choose(GPU, 2, torch.bfloat16, 2**40, 2**40).cache_dtype == torch.bfloat16


# Streaming


def test_text_is_handed_on_in_whole_characters() -> None:
    """Tokens here are bytes, as in the worst case of a real vocabulary."""
    text, pieces = "a few wörds\nand 鳥\U0001f600!\n\nend é", []
    stream = TextStream(lambda tokens: bytes(tokens).decode("utf-8", errors="replace"), pieces.append)
    for token in text.encode():
        stream.push(token)
        assert text.startswith("".join(pieces))
    assert "".join(pieces) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces) and len(pieces) == len(text)
    for token in "鳥".encode()[:2]:
        stream.push(token)
    assert "".join(pieces) == text
    stream.finish()
    assert "".join(pieces) == text + "\N{REPLACEMENT CHARACTER}"
    stream.finish()
    assert "".join(pieces) == text + "\N{REPLACEMENT CHARACTER}"
