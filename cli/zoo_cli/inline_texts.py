"""Texts on stdout: whole ones as they finish, or a single one while it is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoo_cli.output import ReaderLeft, clean
from zoo_cli.running import Counted, sampling_progress

if TYPE_CHECKING:
    from zoo.io.previews import Previews
    from zoo_cli.output import Output


def print_text(text: str) -> None:
    """Print a whole text, which ends with a line's end whether or not it has one."""
    shown = clean(text)
    # At once, so that a pipe can work on the first while the second is made.
    print(shown, end="" if shown.endswith("\n") else "\n", flush=True)


class TextsInOrder:
    """Prints texts in the order of their places, in whatever order they finish."""

    def __init__(self, places: Iterable[Hashable]) -> None:
        self._order = deque(places)
        self._waiting: dict[Hashable, str] = {}

    def finished(self, place: Hashable, text: str) -> None:
        """The text of a place is there: print it when all before it are printed."""
        self._waiting[place] = text
        while self._order and self._order[0] in self._waiting:
            print_text(self._waiting.pop(self._order.popleft()))

    def close(self) -> None:
        """Print what waits for texts that never came, as when a run is interrupted."""
        for place in filter(self._waiting.__contains__, self._order):
            print_text(self._waiting.pop(place))


class StreamedText(Counted):
    """Follows a run of one sample and prints its text piece by piece."""

    def __init__(self, previews: Previews | None = None) -> None:
        super().__init__(lambda done, total=None, text=None: None, 1, 1, previews)
        self._told = ""
        self._last = ""

    def text(self, row: int, piece: str) -> None:
        """The text goes on with `piece`."""
        self._told += piece
        self._print(piece)

    def complete(self, text: str) -> None:
        """Print what is still to be told of the whole text, and a line's end.

        Samplers may leave out space at the ends of what they told.
        """
        told = self._told if text.startswith(self._told) else self._told.lstrip()
        if text.startswith(told):
            self._print(text[len(told) :])
        elif told.rstrip() != text.rstrip():
            # What was told is not the text: the text is what counts.
            self.close()
            self._print(text)
        if not self._last:
            self._print("\n")
        self.close()

    def close(self) -> None:
        """End a line that was begun, as when a run is interrupted."""
        if self._last and not self._last.endswith("\n"):
            self._print("\n")

    def _print(self, piece: str) -> None:
        shown = clean(piece)
        if not shown:
            return
        try:
            print(shown, end="", flush=True)
        except BrokenPipeError as error:
            # The sampler is at work around us.
            raise ReaderLeft from error
        self._last = shown


@contextmanager
def text_progress(
    out: Output,
    text: str,
    total: int,
    batch_size: int,
    previews: Previews | None = None,
    *,
    streams: bool,
) -> Iterator[Counted]:
    """`sampling_progress`, or a `StreamedText` without a bar, which would tear the text, where it streams."""
    if not streams:
        with sampling_progress(out, text, total, batch_size, previews) as progress:
            yield progress
        return
    streamed = StreamedText(previews)
    try:
        yield streamed
    finally:
        streamed.close()
        if previews is not None:
            previews.close()


def streams(out: Output, printed: bool, total: int) -> bool:
    """Whether a text is shown while it is made: a single one, printed, and in words."""
    return printed and total == 1 and out.mode == "text"
