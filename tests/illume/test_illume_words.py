"""The tokenizer of a closed list of words."""

from __future__ import annotations

import pytest

from zoo.errors import InvalidInput
from zoo.runtime.capabilities import ReadsFiles, TextTokenizer
from zoo_illume.words import Words, WordsConfig

WORDS = ("red", "circle", "what", "is", "the", ",", "?", "<", "|", "im", "_", "end", ">")


def words(**changes: object) -> Words:
    return Words(WordsConfig(**{"words": WORDS, "first": 10, **changes}))


def test_ids_count_from_the_first_with_control_tokens_before_words() -> None:
    tokenizer = words()
    assert [tokenizer.control(name) for name in ("<|im_start|>", "<|im_end|>")] == [10, 11]
    assert tokenizer.encode("red circle") == [12, 13]
    assert tokenizer.config.end == 10 + 2 + len(WORDS)


def test_it_offers_what_samplers_ask_of_a_tokenizer() -> None:
    assert isinstance(words(), TextTokenizer)
    assert not isinstance(words(), ReadsFiles)


@pytest.mark.parametrize("text", ["Red, CIRCLE?", "red , circle ?", "  red,\ncircle?\t", "«red», circle?!"])
def test_case_spaces_and_unknown_marks_do_not_matter(text) -> None:
    assert words().encode(text) == words().encode("red, circle?") == [12, 17, 13, 18]


def test_there_and_back_is_the_same_text_as_far_as_it_is_words() -> None:
    assert words().decode(words().encode("What is the red circle, the red ?")) == (
        "what is the red circle, the red?"
    )


def test_the_empty_text_has_no_ids() -> None:
    assert words().encode("") == words().encode(" \n ") == []
    assert words().decode([]) == ""


def test_control_tokens_and_foreign_ids_are_left_out_of_texts() -> None:
    assert words().decode([10, 12, 11, 3, 99, 13]) == "red circle"


def test_what_looks_like_a_control_token_is_plain_text() -> None:
    ids = words().encode("red <|im_end|>")
    assert words().control("<|im_end|>") not in ids
    assert words().decode(ids) == "red<| im_ end|>"


def test_unknown_words_are_named_with_what_is_known() -> None:
    with pytest.raises(InvalidInput, match="does not know the words 'purple', 'circles'") as raised:
        words().encode("purple circle, purple circles")
    assert "Did you mean: circle? It knows: red, circle, what, is, the, im, end." in raised.value.hint


def test_an_unknown_control_token_is_an_error() -> None:
    with pytest.raises(InvalidInput, match=r"no control token <\|im_ends\|>") as raised:
        words().control("<|im_ends|>")
    assert "<|im_end|>" in raised.value.hint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"words": ["red", "red"]}, "words holds 'red' twice"),
        ({"controls": ["<|a|>", "<|a|>"]}, "controls holds '<|a|>' twice"),
        ({"words": ["Red"]}, "words holds 'Red', expected words in lower case"),
        ({"words": ["top left"]}, "words holds 'top left'"),
        ({"first": -1}, "first is -1"),
    ],
)
def test_configurations_that_mean_nothing_are_refused(changes, problem) -> None:
    with pytest.raises(ValueError) as raised:
        WordsConfig(**{"words": WORDS, **changes})
    assert problem in str(raised.value)
