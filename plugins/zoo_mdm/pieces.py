"""Text to pieces: the segmentation of a text that costs least, over a table of pieces with scores.

Works on UTF-8 bytes. A piece costs minus its score; what no piece can spell is dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import InvalidInput

#: How a table writes the space that begins a word.
WORD_MARK = "\u2581"


@dataclass(slots=True)
class _Node:
    """A prefix of pieces: where each next byte leads, and the id of the piece that ends here."""

    following: dict[int, _Node] = field(default_factory=dict)
    piece: int = -1


@dataclass(frozen=True, slots=True)
class _Boundary:
    """A place where a piece may end: the least cost to get there, by which piece, from which place."""

    cost: float
    piece: int = -1
    before: _Boundary | None = None


class PieceTable:
    """Pieces by id, with the costs that a segmentation adds up."""

    def __init__(self, pieces: Iterable[tuple[str, float]]) -> None:
        """Pieces with their scores in the order of their ids, `WORD_MARK` for a space.

        Raises `ValueError` for a piece that is empty or there twice, or a score that is not finite.
        """
        self._ids: dict[str, int] = {}
        self._costs: list[float] = []
        self._root = _Node()
        for piece, score in pieces:
            self._add(piece.replace(WORD_MARK, " "), score)

    def _add(self, piece: str, score: float) -> None:
        if not piece or piece in self._ids:
            raise ValueError(f"piece {piece!r} is {'there twice' if piece else 'empty'}")
        if not math.isfinite(score):
            raise ValueError(f"piece {piece!r} has the score {score}, expected a finite number")
        node = self._root
        for byte in piece.encode():
            found = node.following.get(byte)
            if found is None:
                found = node.following[byte] = _Node()
            node = found
        node.piece = self._ids[piece] = len(self._costs)
        self._costs.append(-score)

    @classmethod
    def read(cls, path: Path) -> PieceTable:
        """The table of a file: lines "piece TAB score" in the order of ids, or a unigram tokenizer.json.

        Raises `InvalidInput` for anything else, with the number of the line.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path}: cannot be read as a table of pieces: {error}") from error
        pieces = _unigram_model(path, text) if text.lstrip().startswith("{") else _lines(path, text)
        try:
            return cls(pieces)
        except ValueError as error:
            raise InvalidInput(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self._costs)

    def id_of(self, piece: str) -> int:
        """The id of a piece, with a space where the table has its mark; raises `InvalidInput`."""
        if piece not in self._ids:
            raise InvalidInput(f"the table of pieces has no {piece!r}")
        return self._ids[piece]

    def segment(self, text: str) -> list[int]:
        """Ids of the pieces that spell a text and cost least together.

        Bytes that lead nowhere are dropped, together with those since the last piece that they follow. Of
        segmentations that cost the same, the one with the cheaper beginning is taken.
        """
        last = _Boundary(0.0)
        # Unfinished pieces, each with the place where it began.
        open_pieces = [(self._root, last)]
        for byte in text.encode("utf-8", "ignore"):
            unfinished = [
                (node.following[byte], start) for node, start in open_pieces if byte in node.following
            ]
            if not unfinished:
                open_pieces = [(self._root, last)]
                continue
            reached = self._cheapest(unfinished)
            open_pieces = [(node, start) for node, start in unfinished if node.following]
            if reached is not None:
                last = reached
                open_pieces.append((self._root, last))
        return _path(last)

    def _cheapest(self, arrived: list[tuple[_Node, _Boundary]]) -> _Boundary | None:
        """The best of the pieces that are complete here."""
        best: _Boundary | None = None
        least = (math.inf, math.inf)
        for node, start in arrived:
            if node.piece < 0:
                continue
            costs = (start.cost + self._costs[node.piece], start.cost)
            if costs < least:
                least, best = costs, _Boundary(costs[0], node.piece, start)
        return best


def _lines(path: Path, text: str) -> list[tuple[str, float]]:
    lines, pieces = text.split("\n"), []
    for number, line in enumerate(lines, 1):
        piece, tab, score = line.rstrip().partition("\t")
        if not line.strip() and number == len(lines):
            continue
        try:
            pieces.append((piece, float(score if tab else "")))
        except ValueError as error:
            raise InvalidInput(f"{path}: line {number} is not a piece, a tab and its score") from error
    return pieces


def _unigram_model(path: Path, text: str) -> list[tuple[str, float]]:
    try:
        model = json.loads(text)["model"]
        if model["type"] != "Unigram":
            raise InvalidInput(f"{path}: holds a model of type {model['type']!r}, expected 'Unigram'")
        # The table that the authors' models were trained with has five decimals.
        return [(str(piece), round(float(score), 5)) for piece, score in model["vocab"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidInput(f"{path}: is not the tokenizer.json of a unigram model: {reason}") from error


def _path(boundary: _Boundary) -> list[int]:
    ids = []
    while boundary.before is not None:
        ids.append(boundary.piece)
        boundary = boundary.before
    return ids[::-1]
