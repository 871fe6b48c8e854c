"""Reading texts of closed grammars, phrase by phrase."""

from __future__ import annotations

from collections.abc import Iterable


class PhraseReader:
    """Takes phrases off the front of a text, and knows what it could have taken where it is stuck.

    `refusal` is the class of the error, made from its message, and `what` says what the text should have
    been: "a caption".
    """

    def __init__(self, text: str, what: str, refusal: type[ValueError]) -> None:
        self.words = text.lower().split()
        self.at = 0
        self.expected: list[str] = []
        self._what, self._refusal = what, refusal

    def take(self, phrases: Iterable[str]) -> str | None:
        """The longest of the phrases that comes next, or None."""
        options = list(phrases)
        for phrase in sorted(options, key=len, reverse=True):
            words = phrase.split()
            if self.words[self.at : self.at + len(words)] == words:
                self.at += len(words)
                self.expected = []
                return phrase
        self.expected += options
        return None

    def need(self, phrases: Iterable[str]) -> str:
        """As `take`, but one of the phrases must come next."""
        found = self.take(phrases)
        if found is None:
            raise self.error()
        return found

    def finish(self) -> None:
        """Raise the error unless the whole text is read."""
        if self.at < len(self.words):
            raise self.error()

    def error(self) -> ValueError:
        """What stands here, and what could have."""
        read = " ".join(self.words[: self.at])
        found = repr(self.words[self.at]) if self.at < len(self.words) else "the end"
        where = f"after {read!r}" if read else "at the start"
        options = ", ".join(repr(option) for option in dict.fromkeys(self.expected)) or "the end"
        return self._refusal(f"not {self._what}: {where}, expected one of {options}, got {found}")
