"""The training of illume:shapes: sequences of all tasks, what is learnt of them, and from which weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import WeightsError
from zoo.nn.language_model import LanguageModelConfig
from zoo.runtime.loading import build_meta
from zoo.runtime.noise import BatchNoise
from zoo.session import Session
from zoo.shapes import HELD_OUT
from zoo.shapes.examples import Example, drawn_examples
from zoo.shapes.questions import DESCRIBE
from zoo.shapes.rendering import render_all
from zoo.shapes.vocabularies import task_vocabulary
from zoo.training.gradients import Gradients
from zoo.training.recipe import stages_of
from zoo.training.run import MAX_BUILT_IN_BYTES
from zoo.training.trainer import Trainer
from zoo_illume.config import DualViTokConfig
from zoo_illume.dualvitok import DualViTok
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import PICTURE, IllumeConfig
from zoo_illume.prompting import Prompts
from zoo_illume.recipe import (
    ANSWER,
    NOTHING,
    PROMPT_DROP,
    REBUILT,
    SHARES,
    SIZE,
    ShapesNamesRecipe,
    ShapesRecipe,
)

#: What both files may weigh together.
MOST_BYTES = 16 * 10**6


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


@pytest.fixture(scope="module")
def recipe(session: Session) -> ShapesRecipe:
    """With a fresh tokenizer of the card's sizes, whose weights need not be there."""
    _, variant = session.resolve("illume:shapes-tokenizer")
    torch.manual_seed(0)
    return ShapesRecipe(tokenizer=DualViTok(DualViTokConfig(**variant.config)))


@pytest.fixture(scope="module")
def batch(recipe: ShapesRecipe) -> dict[str, Tensor]:
    return recipe.batch(BatchNoise("batch"), 48)


def small_model(recipe: ShapesRecipe) -> IllumePlus:
    """The card's eyes and tokens with a narrow language model."""
    config = recipe.setting.config
    narrow = LanguageModelConfig(
        vocab_size=config.language_model.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = IllumePlus(replace(config, language_model=narrow))
    recipe.initialise(model, BatchNoise("initialise"))
    return model


# The cards


def test_the_cards_agree(session: Session, recipe: ShapesRecipe) -> None:
    card, variant = session.resolve("illume:shapes")
    _, tokenizer = session.resolve("illume:shapes-tokenizer")
    assert variant.components["image_tokenizer"].config == tokenizer.config
    assert variant.components["image_tokenizer"].architecture == tokenizer.architecture
    assert isinstance(session.recipe(card, variant), ShapesRecipe)
    config, sizes = recipe.setting.config, recipe.tokenizer.config
    assert sizes.semantic is not None and sizes.pixel is not None
    assert (config.vit, config.encoder) == (sizes.semantic.vit, sizes.pixel.encoder)
    assert config.tokens.codes == (sizes.semantic.quantiser.codes, sizes.pixel.quantiser.codes)
    assert config.grids(SIZE, SIZE) == recipe.tokenizer.grids(SIZE, SIZE)
    assert ShapesRecipe.held_out == HELD_OUT and variant.captions == "shapes"


def test_the_vocabulary_is_full_and_without_gaps(session: Session, recipe: ShapesRecipe) -> None:
    _, variant = session.resolve("illume:shapes")
    words, config = variant.components["text_tokenizer"].config["words"], recipe.setting.config
    assert tuple(words) == tuple(sorted({*task_vocabulary(), "draw", "edit"}))
    assert config.tokens.start_of_image == 2 + len(words), "controls, words, then the tokens of pictures"
    assert config.tokens.end == config.language_model.vocab_size
    assert recipe.setting.prompts.tokenizer.control("<|im_end|>") == config.tokens.end_of_text


def test_both_are_small_enough_to_ship(session: Session) -> None:
    weights = {}
    for name in ("illume:shapes", "illume:shapes-tokenizer"):
        card, variant = session.resolve(name)
        state = build_meta(session.architecture(card, variant), variant.config).state_dict()
        weights[name] = 2 * sum(tensor.numel() for tensor in state.values())
    assert max(weights.values()) < MAX_BUILT_IN_BYTES and sum(weights.values()) < MOST_BYTES


def test_the_samplers_are_those_of_the_tasks_that_are_trained(session: Session) -> None:
    card, variant = session.resolve("illume:shapes")
    session.use(card)
    tasks = {task for table in variant.samplers for task in session.sampler(str(table["name"]), "").tasks}
    assert tasks == set(SHARES)
    assert set(variant.tasks) == {"edit", "describe", "text"}


# Sequences


def row_of(batch: dict[str, Tensor], index: int) -> tuple[list[int], list[int]]:
    length = int(batch["lengths"][index])
    return batch["ids"][index, :length].tolist(), batch["targets"][index, :length].tolist()


def test_a_batch_is_a_function_of_noise(recipe: ShapesRecipe, batch: dict[str, Tensor]) -> None:
    again = recipe.batch(BatchNoise("batch"), 48)
    assert set(batch) == {"ids", "targets", "lengths", "given"}
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(recipe.batch(BatchNoise("other"), 48)["ids"][:, :8], batch["ids"][:, :8])


def examples_of(noise: BatchNoise, count: int = 48) -> list[Example]:
    """What a batch is made of, in its order."""
    return sorted(drawn_examples(noise, count, SHARES), key=lambda example: example.task)


def asked(prompts: Prompts, example: Example, drop: bool) -> list[int]:
    """The prompt that a sampler of the example's task would write."""
    if example.task == "text-to-image":
        return prompts.draw(None if drop else example.prompt, (SIZE, SIZE))
    if example.task == "image-editing":
        return prompts.edit(None if drop else example.prompt, (SIZE, SIZE))
    return prompts.ask(example.prompt) if example.task == "image-to-text" else prompts.write(example.prompt)


def test_sequences_hold_what_the_samplers_would_ask(recipe: ShapesRecipe, batch: dict[str, Tensor]) -> None:
    """Prompts are those of `Prompts`, with as many places for a picture as the model reads."""
    prompts, read = recipe.setting.prompts, recipe.setting.config.picture_tokens(SIZE, SIZE)
    examples = examples_of(BatchNoise("batch"))
    dropped = (BatchNoise("batch").uniform("drop", (48,)) < PROMPT_DROP).tolist()
    for index, (example, drop) in enumerate(zip(examples, dropped, strict=True)):
        ids = asked(prompts, example, drop)
        expected = [part for number in ids for part in ([PICTURE] * read if number == PICTURE else [number])]
        row, _ = row_of(batch, index)
        assert row[: len(expected)] == expected
        assert (PICTURE in row) == (example.given is not None)


@torch.no_grad()
def test_given_pictures_are_those_of_the_scenes_and_some_as_the_tokenizer_draws_them(
    recipe: ShapesRecipe, batch: dict[str, Tensor]
) -> None:
    rebuilt = (BatchNoise("batch").uniform("rebuilt", (48,)) < REBUILT).tolist()
    kinds: Counter[str] = Counter()
    for index, example in enumerate(examples_of(BatchNoise("batch"))):
        given = batch["given"][index]
        if example.given is None:
            assert not given.any()
            continue
        image = render_all([example.given], SIZE) * 2 - 1
        if rebuilt[index]:
            image = recipe.tokenizer(image).images.clamp(-1, 1)
        assert torch.allclose(given, image[0], atol=1e-4)
        kinds["rebuilt" if rebuilt[index] else "as they are"] += 1
    assert kinds["rebuilt"] >= 3 and kinds["as they are"] >= 10


def test_targets_are_what_follows_and_padding_teaches_nothing(batch: dict[str, Tensor]) -> None:
    for index, length in enumerate(batch["lengths"].tolist()):
        ids, targets = row_of(batch, index)
        for place, target in enumerate(targets[:-1]):
            assert target in (NOTHING, ids[place + 1])
        assert bool((batch["targets"][index, length:] == NOTHING).all())
        assert bool((batch["ids"][index, length:] == 0).all())


def test_answers_are_learnt_whole_and_pictures_where_they_can_choose(
    recipe: ShapesRecipe, batch: dict[str, Tensor]
) -> None:
    tokens, tokenizer = recipe.setting.config.tokens, recipe.setting.prompts.tokenizer
    examples = examples_of(BatchNoise("batch"))
    kinds = Counter(example.task for example in examples)
    assert set(kinds) == set(SHARES)
    for index, example in enumerate(examples):
        learnt = [target for target in row_of(batch, index)[1] if target != NOTHING]
        assert learnt[-1] == tokens.end_of_text
        if example.answer is not None:
            assert tokenizer.decode(learnt) == example.answer
            continue
        assert learnt[0] == tokens.start_of_image and len(learnt) == 2 + ANSWER
        first, second = (range(a, a + n) for a, n in zip(tokens.first_code, tokens.codes, strict=True))
        assert all(number in first for number in learnt[1:17])
        assert all(number in second for number in learnt[17:-1])


def test_a_sequence_decodes_to_the_picture_that_was_wanted(
    recipe: ShapesRecipe, batch: dict[str, Tensor]
) -> None:
    """The codes of an answer through the tokenizer are what the tokenizer makes of the scene's picture."""
    tokens, seen = recipe.setting.config.tokens, 0
    examples = examples_of(BatchNoise("batch"))
    dropped = (BatchNoise("batch").uniform("drop", (48,)) < PROMPT_DROP).tolist()
    for index, (example, drop) in enumerate(zip(examples, dropped, strict=True)):
        if example.wanted is None:
            continue
        scene = example.given if drop and example.task == "image-editing" else example.wanted
        assert scene is not None
        numbers = [target for target in row_of(batch, index)[1] if target != NOTHING][1:-1]
        grids = recipe.setting.config.grids(SIZE, SIZE)
        rows = torch.tensor(numbers).split([height * width for height, width in grids])
        semantic, pixel = (
            part.view(1, *grid) - first
            for part, grid, first in zip(rows, grids, tokens.first_code, strict=True)
        )
        images = render_all([scene], SIZE) * 2 - 1
        with torch.no_grad():
            assert torch.allclose(
                recipe.tokenizer.decode(semantic, pixel), recipe.tokenizer(images).images, atol=1e-4
            )
        seen += 1
    assert seen > 20


def test_a_picture_in_a_sequence_has_the_authors_order(
    recipe: ShapesRecipe, batch: dict[str, Tensor]
) -> None:
    tokens = recipe.setting.config.tokens
    index = next(
        index for index in range(48) if tokens.start_of_image in (ids := row_of(batch, index)[0]) and ids
    )
    ids = row_of(batch, index)[0]
    picture = ids[ids.index(tokens.start_of_image) :]
    assert len(picture) == recipe.setting.config.picture_tokens(SIZE, SIZE) == 98
    codes = [(first, first + count) for first, count in zip(tokens.first_code, tokens.codes, strict=True)]

    def name(number: int) -> str:
        for level, (first, end) in enumerate(codes):
            if first <= number < end:
                return str(level)
        known = {
            tokens.start_of_image: "(",
            tokens.end_of_image: ")",
            tokens.end_of_line: "/",
            **{number: "[" for number in tokens.start_of_level},
            **{number: "]" for number in tokens.end_of_level},
        }
        return known[number]

    assert "".join(map(name, picture)) == "([" + "0000/" * 4 + "][" + "11111111/" * 8 + "])"
    height, width = ids[ids.index(tokens.start_of_image) - 2 : ids.index(tokens.start_of_image)]
    assert (height, width) == tokens.size(SIZE, SIZE)


def test_a_tenth_of_the_prompts_is_dropped(recipe: ShapesRecipe) -> None:
    anything = recipe.setting.prompts.draw(None, (SIZE, SIZE))
    drawings = dropped = 0
    for step in range(5):
        noise = BatchNoise("train", 0, step)
        examples = examples_of(noise, 64)
        batch = recipe.batch(noise, 64)
        for index, example in enumerate(examples):
            if example.task == "text-to-image":
                drawings += 1
                dropped += row_of(batch, index)[0][: len(anything)] == anything
    assert dropped / drawings == pytest.approx(PROMPT_DROP, abs=0.06)


def test_the_second_stage_is_of_the_same_model_and_asks_more_of_single_objects(recipe: ShapesRecipe) -> None:
    first, second = stages_of(recipe)
    names = second.recipe
    assert isinstance(names, ShapesNamesRecipe) and first.recipe is recipe
    assert names.setting.config == recipe.setting.config and names.tokenizer is recipe.tokenizer
    assert set(names.shares) == set(recipe.shares) and sum(names.shares.values()) == pytest.approx(1.0)
    noise = BatchNoise("names")
    batch, examples = names.batch(noise, 200), drawn_examples(noise, 200, names.shares, described=0.25)
    examples.sort(key=lambda example: example.task)
    for index, example in enumerate(examples):
        if example.answer is not None:
            answer = recipe.setting.prompts.tokenizer.encode(example.answer)
            assert row_of(batch, index)[1][-1 - len(answer) : -1] == answer
    kinds = Counter(example.task for example in examples)
    assert kinds["image-editing"] / 200 == pytest.approx(0.45, abs=0.1)
    whole = sum(example.prompt == DESCRIBE for example in examples)
    assert whole / kinds["image-to-text"] == pytest.approx(0.25, abs=0.12)


# The loss


@torch.no_grad()
def test_the_loss_is_that_of_each_sequence_alone(recipe: ShapesRecipe) -> None:
    """Row by row, with prompts embedded as the samplers embed them."""
    model, batch, total = small_model(recipe), recipe.batch(BatchNoise("loss"), 10), 0.0
    assert len(set(batch["lengths"].tolist())) > 3
    for index in range(10):
        ids, targets = row_of(batch, index)
        read = recipe.setting.config.picture_tokens(SIZE, SIZE)
        pictures = []
        if PICTURE in ids:
            place = ids.index(PICTURE)
            ids = [*ids[: place + 1], *ids[place + read :]]
            pictures = [model.read(batch["given"][index : index + 1])[0]]
        logits = model(model.embed_prompt(torch.tensor(ids), pictures)[None])[0]
        told = torch.tensor(targets)
        total += float(F.cross_entropy(logits, told, ignore_index=NOTHING, reduction="sum")) / ANSWER
    assert float(recipe.loss(model, batch, BatchNoise("unused"))) == pytest.approx(total / 10, rel=1e-4)


def test_slices_of_a_batch_add_up_to_the_whole(recipe: ShapesRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # In float32: bfloat16 rounds the sums of slices in another order.
    monkeypatch.setattr(recipe, "budget", replace(recipe.budget, autocast=None))
    model, noise = small_model(recipe), BatchNoise("slices")
    gradients, batch = Gradients(recipe, model, torch.device("cpu")), recipe.batch(BatchNoise("slices"), 8)
    gradients.workers = 1
    whole = gradients.of(batch, noise)
    grads = [parameter.grad for parameter in gradients.parameters]
    gradients.workers = 2
    assert float(gradients.of(batch, noise)) == pytest.approx(float(whole), rel=1e-5)
    for parameter, before in zip(gradients.parameters, grads, strict=True):
        assert parameter.grad is not None and before is not None
        assert torch.allclose(parameter.grad, before, atol=1e-5, rtol=1e-3)


def test_everything_learns_but_the_tokenizer(recipe: ShapesRecipe, batch: dict[str, Tensor]) -> None:
    model = small_model(recipe)
    recipe.loss(model, batch, BatchNoise("unused")).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == []
    assert not any(parameter.requires_grad for parameter in recipe.tokenizer.parameters())
    assert not recipe.tokenizer.training


def test_a_few_steps_reduce_the_loss(recipe: ShapesRecipe) -> None:
    model = small_model(recipe)
    short = ShapesRecipe(tokenizer=recipe.tokenizer)
    short.budget = replace(recipe.budget, batch_size=8, steps=8, warmup_steps=0, learning_rate=3e-3)
    batch = short.batch(BatchNoise("never trained on"), 16)

    @torch.no_grad()
    def loss() -> float:
        return float(short.loss(model, batch, BatchNoise("unused")))

    before = loss()
    list(Trainer(short, model).run(until=8))
    assert loss() < 0.97 * before


# The start


def test_the_eyes_begin_as_those_of_the_tokenizer(recipe: ShapesRecipe) -> None:
    model, tokenizer = small_model(recipe), recipe.tokenizer
    assert tokenizer.semantic is not None and tokenizer.pixel is not None
    images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        features = model.features(images)
        assert torch.allclose(features.semantic, tokenizer.semantic.encoder.vit(images), atol=1e-5)
        encoded = tokenizer.pixel.encoder(images).flatten(2).transpose(1, 2)
        assert torch.allclose(features.pixel, encoded, atol=1e-5)
    first = next(model.vision.parameters())
    assert first is not next(tokenizer.semantic.encoder.vit.parameters()), "copies that may change"


def test_a_tokenizer_without_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    recipe = ShapesRecipe(tokenizer="illume:dualvitok")
    with pytest.raises(WeightsError) as caught:
        recipe.batch(BatchNoise("train"), 2)
    assert "illume:shapes is trained with the codes of illume:dualvitok, which cannot be loaded" in str(
        caught.value
    )
    assert caught.value.hint == "Train it first: zoo train illume:dualvitok; its card then names the weights."


def test_the_default_configuration_reads_from_the_card(recipe: ShapesRecipe) -> None:
    assert isinstance(recipe.setting.config, IllumeConfig)
    assert recipe.setting.config.sizes == ((SIZE, SIZE),)
