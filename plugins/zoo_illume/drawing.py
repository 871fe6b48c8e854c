"""Pictures from texts, and pictures changed as told: codes from the language model, then a decoder.

A prompt ends where its picture begins, so the start of the picture is given and the rest is chosen. Guidance
reads a prompt without the description, or with the negative prompt in its place, beside the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import NoiseSource
from zoo.runtime.sampling import Batch, OnStep
from zoo.runtime.tokens.engine import TokenEngine
from zoo.runtime.tokens.sampling import AtRandom, Choose, Told, likeliest
from zoo.runtime.tokens.stopping import StopAt
from zoo_illume.decoding import Decoding
from zoo_illume.given import embedded, given_pictures, prompts_of, read, worded
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import IllumeConfig
from zoo_illume.options import DrawOptions, EditOptions
from zoo_illume.preparing import Fit, Size, drawn_sizes, nearest_size, signed, size_to_draw
from zoo_illume.processor import InterleavedRules, UnconditionalPrompt
from zoo_illume.sketches import Sketch, Watch


@dataclass(frozen=True)
class Order:
    """A picture to draw: its size, the ids of both branches' prompts, and the pictures at their marks.

    pictures: embeddings [tokens, width].
    """

    size: Size
    prompt: Sequence[int]
    unconditional: Sequence[int]
    pictures: tuple[Tensor, ...] = ()


def draw(
    loaded: LoadedModel, batch: Batch, options: DrawOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """A picture for each prompt; without one it may be anything.

    `on_step` counts tokens, and behind them the steps of a decoder by diffusion. Raises `InvalidInput` for a
    size that the model does not draw, and for a decoder that the variant does not have.
    """
    size = size_to_draw(batch.size, loaded.model.config)
    prompts = prompts_of(loaded)
    orders = []
    for item in batch.items:
        asked, otherwise = (worded(loaded, text, "text-to-image") for text in (item.prompt, item.negative))
        orders.append(Order(size, prompts.draw(asked, size), prompts.draw(otherwise, size)))
    return [Image(pixels) for pixels in drawn(loaded, orders, options, noise, on_step)]


def edit(
    loaded: LoadedModel, batch: Batch, options: EditOptions, noise: NoiseSource, on_step: OnStep
) -> list[Image]:
    """Each sample's picture changed as its prompt says, in the size that it had.

    The model sees and draws it in that of its sizes whose shape is nearest, white where the picture does not
    reach. Otherwise as `draw`.
    """
    sizes = drawn_sizes(loaded.model.config)
    if batch.size is not None:
        raise InvalidInput("an edited picture keeps its size", "Leave out --size.")
    given, prompts = given_pictures(batch), prompts_of(loaded)
    fits = [_fit(picture, sizes) for picture in given]
    seen = read(loaded, given, lambda picture: signed(_fit(picture, sizes).put(picture)))
    orders = []
    for item, fit, picture in zip(batch.items, fits, seen, strict=True):
        asked, otherwise = (
            prompts.edit(worded(loaded, text, "image-editing"), fit.outer)
            for text in (item.prompt, item.negative)
        )
        orders.append(Order(fit.outer, asked, otherwise, (picture,)))
    pictures = drawn(loaded, orders, options, noise, on_step)
    return [Image(fit.take(pixels)) for fit, pixels in zip(fits, pictures, strict=True)]


def _fit(picture: Tensor, sizes: Sequence[Size]) -> Fit:
    size = (picture.shape[1], picture.shape[2])
    return Fit(size, nearest_size(size, sizes))


def drawn(
    loaded: LoadedModel,
    orders: Sequence[Order],
    options: DrawOptions,
    noise: NoiseSource,
    on_step: OnStep,
) -> list[Tensor]:
    """The pictures that were ordered, float32 [3, h, w] in [0, 1] on the CPU."""
    config: IllumeConfig = loaded.model.config
    sketches = [Sketch(config.tokens.interleaved(), config.grids(*order.size)) for order in orders]
    decoding = Decoding(loaded, options, sketches)
    write_codes(loaded, orders, options, noise, Watch(on_step, decoding.total, sketches, decoding.preview))
    return decoding.pictures(noise, on_step)


def write_codes(
    loaded: LoadedModel, orders: Sequence[Order], options: DrawOptions, noise: NoiseSource, watch: Watch
) -> list[list[int]]:
    """The tokens of the pictures that were ordered, from their start to their end.

    The engine goes with the function: its cache is as large as the batch needs, and decoders want memory too.
    """
    model: IllumePlus = loaded.model
    rules = _rules(loaded, orders, options)
    tokens = model.config.tokens
    guided = rules.longest_unconditional > 0
    engine = TokenEngine(model, len(orders) * (2 if guided else 1))
    return engine.generate(
        [embedded(loaded, order.prompt, order.pictures) for order in orders],
        rules,
        Told([tokens.start_of_image], _choice(rules, options, noise, len(orders))),
        most_tokens=max(model.config.picture_tokens(*order.size) for order in orders),
        stop=[StopAt(tokens.end_of_image)],
        on_token=watch,
    )


def _rules(loaded: LoadedModel, orders: Sequence[Order], options: DrawOptions) -> InterleavedRules:
    config: IllumeConfig = loaded.model.config
    # Where both branches would read the same, guidance between them does nothing.
    differ = any(order.prompt != order.unconditional for order in orders)
    scale = options.guidance if differ else 1.0
    prompts = [
        UnconditionalPrompt(tuple(order.unconditional), embedded(loaded, order.unconditional, order.pictures))
        for order in orders
        if scale != 1
    ]
    return InterleavedRules(
        config.tokens.interleaved(),
        config.language_model.vocab_size,
        [config.grids(*order.size) for order in orders],
        loaded.model.embed,
        options.warps,
        scale,
        prompts,
        options.doubled,
    )


def _choice(rules: InterleavedRules, options: DrawOptions, noise: NoiseSource, count: int) -> Choose:
    greedy = options.greedy_levels
    if all(greedy):
        return likeliest
    at_random = AtRandom(noise, count)
    return _ByLevel(rules, greedy, at_random) if any(greedy) else at_random


@dataclass(frozen=True)
class _ByLevel:
    """The likeliest codes in some levels, others at random."""

    rules: InterleavedRules
    greedy: tuple[bool, ...]
    at_random: AtRandom

    def __call__(self, scores: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """See `Choose`."""
        chosen, best = self.at_random(scores, rows, step), likeliest(scores, rows, step)
        for index, row in enumerate(rows):
            place = self.rules.place(row)
            if place is not None and self.greedy[place[0]]:
                chosen[index] = best[index]
        return chosen
