"""Generates tokens: prompts are read once, then every step is one token of every row that still runs.

Both branches of guidance stand in one batch and one cache. The unconditional branch of a sample starts when
its rules ask for it, by reading a prompt of its own, and joins the steps from then on; it goes when they no
longer ask. A sample that ends leaves the batch with both branches, so that it costs nothing from then on.
The order of rows changes in this; no row's numbers depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.nn.cached_language_model import CachedLanguageModel
from zoo.runtime import memory, reports
from zoo.runtime.capabilities import TokenLM
from zoo.runtime.tokens.rules import Rules, StepLogits
from zoo.runtime.tokens.sampling import Choose, check_choice
from zoo.runtime.tokens.stopping import StopRule
from zoo.runtime.tokens.weights import plan_weights

#: A row of the cache: the sample that it belongs to, and whether it is the conditional branch.
Member = tuple[int, bool]


class OnToken(Protocol):
    """Told of every token as it is chosen; it never changes the result."""

    def __call__(self, row: int, index: int, token: int) -> None:
        """Token number `index` (from 0) of sample `row`."""
        ...


class TokenEngine:
    """Generates with one model; its weights are laid out once, and its cache is kept between generations.

    rows: rows of a usual step, by which the layout of the weights is chosen: the batch, twice with guidance.
    The weights must not change while the engine is used.
    """

    @torch.inference_mode()
    def __init__(self, model: TokenLM, rows: int) -> None:
        self._model = model
        self.plan = plan_weights(model.language_model, rows)
        self._decoder = self.plan.decoder(model.language_model)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Tensor],
        rules: Rules,
        choose: Choose,
        most_tokens: int,
        stop: Sequence[StopRule] = (),
        on_token: OnToken | None = None,
    ) -> list[list[int]]:
        """The tokens of each sample, prompt left out, ending with the one that a rule stopped at.

        prompts: of each sample, embeddings [tokens, width] or ids int64 [tokens], at least one token each.
        most_tokens: a sample ends here at the latest; memory for as many is set aside.

        Raises `InvalidInput` where there is nothing to read or to generate.
        """
        if most_tokens < 1 or any(not len(prompt) for prompt in prompts):
            shortest = min(map(len, prompts), default=0)
            raise InvalidInput(
                f"{most_tokens} tokens were asked for behind prompts of at least {shortest}, "
                "expected at least 1 of each"
            )
        unconditional = rules.longest_unconditional
        longest = max([unconditional, *map(len, prompts)])
        self._decoder.reserve(len(prompts) * (2 if unconditional else 1), longest + most_tokens)
        generation = _Generation(self._model, self._decoder, rules, len(prompts))
        generation.start(prompts)
        for step in range(most_tokens):
            if not generation.running:
                break
            rows = generation.running
            scores = rules.process(generation.logits())
            chosen = choose(scores, rows, step).tolist()
            check_choice(chosen, scores.shape[-1])
            for row, token in zip(rows, chosen, strict=True):
                generation.tokens[row].append(token)
                rules.read(row, token)
                if on_token is not None:
                    on_token(row, step, token)
            generation.end([row for row in rows if any(rule(row, generation.tokens[row]) for rule in stop)])
        self._report(generation)
        return generation.tokens

    def _report(self, generation: _Generation) -> None:
        model = self._model.language_model
        dtype, config = model.head_weight.dtype, model.config
        # Embeddings are looked up, not multiplied; where the head shares them it reads all of them.
        table = 0 if model.lm_head is None else model.model.embed_tokens.weight.numel()
        weights = memory.weight_bytes(model, dtype) - table * dtype.itemsize
        entry = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        # A query multiplies each key and value that it attends to, for every head that shares them.
        per_place = 2 * entry * (config.num_attention_heads // config.num_key_value_heads)
        reports.report(
            reports.Work(
                stage="tokens",
                bytes=generation.steps * weights + generation.places * entry * self.plan.cache_dtype.itemsize,
                flops=2 * generation.reads * (weights // dtype.itemsize) + generation.places * per_place,
                working_set=weights,
            )
        )


class _Generation:
    """Who stands where in the cache while one batch is generated."""

    def __init__(self, model: TokenLM, decoder: CachedLanguageModel, rules: Rules, count: int) -> None:
        self._model, self._decoder, self._rules = model, decoder, rules
        self.tokens: list[list[int]] = [[] for _ in range(count)]
        self.running = tuple(range(count))
        self.steps = self.reads = self.places = 0
        self._members: list[Member] = []
        self._branches: set[int] = set()  # samples whose unconditional branch is there
        self._prompts: dict[Member, Tensor] = {}
        self._order: _Order | None = None

    def start(self, prompts: Sequence[Tensor]) -> None:
        """Take the prompts; they are read with the first step."""
        self._prompts = {(row, True): self._embedded(prompt) for row, prompt in enumerate(prompts)}

    def _embedded(self, prompt: Tensor) -> Tensor:
        weight = self._model.language_model.head_weight
        if prompt.is_floating_point():
            return prompt.to(weight.device, weight.dtype)
        return self._model.embed(prompt.to(weight.device))

    def logits(self) -> StepLogits:
        """Let every row read its newest token, or its prompt, and sort what they say."""
        self._change_branches()
        parts = [self._step()] if self._members else []
        if self._prompts:
            parts.append(self._decoder.add(list(self._prompts.values())))
            self._members += self._prompts
            self._prompts, self._order = {}, None
        if self._order is None:
            self._order = _Order(self._members, self.running, parts[0].device)
        return self._order.sorted(parts[0] if len(parts) == 1 else torch.cat(parts))

    def _change_branches(self) -> None:
        for row in self.running:
            wanted, there = self._rules.guided(row), row in self._branches
            if wanted and not there:
                self._prompts[row, False] = self._embedded(self._rules.unconditional(row))
                self._branches.add(row)
            elif there and not wanted:
                self._leave((row, False))

    def _step(self) -> Tensor:
        newest = torch.tensor([self.tokens[row][-1] for row, _ in self._members])
        cache = self._decoder.cache
        self.steps, self.reads = self.steps + 1, self.reads + cache.count
        self.places += sum(cache.lengths) + cache.count
        return self._decoder.step(self._model.embed(newest.to(cache.device)))

    def end(self, rows: Sequence[int]) -> None:
        """Let samples leave the batch."""
        if not rows:
            return
        for row in rows:
            self._leave((row, True))
            if row in self._branches:
                self._leave((row, False))
        self.running = tuple(row for row in self.running if row not in rows)
        self._order = None

    def _leave(self, member: Member) -> None:
        place = self._members.index(member)
        self._decoder.remove(place)
        # As in the cache: the last takes the place of the one that goes.
        self._members[place] = self._members[-1]
        self._members.pop()
        if not member[1]:
            self._branches.discard(member[0])
        self._order = None


class _Order:
    """From rows of the cache to samples; made anew only when rows come or go."""

    def __init__(self, members: Sequence[Member], running: Sequence[int], device: torch.device) -> None:
        self._rows = tuple(running)
        places = {member: place for place, member in enumerate(members)}
        self._guided = tuple(index for index, row in enumerate(running) if (row, False) in places)
        conditional = [places[row, True] for row in running]
        unconditional = [places[running[index], False] for index in self._guided]
        self._conditional = torch.tensor(conditional, device=device)
        self._unconditional = torch.tensor(unconditional, device=device)

    def sorted(self, logits: Tensor) -> StepLogits:
        """Logits [rows of the cache, vocab] by sample."""
        conditional = logits.index_select(0, self._conditional)
        unconditional = logits.index_select(0, self._unconditional) if self._guided else None
        return StepLogits(self._rows, conditional, self._guided, unconditional)
