"""The text encoder of the shapes world: which word, at which place, and nothing else."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.runtime.texts import EncodedTexts, TextEncoder
from zoo.shapes import caption, sample_scene, vocabulary
from zoo.shapes.words import WordEncoder, WordsConfig

WORDS = vocabulary()
TEXTS = [
    "a red circle",
    "",
    "an orange ring left of a small blue square on a white background",
    "A red circle!",
]


def encoder(**config: object) -> WordEncoder:
    """Every token for itself, unless told otherwise."""
    return WordEncoder(WordsConfig(**{"words": WORDS, "before": 0, "after": 0, **config}))


def words_of(row: Tensor, length: int) -> list[str]:
    """A row of features read back, the beginning as an empty word."""
    return [["", *WORDS][int(number)] for number in row[:length, : 1 + len(WORDS)].argmax(dim=1)]


def assert_same(a: EncodedTexts, b: EncodedTexts) -> None:
    assert torch.equal(a.features, b.features)
    assert torch.equal(a.valid, b.valid)
    assert torch.equal(a.lengths, b.lengths)


def test_shapes_lengths_and_padding() -> None:
    encoded = encoder().encode(TEXTS)
    assert encoded.lengths.tolist() == [4, 1, 14, 4]
    assert encoded.lengths.dtype == torch.int64
    assert encoded.features.shape == (4, 14, 1 + 35 + 24)
    assert encoded.features.shape[2] == encoder().config.width
    assert encoded.valid.tolist() == [[1.0] * n + [0.0] * (14 - n) for n in (4, 1, 14, 4)]
    assert encoded.valid.is_floating_point()
    assert (encoded.features[encoded.valid == 0] == 0).all()


def test_every_token_is_one_word_at_one_place_with_a_mean_square_of_one() -> None:
    encoded = encoder().encode(TEXTS)
    tokens = encoded.features[encoded.valid == 1]
    assert torch.allclose(tokens.square().mean(dim=1), torch.ones(len(tokens)))
    assert (tokens.count_nonzero(dim=1) == 2).all()
    assert torch.allclose(tokens[tokens != 0], torch.tensor(30.0**0.5))
    places = [tokens[:, 1 + len(WORDS) :].argmax(dim=1).tolist()]
    assert places == [[place for n in (4, 1, 14, 4) for place in range(n)]]


def test_words_can_be_read_back() -> None:
    captions = [caption(sample_scene(seed), sizes=seed % 2 == 0) for seed in range(200)]
    encoded = encoder().encode(captions)
    for row, text, length in zip(encoded.features, captions, encoded.lengths.tolist(), strict=True):
        assert words_of(row, length) == ["", *text.split()]


def test_the_order_of_the_configuration_numbers_the_words() -> None:
    small = WordEncoder(WordsConfig(words=["circle", "a", "red"], tokens=4, before=0, after=0))
    features = small.encode(["a red circle"]).features[0]
    expected = torch.zeros(4, 8)
    for place, number in enumerate([0, 2, 3, 1]):
        expected[place, number] = expected[place, 4 + place] = 2.0
    assert torch.equal(features, expected)


def test_a_token_carries_the_words_around_it() -> None:
    config = WordsConfig(words=WORDS, before=2, after=1)
    assert config.offsets == (-1, -2, 1)
    assert config.width == 4 * 36 + 24 == WordEncoder(config).places.shape[0] + 4 * 36
    (row,) = WordEncoder(config).encode(["a red circle"]).features
    own, around = row[:, :36], [row[:, 60 + 36 * index : 96 + 36 * index] for index in range(3)]

    def read(part: Tensor) -> list[str | None]:
        names = ["", *WORDS]
        return [names[int(token.argmax())] if token.any() else None for token in part]

    assert read(own) == ["", "a", "red", "circle"]
    assert read(around[0]) == [None, "", "a", "red"]
    assert read(around[1]) == [None, None, "", "a"]
    assert read(around[2]) == ["a", "red", "circle", None]
    scale = (config.width / 5) ** 0.5
    assert torch.allclose(row[row != 0], torch.tensor(scale))


def test_the_words_around_end_with_the_text_and_in_the_middle_the_mean_square_is_one() -> None:
    usual = WordEncoder(WordsConfig(words=WORDS))
    assert usual.config.offsets == (-1, -2, -3, -4, -5, 1, 2)
    encoded = usual.encode(TEXTS)
    assert (encoded.features[encoded.valid == 0] == 0).all()
    said = encoded.features[2].count_nonzero(dim=1).tolist()
    assert said == [4, 5, 6, 7, 8, *[9] * 7, 8, 7]
    assert torch.allclose(encoded.features[2, 5:12].square().mean(dim=1), torch.ones(7))
    alone = usual.encode(TEXTS[:1])
    assert torch.equal(alone.features[0], encoded.features[0, :4])


def test_prompts_are_read_as_the_caption_that_they_mean() -> None:
    meant = encoder().encode(["an orange ring on a gray background"])
    assert_same(encoder().encode(["The ORANGE ring, on grey."]), meant)


def test_the_empty_text_is_its_beginning_alone() -> None:
    encoded = encoder().encode([""])
    assert encoded.features.shape == (1, 1, 60)
    assert encoded.features[0, 0].nonzero().flatten().tolist() == [0, 36]
    assert_same(encoded, encoder().encode([" . "]))


def test_no_texts_are_no_rows() -> None:
    encoded = encoder().encode([])
    assert encoded.features.shape == (0, 0, 60)
    assert encoded.valid.shape == (0, 0)
    assert encoded.lengths.tolist() == [] and encoded.lengths.dtype == torch.int64


def test_a_row_does_not_depend_on_the_others() -> None:
    together = encoder().encode(TEXTS)
    order = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    shuffled = encoder().encode([TEXTS[index] for index in order])
    assert torch.equal(shuffled.features, together.features[order])
    for row, text in enumerate(TEXTS):
        alone, length = encoder().encode([text]), int(together.lengths[row])
        assert torch.equal(alone.features[0], together.features[row, :length])
        assert int(alone.lengths[0]) == length


def test_the_longest_caption_fits() -> None:
    longest = "a small red circle left of a large blue ring right of a small pink cross on a white background"
    encoded = encoder().encode([longest])
    assert int(encoded.lengths[0]) == 1 + len(longest.split()) <= WordsConfig(words=WORDS).tokens == 24
    seen = [caption(sample_scene(seed)) for seed in range(2000)]
    assert max(len(text.split()) for text in seen) == len(longest.split())


def test_texts_are_cut_to_most_tokens() -> None:
    whole, cut = encoder().encode(TEXTS), encoder().encode(TEXTS, 3)
    assert cut.lengths.tolist() == [3, 1, 3, 3]
    assert torch.equal(cut.features, whole.features[:, :3])
    assert_same(encoder().encode(TEXTS, 100), whole)
    assert encoder(tokens=5).encode(TEXTS).lengths.tolist() == [4, 1, 5, 4]


def test_texts_are_cut_to_most_characters_before_they_are_read() -> None:
    text = "a red circle on a white background"
    assert_same(encoder().encode([text], 0, len("a red circle")), encoder().encode(["a red circle"]))
    with pytest.raises(InvalidInput, match="'whi'"):
        encoder().encode([text], 0, len("a red circle on a whi"))


@pytest.mark.parametrize("texts", [["a red circle", "a hexagon"], ["a red circle and a ring"], ["circle"]])
def test_what_is_no_caption_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        encoder().encode(texts)
    assert caught.value.hint


def test_words_outside_a_smaller_vocabulary_are_refused() -> None:
    small = WordEncoder(WordsConfig(words=["a", "red", "circle"], tokens=4))
    assert small.encode(["Red circle"]).lengths.tolist() == [4]
    with pytest.raises(InvalidInput) as caught:
        small.encode(["a red circle", "a large red ring on a gray background"])
    assert caught.value.message == (
        "this model does not know the words 'large', 'ring', 'on', 'gray', 'background'"
    )
    assert "It knows: a, red, circle." in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_number_format_is_that_of_the_module(dtype: torch.dtype) -> None:
    encoded, usual = encoder().to(dtype).encode(TEXTS), encoder().encode(TEXTS)
    assert encoded.features.dtype == encoded.valid.dtype == dtype
    assert torch.allclose(encoded.features.float(), usual.features, rtol=4e-3)
    assert torch.equal(encoded.lengths, usual.lengths)


def test_there_is_nothing_to_learn_or_to_store() -> None:
    module = encoder()
    assert not list(module.parameters())
    assert not module.state_dict()
    assert isinstance(module, TextEncoder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"words": ["a", "red", "a"]}, "words holds one of them twice"),
        ({"words": ["a"], "tokens": 0}, r"tokens \(0\) must be at least 1"),
        ({"words": ["a"], "before": -1}, r"before \(-1\) must not be negative"),
        ({"words": ["a"], "after": -2}, r"after \(-2\) must not be negative"),
    ],
)
def test_configurations_that_make_no_encoder(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordsConfig(**config)


def test_a_reader_of_parts_reads_a_background_alone() -> None:
    usual, parts = encoder(), encoder(parts=True)
    assert parts.config.width == usual.config.width
    encoded = parts.encode(["on plain black", *TEXTS])
    assert words_of(encoded.features[0], int(encoded.lengths[0])) == ["", "a", "black", "background"]
    assert torch.equal(encoded.features[1:], usual.encode(TEXTS).features)
    with pytest.raises(InvalidInput, match="not a caption"):
        usual.encode(["on plain black"])
    with pytest.raises(InvalidInput, match="'hexagon'"):
        parts.encode(["a hexagon"])
