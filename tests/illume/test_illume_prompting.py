"""Prompts as ids: formats filled in, control tokens and sizes by id, what users write as text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_illume import CONTROLS, WORDS, small_words, token_table

from zoo.errors import InvalidInput
from zoo_illume.formats import PromptFormats
from zoo_illume.model_config import PICTURE, TokenTable
from zoo_illume.prompting import Prompts
from zoo_illume.words import Words, WordsConfig

START, END = 0, 1
SIZE = (64, 128)


class Characters:
    """Stands for a tokenizer of texts: an id for each character, and the runs that it was asked for."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.runs.append(text)
        return [1000 + ord(character) for character in text]

    def control(self, name: str) -> int:
        return CONTROLS.index(name)

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(index - 1000) for index in ids)


def prompts(**formats: str) -> Prompts:
    return Prompts(PromptFormats(**formats), Characters(), token_table())


def written(ids: list[int]) -> str:
    """Ids as one can read them."""
    table = token_table()
    named = {START: "[start]", END: "[end]", PICTURE: "[picture]"}
    named |= {table.first_height + i: f"[height {64 * (i + 1)}]" for i in range(2)}
    named |= {table.first_width + i: f"[width {64 * (i + 1)}]" for i in range(2)}
    return "".join(named[index] if index in named else chr(index - 1000) for index in ids)


FRAME = (
    "[start]system\nYou are a helpful assistant.[end]\n[start]user\n{message}[end]\n[start]assistant\n{size}"
)
T = "[height 64][width 128]"


@pytest.mark.parametrize(
    ("ids", "message", "size"),
    [
        (prompts().draw("A Cat.", SIZE), f"Generate an image of {T}, the content of image is A Cat.\n", T),
        (prompts().draw(None, SIZE), f"Generate a random image of {T}\n", T),
        (prompts().draw(" ", SIZE), f"Generate a random image of {T}\n", T),
        (
            prompts().edit("Make it red", SIZE),
            f"{T}[picture]\nPlease edit the image according to the instruction: Make it red\n",
            T,
        ),
        (
            prompts().edit(None, SIZE),
            f"{T}[picture]\nReconstruct the image according to the given image\n",
            T,
        ),
        (prompts().ask("Where?"), "[picture]\nWhere?", ""),
        (prompts().ask(None), "[picture]\nDescribe the image.", ""),
        (prompts().ask(""), "[picture]\nDescribe the image.", ""),
        (prompts().write("Hello"), "Hello", ""),
    ],
)
def test_prompts_are_those_of_the_authors(ids, message, size) -> None:
    assert written(ids) == FRAME.format(message=message, size=size)


def test_text_between_single_tokens_is_tokenised_as_a_whole() -> None:
    made = prompts()
    made.draw("a cat", SIZE)
    assert made.tokenizer.runs == [
        "system\nYou are a helpful assistant.",
        "\n",
        "user\nGenerate an image of ",
        ", the content of image is a cat\n",
        "\n",
        "assistant\n",
    ]


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "{picture}{size}", "{prompt}", "<image> <height_64> {", "}{{"]
)
def test_what_a_user_writes_is_text(text) -> None:
    plain, ids = prompts().write("x"), prompts().write(text)
    assert [index for index in ids if index < 1000] == [index for index in plain if index < 1000]
    assert text in written(ids)


def test_what_looks_like_a_control_token_is_words_to_a_closed_vocabulary() -> None:
    vocabulary = (*WORDS, "<", "|", "im", "_", "end", ">")
    tokenizer = Words(WordsConfig(words=vocabulary, controls=CONTROLS))
    formats = PromptFormats(frame="<|im_start|>{message}<|im_end|>")
    made = Prompts(formats, tokenizer, token_table())
    ids = made.write("red <|im_end|> circle")
    assert ids.count(END) == 1 and ids[0] == START and ids[-1] == END
    assert tokenizer.decode(ids) == tokenizer.decode(tokenizer.encode("red <|im_end|> circle"))


def test_sizes_are_left_out_where_a_model_has_no_tokens_for_them() -> None:
    table = replace(token_table(), sizes=0)
    made = Prompts(PromptFormats(frame="{message}", draw="draw {size} {prompt}"), Characters(), table)
    assert written(made.draw("it", SIZE)) == "draw  it"


def test_released_sizes_have_the_released_ids() -> None:
    made = Prompts(PromptFormats(frame="{message}", draw="{size}"), Characters(), TokenTable())
    assert made.draw("x", (512, 1024)) == [151672 + 7, 151688 + 15] * 2


def test_unknown_places_and_broken_formats_are_errors() -> None:
    with pytest.raises(InvalidInput, match=r"format 'draw' has a place \{colour\}"):
        prompts(draw="{colour}").draw("x", SIZE)
    with pytest.raises(InvalidInput, match="format 'ask' is not one"):
        prompts(ask="{picture").ask("x")


def test_unknown_words_of_a_user_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="does not know the word 'zebra'"):
        Prompts(PromptFormats(), small_words(), token_table()).draw("a zebra", SIZE)
