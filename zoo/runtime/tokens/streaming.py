"""Text as it is made: tokens in, pieces of text out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: What a decoder puts in the place of bytes that are no whole character (yet).
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Hands text on as soon as it cannot change any more.

    decode: the text of some tokens; that of two runs, one after the other, is their joint text wherever the
        first ends with a line.
    write: gets the pieces; together they are the text of all tokens.

    Tokens may hold parts of characters: a piece that ends in half a character waits for the next tokens. Text
    is decoded from the last line on only, so a long answer does not take longer per token.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], write: Callable[[str], None]) -> None:
        self._decode, self._write = decode, write
        self._pending: list[int] = []
        self._written = 0

    def push(self, token: int) -> None:
        """The next token."""
        self._pending.append(token)
        text = self._decode(self._pending)
        if text.endswith(REPLACEMENT):
            return
        self._hand_on(text)
        if text.endswith("\n"):
            self._pending, self._written = [], 0

    def finish(self) -> None:
        """Hand on what still waits."""
        if self._pending:
            self._hand_on(self._decode(self._pending))
        self._pending, self._written = [], 0

    def _hand_on(self, text: str) -> None:
        piece = text[self._written :]
        if piece:
            self._write(piece)
        self._written = max(self._written, len(text))
