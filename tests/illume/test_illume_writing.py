"""Texts from a small model: answers about pictures and to texts, as they are made and as they end."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from small_illume import loaded_model, small_words, token_table
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.io.text import Text
from zoo.runtime.model import LoadedModel
from zoo_illume.formats import PromptFormats
from zoo_illume.preparing import to_read
from zoo_illume.prompting import Prompts
from zoo_illume.writing import in_texts

TABLE = token_table()
QUESTION = "what colour is the circle ?"
#: Of every random answer's tokens, at most.
MOST = 12


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded_model(tmp_path_factory.mktemp("weights"))


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]


PICTURES = [picture(64, 64, 0), picture(50, 90, 1), picture(130, 40, 2)]


def texts(loaded: LoadedModel, *prompts: str, on_step: Any = None, **request: Any) -> list[str]:
    options = {name: request.pop(name) for name in list(request) if name not in Request.__dataclass_fields__}
    options = {"max_tokens": MOST, **options}
    made = list(loaded.sample(Request(prompts=prompts, options=options, **request), on_step))
    assert all(isinstance(text, Text) for text in made)
    return [text.text for text in made]


def described(loaded: LoadedModel, *prompts: str, **request: Any) -> list[str]:
    return texts(loaded, *prompts, **{"images": {"image": PICTURES}, "task": "describe", **request})


# What is said


def test_answers_hold_words_and_nothing_of_pictures(loaded) -> None:
    config = loaded.model.config
    # Texts come first in the small vocabulary; behind the last token stand rows that are none.
    ids = torch.arange(config.language_model.vocab_size)
    assert torch.equal(in_texts(config), ids < TABLE.start_of_image)
    assert all(described(loaded, num=2, temperature=3.0, top_k=0))


@torch.no_grad()
def plain_loop(loaded: LoadedModel, ids: list[int], pictures: list[Tensor], most: int) -> str:
    """The likeliest answer: all that was said goes through the network anew for each token."""
    model, said = loaded.model, []
    prompt = model.embed_prompt(torch.tensor(ids), pictures)
    while len(said) < most and TABLE.end_of_text not in said:
        so_far = torch.cat([prompt, model.embed(torch.tensor(said, dtype=torch.int64))])
        logits = model.language_model(so_far[None])[0, -1]
        # Texts come first in the small vocabulary.
        said.append(int(logits[: TABLE.start_of_image].argmax()))
    return small_words().decode(said)


def test_greedy_answers_are_those_of_a_plain_loop_without_cache(loaded) -> None:
    prompts = Prompts(PromptFormats(), small_words(), TABLE)
    model = loaded.model
    seen = [model.read(to_read(given, model.config)[None])[0] for given in PICTURES]
    expected = [plain_loop(loaded, prompts.ask(QUESTION), [one], MOST) for one in seen]
    assert described(loaded, *[QUESTION] * 3, temperature=0) == expected
    (answer,) = texts(loaded, QUESTION, task="text", temperature=0)
    assert answer == plain_loop(loaded, prompts.write(QUESTION), [], MOST)


def test_an_answer_ends_where_the_model_ends_it_or_at_the_most_tokens(loaded) -> None:
    for most in (1, 3):
        for answer in texts(loaded, QUESTION, task="text", num=8, max_tokens=most, temperature=2.0, top_k=0):
            assert len(small_words().encode(answer)) <= most
    long = texts(loaded, QUESTION, task="text", num=8, max_tokens=400, temperature=2.0, top_k=0)
    # One token in forty ends the text.
    assert all(len(small_words().encode(answer)) < 400 for answer in long)
    assert max(len(small_words().encode(answer)) for answer in long) > 3


def test_without_a_question_the_usual_one_is_asked(loaded) -> None:
    assert described(loaded) == described(loaded, *["Describe the image."] * 3)
    assert described(loaded) != described(loaded, *[QUESTION] * 3)


def test_answers_depend_on_the_picture(loaded) -> None:
    assert len(set(described(loaded, seeds=[0, 0, 0]))) == 3


# Chance


def test_a_text_is_the_same_alone_and_in_a_batch(loaded) -> None:
    together = described(loaded, num=2, seed=3)
    assert together == described(loaded, num=2, seed=3, batch_size=1)
    assert together == described(loaded, num=2, seed=3, batch_size=4)
    assert together[0] != together[1]
    asked = ["make the circle red", QUESTION]
    assert texts(loaded, *asked, task="text", seed=3) == texts(
        loaded, *asked, task="text", seed=3, batch_size=1
    )


def test_a_temperature_of_zero_does_not_depend_on_the_seed(loaded) -> None:
    first, second = texts(loaded, QUESTION, task="text", num=2, temperature=0)
    assert first == second
    assert texts(loaded, QUESTION, task="text", top_k=1, seed=9) == [first]


def test_doubled_is_the_warps_applied_twice(loaded) -> None:
    common = {"task": "text", "num": 4, "top_k": 9}
    doubled = texts(loaded, QUESTION, temperature=1.5, doubled=True, **common)
    assert doubled == texts(loaded, QUESTION, temperature=1.5**2, **common)
    assert doubled != texts(loaded, QUESTION, temperature=1.5, **common)


# Watching


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.pieces: dict[int, list[str]] = defaultdict(list)

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None:
        assert preview is None
        self.steps.append((step, total))

    def text(self, row: int, piece: str) -> None:
        self.pieces[row].append(piece)


def test_texts_are_told_as_they_are_made(loaded) -> None:
    heard = Listener()
    answers = described(loaded, on_step=heard)
    assert ["".join(heard.pieces[row]) for row in range(3)] == answers
    assert max(len(pieces) for pieces in heard.pieces.values()) > 3
    assert answers == described(loaded)


def test_progress_counts_tokens_up_to_the_most(loaded) -> None:
    heard = Listener()
    described(loaded, on_step=heard)
    assert heard.steps[-1] == (MOST, MOST)
    assert [step for step, _ in heard.steps[:-1]] == list(range(1, len(heard.steps)))
    assert {total for _, total in heard.steps} == {MOST}


# Errors


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"size": (64, 64)}, "a text has no size"),
        ({"negatives": ["a circle"]}, "reads no negative prompt"),
        ({"images": {"image": torch.zeros(2, 4, 8, 8)}}, "stack of layers"),
        ({"images": {}}, "needs a picture"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"guidance": 2.0}, "has no option 'guidance'"),
    ],
)
def test_what_a_text_cannot_take_is_refused(loaded, request_, problem) -> None:
    with pytest.raises(InvalidInput, match=problem):
        described(loaded, **request_)


def test_a_text_that_looks_like_a_control_token_is_no_control_token(loaded) -> None:
    # The small vocabulary has no such words, and says so rather than read a control token.
    with pytest.raises(InvalidInput, match="does not know the words 'im', 'end'"):
        texts(loaded, "red <|im_end|> circle", task="text")


def test_a_picture_is_not_read_for_a_text(loaded) -> None:
    with pytest.raises(InvalidInput, match="reads no picture"):
        texts(loaded, QUESTION, task="text", images={"image": PICTURES[0]})
