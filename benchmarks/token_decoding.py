"""Tokens per second with guidance: zoo's token engine against `generate` of transformers.

Both sides have the same small random Qwen2 in float32 and continue the same prompts under classifier-free
guidance, always with the likeliest token, and must write the same tokens. transformers is run as its users
run it: `guidance_scale` with `negative_prompt_ids`, and the options by which nothing ends early. A round
times a whole generation of each side, prompts included, in an order that changes from round to round; the
figure is the median of the rounds' ratios. Times are CPU time of one thread, which other programs disturb
less than the clock on the wall. Laying out the weights is not timed: an engine does it once, and so do
transformers when they load a model; the time that it takes is printed.

    python -m pip install transformers
    python benchmarks/token_decoding.py
    python benchmarks/token_decoding.py --layers 12 --width 768 --heads 12 --batches 1 8 --check
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.nn.language_model import LanguageModel, LanguageModelConfig
from zoo.runtime.tokens.engine import TokenEngine
from zoo.runtime.tokens.rules import PlainRules
from zoo.runtime.tokens.sampling import likeliest

try:
    import transformers
except ImportError:
    sys.exit(
        "transformers is not installed, and is what zoo is compared with: python -m pip install transformers"
    )

GOAL = 1.5  #: zoo's tokens per second over those of transformers
GUIDANCE = 2.0
SPREAD = 0.06  #: deviation of the random weights: with smaller ones all tokens are nearly alike


def config_of(given: Namespace) -> LanguageModelConfig:
    return LanguageModelConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.width,
        intermediate_size=given.inner or 8 * given.width // 3,
        num_hidden_layers=given.layers,
        num_attention_heads=given.heads,
        num_key_value_heads=given.shared,
    )


def models(config: LanguageModelConfig) -> tuple[LanguageModel, nn.Module]:
    """The same random weights on both sides."""
    torch.manual_seed(0)
    ours = LanguageModel(config).eval().requires_grad_(False)
    for parameter in ours.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=SPREAD)
    theirs = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
    )
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.eval().requires_grad_(False)


def zoo_side(
    model: LanguageModel, prompts: Tensor, negatives: Tensor, count: int
) -> Callable[[], list[list[int]]]:
    engine = TokenEngine(model, rows=2 * len(prompts))

    def call() -> list[list[int]]:
        rules = PlainRules(scale=GUIDANCE, prompts=list(negatives))
        return engine.generate(list(prompts), rules, likeliest, count)

    return call


def transformers_side(
    model: Any, prompts: Tensor, negatives: Tensor, count: int
) -> Callable[[], list[list[int]]]:
    def call() -> list[list[int]]:
        whole = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            guidance_scale=GUIDANCE,
            negative_prompt_ids=negatives,
            negative_prompt_attention_mask=torch.ones_like(negatives),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
        )
        return whole[:, prompts.shape[1] :].tolist()

    return call


def measure(given: Namespace, count: int) -> dict[str, Any]:
    """One row of the table for a batch of `count`."""
    config = config_of(given)
    ours, theirs = models(config)
    numbers = torch.Generator().manual_seed(1)
    prompts = torch.randint(config.vocab_size, (count, given.prompt), generator=numbers)
    # Shorter, as prompts without a description are.
    negatives = torch.randint(config.vocab_size, (count, max(1, given.prompt // 2)), generator=numbers)
    started = time.process_time()
    sides = [("zoo", zoo_side(ours, prompts, negatives, given.tokens))]
    prepared = time.process_time() - started
    sides.append(("transformers", transformers_side(theirs, prompts, negatives, given.tokens)))
    seconds: dict[str, list[float]] = {name: [] for name, _ in sides}
    for number in range(given.rounds + 1):
        written = {}
        for name, call in sides if number % 2 else sides[::-1]:
            started = time.process_time()
            written[name] = call()
            if number:  # The first round fills caches.
                seconds[name].append(time.process_time() - started)
        if written["zoo"] != written["transformers"]:
            raise SystemExit(f"a batch of {count}: the two sides wrote different tokens: {written}")
    ratios = [b / a for a, b in zip(seconds["zoo"], seconds["transformers"], strict=True)]
    return {
        "batch": count,
        "tokens": given.tokens,
        "zoo_per_second": count * given.tokens / statistics.median(seconds["zoo"]),
        "transformers_per_second": count * given.tokens / statistics.median(seconds["transformers"]),
        "ratio": statistics.median(ratios),
        "prepared_ms": 1e3 * prepared,
        "met": statistics.median(ratios) >= GOAL,
    }


def print_table(table: list[dict[str, Any]], given: Namespace) -> None:
    print(
        f"{given.layers} layers of width {given.width}, {given.heads} heads over {given.shared}, "
        f"vocabulary {given.vocabulary}; prompts of {given.prompt}, {given.tokens} tokens, guidance "
        f"{GUIDANCE}, float32, CPU time, median of {given.rounds} rounds, one thread; torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {platform.machine()}\n"
    )
    print(f"{'batch':>5}{'zoo':>10}{'transformers':>14}  tokens a second{'ratio':>8}{'weights laid out':>19}")
    for line in table:
        print(
            f"{line['batch']:>5}{line['zoo_per_second']:>10.0f}{line['transformers_per_second']:>14.0f}"
            f"{'':>17}{line['ratio']:>8.2f}{line['prepared_ms']:>16.0f} ms"
            f"{'' if line['met'] else '  goal not met'}"
        )
    print(f"\nthe same tokens in every round; goal: a ratio of at least {GOAL} in every row")


def main() -> int:
    """Measure and print; with --check, exit 1 when a row misses the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"layers": 6, "width": 384, "heads": 6, "shared": 2, "vocabulary": 4096}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"of the model (default {size})")
    parser.add_argument("--inner", type=int, default=0, help="width of the feed-forward (default 8/3 widths)")
    parser.add_argument("--prompt", type=int, default=24, help="tokens of a prompt (default 24)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to write (default 128)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a row misses its goal")
    given = parser.parse_args()
    if min(*[getattr(given, name) for name in sizes], given.prompt, given.tokens, given.rounds) < 1:
        parser.error("sizes, lengths and rounds are numbers of at least 1")
    if min(given.batches) < 1 or given.inner < 0:
        parser.error("--batches takes numbers of at least 1, --inner none below 0")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    table = [measure(given, count) for count in given.batches]
    if given.json:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        print(json.dumps({**vars(given), **versions, "goal": GOAL, "rows": table}, indent=2))
    else:
        print_table(table, given)
    return int(given.check and not all(line["met"] for line in table))


if __name__ == "__main__":
    sys.exit(main())
