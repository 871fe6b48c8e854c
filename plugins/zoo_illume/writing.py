"""Texts: what a picture shows, answers to questions about it, and answers to texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.text import Text
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.sampling import Batch, OnStep, tell_text
from zoo.runtime.tokens.engine import TokenEngine
from zoo.runtime.tokens.processors import Allowed, Processor
from zoo.runtime.tokens.rules import PlainRules
from zoo.runtime.tokens.sampling import AtRandom, likeliest
from zoo.runtime.tokens.stopping import StopAt
from zoo.runtime.tokens.streaming import TextStream
from zoo_illume.given import embedded, given_pictures, prompts_of, read, worded
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import IllumeConfig
from zoo_illume.options import TextOptions
from zoo_illume.preparing import to_read


def describe(
    loaded: LoadedModel, batch: Batch, options: TextOptions, noise: NoiseSource, on_step: OnStep
) -> list[Text]:
    """What each sample's picture shows, or the answer to what its prompt asks about it.

    `on_step` counts tokens up to the most that there may be; its `text` gets texts as they are made. Raises
    `InvalidInput` for a size and for negative prompts, which no text has.
    """
    _check(batch)
    given, prompts = given_pictures(batch), prompts_of(loaded)
    seen = read(loaded, given, partial(to_read, config=loaded.model.config))
    asked = [
        embedded(loaded, prompts.ask(worded(loaded, item.prompt, "image-to-text")), [picture])
        for item, picture in zip(batch.items, seen, strict=True)
    ]
    return _answers(loaded, asked, options, noise, on_step)


def write(
    loaded: LoadedModel, batch: Batch, options: TextOptions, noise: NoiseSource, on_step: OnStep
) -> list[Text]:
    """An answer to each prompt; otherwise as `describe`."""
    _check(batch)
    prompts = prompts_of(loaded)
    told = (worded(loaded, item.prompt, "text-to-text") for item in batch.items)
    asked = [embedded(loaded, prompts.write(text or "")) for text in told]
    return _answers(loaded, asked, options, noise, on_step)


def _check(batch: Batch) -> None:
    if batch.size is not None:
        raise InvalidInput("a text has no size", "Leave out --size.")
    if any(negative is not None for negative in batch.negatives):
        raise InvalidInput("this sampler reads no negative prompt", "Leave out --negative.")


def _answers(
    loaded: LoadedModel, prompts: Sequence[Tensor], options: TextOptions, noise: NoiseSource, on_step: OnStep
) -> list[Text]:
    model: IllumePlus = loaded.model
    decode = loaded.components["text_tokenizer"].decode
    warps: list[Processor] = [options.warp] * (2 if options.doubled else 1)
    end = model.config.tokens.end_of_text
    watch = _Watch(on_step, len(prompts), options.max_tokens, decode)
    texts = TokenEngine(model, len(prompts)).generate(
        prompts,
        PlainRules([Allowed(in_texts(model.config)), *warps]),
        likeliest if options.greedy else AtRandom(noise, len(prompts)),
        options.max_tokens,
        [StopAt(end)],
        watch,
    )
    watch.finish()
    return [Text(decode(tokens)) for tokens in texts]


def in_texts(config: IllumeConfig) -> Tensor:
    """Bool [vocabulary]: what may stand in a text, which is everything but what belongs to pictures.

    Tables have more rows than there are tokens; what stands behind the last token is none.
    """
    tokens = config.tokens
    allowed = ~tokens.interleaved().not_in_text(config.language_model.vocab_size)
    allowed[[tokens.start_of_image, tokens.end_of_image]] = False
    for first in (tokens.first_height, tokens.first_width):
        allowed[first : first + tokens.sizes] = False
    allowed[tokens.end :] = False
    return allowed


class _Watch:
    """Tells `on_step` of every token, and of texts as far as they cannot change any more."""

    def __init__(
        self, on_step: OnStep, count: int, total: int, decode: Callable[[Sequence[int]], str]
    ) -> None:
        self._on_step, self._total, self._done = on_step, total, 0
        # Without anyone who listens, nothing is decoded on the way.
        rows = range(count if hasattr(on_step, "text") else 0)
        self._streams = [TextStream(decode, partial(tell_text, on_step, row)) for row in rows]

    def __call__(self, row: int, index: int, token: int) -> None:
        """See `zoo.runtime.tokens.engine.OnToken`."""
        if index > self._done:
            self._done = index
            self._on_step(index, self._total, None)
        if self._streams:
            self._streams[row].push(token)

    def finish(self) -> None:
        """Nothing follows."""
        for stream in self._streams:
            stream.finish()
        self._on_step(self._total, self._total, None)
