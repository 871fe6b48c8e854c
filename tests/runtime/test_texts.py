"""Texts that are read once: what is computed when, and what is kept."""

from __future__ import annotations

import pytest
import torch

from zoo.runtime import texts
from zoo.runtime.texts import EncodedTexts, RememberedTexts, TextEncoder


class Letters:
    """Encodes the letters of a text as numbers; keeps account of what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def encode(self, texts, most_tokens, most_characters=0):
        self.asked.append(tuple(texts))
        (text,) = texts
        kept = text[: most_characters or None][:most_tokens]
        features = torch.tensor([[[float(ord(letter))] for letter in kept]]).view(1, len(kept), 1)
        return EncodedTexts(features, torch.ones(1, len(kept)), torch.tensor([len(kept)]))


class Counted:
    """Makes encoders, one for each call, and counts them."""

    def __init__(self) -> None:
        self.made: list[Letters] = []

    def __call__(self) -> TextEncoder:
        self.made.append(Letters())
        return self.made[-1]

    @property
    def read(self) -> list[str]:
        return [text for encoder in self.made for asked in encoder.asked for text in asked]


def test_a_batch_is_padded_with_zeros_to_its_longest_text():
    encoded = RememberedTexts(Counted()).encode(["ab", "abc", "ab"], 10)
    a, b, c = (float(ord(letter)) for letter in "abc")
    assert encoded.features[..., 0].tolist() == [[a, b, 0.0], [a, b, c], [a, b, 0.0]]
    assert encoded.valid.tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    assert encoded.lengths.tolist() == [2, 3, 2]


def test_every_text_is_read_once_and_by_itself():
    make = Counted()
    remembered = RememberedTexts(make)
    remembered.encode(["a", "b", "a"], 10)
    remembered.encode(["b", "c"], 10)
    assert make.made[0].asked == [("a",), ("b",), ("c",)]


def test_how_a_text_is_cut_is_part_of_what_was_asked():
    make = Counted()
    remembered = RememberedTexts(make)
    assert remembered.encode(["abc"], 10).lengths.tolist() == [3]
    assert remembered.encode(["abc"], 2).lengths.tolist() == [2]
    assert remembered.encode(["abc"], 10, 1).lengths.tolist() == [1]
    assert make.read == ["abc"] * 3


def test_what_is_expected_is_read_with_the_first_new_text():
    make = Counted()
    remembered = RememberedTexts(make, keep=False)
    remembered.expect(["a", "b"])
    remembered.expect(["c"])
    assert not make.made, "nothing is loaded before it is needed"
    remembered.encode(["a"], 10)
    assert make.read == ["a", "b", "c"]
    remembered.encode(["c", "b"], 10)
    assert len(make.made) == 1
    remembered.encode(["d"], 10)
    assert (len(make.made), make.read) == (2, ["a", "b", "c", "d"])


@pytest.mark.parametrize("keep", [True, False])
def test_the_encoder_goes_when_it_was_told_to(keep):
    remembered = RememberedTexts(Counted(), keep)
    assert not remembered.loaded
    remembered.encode(["a"], 10)
    assert remembered.loaded is keep


def test_the_number_of_texts_that_are_kept_has_a_limit(monkeypatch):
    monkeypatch.setattr(texts, "MOST_TEXTS", 2)
    make = Counted()
    remembered = RememberedTexts(make)
    remembered.expect(str(number) for number in range(9))
    remembered.encode(["x"], 10)
    assert make.read == ["x", "0", "1"], "so many are read ahead"
    for number in range(9):
        # "x" is used in every batch, as an empty prompt is, and never goes.
        remembered.encode(["x", str(number)], 10)
    assert make.read.count("x") == 1
    remembered.encode(["0"], 10)
    assert make.read.count("0") == 2
    many = [str(number) for number in range(20)]
    assert remembered.encode(many, 10).lengths.tolist() == [len(text) for text in many]
