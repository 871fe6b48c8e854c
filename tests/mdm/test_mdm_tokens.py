"""Texts to token ids: the cheapest segmentation, what is dropped, padding and limits."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
from small_mdm import piece_table

from zoo.errors import InvalidInput
from zoo_mdm.pieces import PieceTable
from zoo_mdm.tokens import tokenise


def table(**scores: float) -> PieceTable:
    return PieceTable((piece.replace("_", "\u2581"), score) for piece, score in scores.items())


def spelled(pieces: PieceTable, names: str, text: str) -> list[str]:
    return [names.split()[index] for index in pieces.segment(text)]


def test_the_cheapest_segmentation_is_not_the_greedy_one() -> None:
    pieces = table(ab=-1, abc=-5, c=-1, cd=-1, d=-9)
    assert spelled(pieces, "ab abc c cd d", "abcd") == ["ab", "cd"]


def test_every_segmentation_is_considered() -> None:
    draw = random.Random(0)
    words = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("ab", repeat=n)]
    costs = {word: draw.uniform(1, 10) for word in words}
    pieces = PieceTable((word, -cost) for word, cost in costs.items())
    for _ in range(30):
        text = "".join(draw.choices("ab", k=8))
        cuts = itertools.product([0, 1], repeat=7)
        least = min(
            sum(costs.get(part, 1e9) for part in _parts(text, marks))
            for marks in cuts
            if all(len(part) <= 3 for part in _parts(text, marks))
        )
        found = [words[index] for index in pieces.segment(text)]
        assert "".join(found) == text
        assert sum(costs[word] for word in found) == pytest.approx(least)


def _parts(text: str, marks: tuple[int, ...]) -> list[str]:
    parts = [text[0]]
    for mark, letter in zip(marks, text[1:], strict=True):
        if mark:
            parts.append(letter)
        else:
            parts[-1] += letter
    return parts


def test_of_equal_segmentations_the_one_with_the_cheaper_beginning_is_taken() -> None:
    pieces = table(a=-1, aa=-1.5)
    assert spelled(pieces, "a aa", "aaa") == ["a", "aa"]


def test_a_mark_is_a_space_and_only_a_space_is() -> None:
    pieces = table(_=-1, a=-1, _a=-1)
    assert spelled(pieces, "_ a _a", " a  a") == ["_a", "_", "_a"]
    assert spelled(pieces, "_ a _a", "\u2581a") == ["a"]


@pytest.mark.parametrize("text", ["a{b", "a\n\t{}b", "a\u65e5\u672cb", "{ab", "ab\U0001f600", "a\udc80b"])
def test_unknown_characters_are_dropped(text: str) -> None:
    assert spelled(table(a=-1, b=-1), "a b", text) == ["a", "b"]


def test_what_follows_the_beginning_of_a_piece_that_does_not_come_is_dropped_with_it() -> None:
    pieces = PieceTable([("<x>", 0.0), ("a", -1.0), ("x", -1.0)])
    assert pieces.segment("a<x>a") == [1, 0, 1]
    assert pieces.segment("a<xaa") == [1, 1]
    assert pieces.segment("a<x") == [1]
    assert pieces.segment("a<<x>") == [1, 2]


def test_a_shared_first_byte_is_not_a_character() -> None:
    # Both letters begin with the same byte in UTF-8.
    pieces = table(a=-1, **{"\u00e9": -1.0})
    assert spelled(pieces, "a \u00e9", "a\u00eaa\u00e9") == ["a", "a", "\u00e9"]


def test_an_empty_text_is_a_space_and_an_end() -> None:
    batch = tokenise(["", " a"], piece_table())
    assert batch.ids.tolist() == [[2, 1, 0], [2, 3, 1]]
    assert batch.valid.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.lengths.tolist() == [2, 3]


def test_texts_are_padded_to_the_longest() -> None:
    batch = tokenise(["a red circle", "blue"], piece_table())
    assert batch.ids.tolist() == [[3, 4, 6, 1], [5, 1, 0, 0]]
    assert batch.ids.dtype == torch.int64


def test_a_long_text_loses_its_end() -> None:
    batch = tokenise(["a red circle", "blue"], piece_table(), most_tokens=3)
    assert batch.ids.tolist() == [[3, 4, 6], [5, 1, 0]]
    assert batch.lengths.tolist() == [3, 2]


def test_characters_are_cut_before_the_space_is_put_in_front() -> None:
    assert tokenise(["a red circle"], piece_table(), most_characters=5).ids.tolist() == [[3, 4, 1]]


def test_a_text_that_spells_the_padding_is_not_valid_there_and_counts() -> None:
    batch = tokenise(["a<pad> red"], piece_table())
    assert batch.ids.tolist() == [[3, 0, 4, 1]]
    assert batch.valid.tolist() == [[1, 0, 1, 1]]
    assert batch.lengths.tolist() == [4]


def test_no_texts_are_an_empty_batch() -> None:
    assert tokenise([], piece_table()).ids.shape == (0, 0)


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pieces.vocab"
    path.write_text("<pad>\t0\n</s>\t0\n\u2581a\t-1.5\n", encoding="utf-8")
    pieces = PieceTable.read(path)
    assert len(pieces) == 3
    assert pieces.segment(" a") == [2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\t-1\nb\n", "line 2 is not a piece, a tab and its score"),
        (b"a\tmany\n", "line 1 is not a piece, a tab and its score"),
        (b"a\t-1\na\t-2\n", "piece 'a' is there twice"),
        (b"a\tnan\n", "piece 'a' has the score nan"),
        (b"\t-1\n", "piece '' is empty"),
        (b"\xff\t-1\n", "cannot be read as a table of pieces"),
    ],
)
def test_a_damaged_table_says_where(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "pieces.vocab"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        PieceTable.read(path)
    assert str(path) in caught.value.message and words in caught.value.message


def test_a_table_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"has no '</s>'"):
        tokenise(["a"], table(a=-1))
