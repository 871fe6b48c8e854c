"""How the golden cases of ILLUME+'s language model run: what it reads, what it writes, and by which rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from golden_cases import GoldenCase, Outputs, loaded_case
from torch import Tensor

from zoo.runtime.tokens.engine import TokenEngine
from zoo.runtime.tokens.rules import StepLogits
from zoo.runtime.tokens.sampling import Told, likeliest
from zoo.session import Session
from zoo_illume.authors import model_config
from zoo_illume.options import DrawOptions
from zoo_illume.processor import InterleavedRules, InterleavedTokens, UnconditionalPrompt, Warps

METHOD, ARCHITECTURE, CONVERTER = "illume", "illume-plus", "illume-plus"
LEVELS = range(2)


class ModelCase:
    """A case of the whole model, with its weights as users load theirs."""

    def __init__(self, case: GoldenCase, session: Session) -> None:
        self.case, self.facts = case, case.facts["config"]
        processor = self.facts.get("processor")
        config = model_config(self.facts, code_ranges(processor) if processor else ())
        self.model = loaded_case(case, session, METHOD, ARCHITECTURE, CONVERTER, config).model
        names = sorted(
            (name for name in case.io if re.fullmatch(r"image_\d+_u8", name)),
            key=lambda name: int(name.split("_")[1]),
        )
        self.images = [case.io[name] / 127.5 - 1.0 for name in names]

    def pictures(self) -> list[Tensor]:
        """What stands for each picture in a prompt."""
        return [row for images in self.images for row in self.model.read(images)]

    def forward(self) -> Outputs:
        features = [self.model.features(images) for images in self.images]
        yield "semantic_features", torch.cat([one.semantic.flatten(0, 1) for one in features])[None]
        yield "pixel_features", torch.cat([one.pixel.flatten(0, 1) for one in features])[None]
        ids, mask = self.case.io["input_ids"], self.case.io.get("attention_mask")
        side = self.facts.get("tokenizer_padding_side", "right")
        most = self.facts.get("tokenizer_model_max_length")
        embedded, there = self.model.embed_batch(ids, mask, self.pictures(), side, most)
        yield "inputs_embeds", embedded
        stride = re.search(r"T/(\d+)", self.case.facts["outputs"]["logits"])
        logits = self.model(embedded, mask=there) * there[..., None]
        yield "logits", logits[:, :: int(stride[1]) if stride else 1]

    def generation(self) -> Outputs:
        facts, pictures, io = self.facts["processor"], self.pictures(), self.case.io
        scale, start = facts["guidance_scale"], facts["special_tokens"]["start_of_image"]
        prompt, unconditional = io["prompt_ids"].flatten(), unconditional_ids(self.case)
        rules = RecordedRules(
            InterleavedTokens.from_authors(facts["special_tokens"], code_ranges(facts)),
            self.facts["llm"]["vocab_size"],
            [code_grids(facts)],
            self.model.embed,
            warps_of(facts),
            scale,
            [UnconditionalPrompt(tuple(unconditional.tolist()), self._embedded(unconditional, pictures))],
        )
        # A picture's start is forced at the first step, and a text begins as it likes.
        forced = [start] if int(io["tokens"][0]) == start else []
        engine = TokenEngine(self.model, 2)
        (tokens,) = engine.generate(
            [self._embedded(prompt, pictures)], rules, Told(forced, likeliest), len(io["tokens"])
        )
        yield "tokens", torch.tensor(tokens)
        yield "cond_logits", torch.cat(rules.conditional)
        yield "processed", torch.cat(rules.processed)

    def _embedded(self, ids: Tensor, pictures: Sequence[Tensor]) -> Tensor:
        # Both branches read the same picture, and either may do without.
        return self.model.embed_prompt(ids, pictures[: int((ids < 0).sum())])


class RecordedRules(InterleavedRules):
    """Keeps what went in and came out."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.conditional: list[Tensor] = []
        self.processed: list[Tensor] = []

    def process(self, logits: StepLogits) -> Tensor:
        scores = super().process(logits)
        self.conditional.append(logits.conditional.clone())
        self.processed.append(scores.clone())
        return scores


def processor_outputs(case: GoldenCase) -> Outputs:
    """The rules of choosing tokens on scripted logits: ids stand for embeddings, so that they can be read."""
    facts, io = case.facts["config"], case.io
    prompt = unconditional_ids(case)
    rules = InterleavedRules(
        InterleavedTokens.from_authors(facts["special_tokens"], code_ranges(facts)),
        facts["vocab"],
        [code_grids(facts)],
        lambda ids: ids[:, None].float(),
        warps_of(facts),
        facts["guidance_scale"],
        [UnconditionalPrompt(tuple(prompt.tolist()), prompt[:, None].float())],
    )
    calls, starts, processed = [], [], []
    for step, token in enumerate(io["tokens"].tolist()):
        given = StepLogits((0,), io["cond_logits"][step : step + 1])
        if rules.guided(0):
            if step - 1 not in calls:
                yield f"uncond_first_input_{len(starts)}", rules.unconditional(0).T
                starts.append(step)
            calls.append(step)
            given = replace(given, guided=(0,), unconditional=io["uncond_logits"][step : step + 1])
        processed.append(rules.process(given))
        rules.read(0, token)
    yield "processed", torch.cat(processed)
    yield "cfg_call_steps", torch.tensor(calls)
    yield "uncond_first_steps", torch.tensor(starts)


def unconditional_ids(case: GoldenCase) -> Tensor:
    """Int64 [tokens]; none where a case runs without guidance."""
    return case.io.get("uncond_prompt", torch.empty(0)).flatten().to(torch.int64)


def code_ranges(facts: Mapping[str, Any]) -> list[tuple[int, int]]:
    """First id, and the one behind the last, of each level's codes."""
    return [tuple(facts[f"level{level}_range"]) for level in LEVELS]


def code_grids(facts: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Lines of each level, and codes of a line."""
    return [(facts[f"num_level{level}_rows"], facts[f"num_level{level}_tokens"]) for level in LEVELS]


def warps_of(facts: Mapping[str, Any]) -> Warps:
    """How sharply a case chooses; what it says nothing of is filled in as it is for users.

    A top-k of the authors may be negative, which is none.
    """
    options: dict[str, Any] = {}
    for place, prefix in (("default", ""), ("level0", "semantic_"), ("level1", "pixel_")):
        temperature, top_k, top_p = (facts.get(f"{place}_{what}") for what in ("temp", "top_k", "top_p"))
        options[f"{prefix}temperature"] = temperature
        options[f"{prefix}top_k"] = top_k if top_k is None else max(0, top_k)
        options[f"{prefix}top_p"] = top_p
    return DrawOptions(**options).warps
