"""Terms that have to be accepted before the first byte, and the record of those that were.

    {"schema": 1,
     "accepted": [{"sha256": "...", "text": "...", "url": null, "reference": "...", "date": "..."}]}

Accepted is the text: it counts for every variant of the method that shows the same one, and a text that has
changed has to be accepted again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.cards import Card, Variant
from zoo.errors import LicenceError
from zoo.store.layout import licences_path
from zoo.store.locks import store_lock
from zoo.store.records import now, read_record, text, write_record

_KEY = "accepted"
_HOLDS = "the terms that were accepted"


@dataclass(frozen=True)
class Terms:
    """What the user of a variant is shown: the licence in words, and where its text is."""

    method: str
    variant: str
    text: str
    url: str | None

    @property
    def reference(self) -> str:
        """`method:variant`."""
        return f"{self.method}:{self.variant}"

    @property
    def sha256(self) -> str:
        """Digest of what is shown."""
        return hashlib.sha256(f"{self.text}\n{self.url or ''}".encode()).hexdigest()


@dataclass(frozen=True)
class Acceptance:
    """Terms that were accepted: their digest and words, for which reference, and when (UTC)."""

    sha256: str
    text: str
    url: str | None
    reference: str
    date: str


def terms_of(card: Card, variant: Variant) -> Terms | None:
    """The terms of a variant, None where none have to be accepted."""
    licence = variant.licence
    if licence is None or not licence.accept:
        return None
    return Terms(card.method, variant.name, licence.weights, licence.url)


def accepted(terms: Terms) -> Acceptance | None:
    """When and for what these terms were accepted; raises `ZooError` for a damaged record."""
    return _find(terms, _read())


def accept(terms: Terms) -> Acceptance:
    """Record that the terms are accepted; an earlier acceptance stays as it is."""
    with store_lock():
        known = _read()
        found = _find(terms, known)
        if found is None:
            found = Acceptance(terms.sha256, terms.text, terms.url, terms.reference, now())
            write_record(licences_path(), _KEY, [dataclasses.asdict(entry) for entry in (*known, found)])
    return found


def require(card: Card, variant: Variant, answer: bool | Callable[[Terms], bool]) -> Acceptance | None:
    """Make sure that the terms of a variant are accepted; None where there are none to accept.

    `answer` is the user's, or a function that asks for it; it is called only for terms that are new. Raises
    `LicenceError` when the answer is no.
    """
    terms = terms_of(card, variant)
    if terms is None:
        return None
    known = accepted(terms)
    if known is not None:
        return known
    if answer(terms) if callable(answer) else answer:
        return accept(terms)
    where = f" ({terms.url})" if terms.url else ""
    raise LicenceError(
        f"the licence of {terms.reference} has to be accepted first: {terms.text}{where}",
        f"zoo pull {terms.reference} --accept-licence",
    )


def _read() -> list[Acceptance]:
    return read_record(licences_path(), _KEY, _HOLDS, _parse) or []


def _parse(entries: Any) -> list[Acceptance]:
    if not isinstance(entries, list):
        raise TypeError(f"expected a list, got {entries!r}")
    return [_acceptance(entry) for entry in entries]


def _acceptance(entry: Mapping[str, Any]) -> Acceptance:
    return Acceptance(
        sha256=text(entry["sha256"]),
        text=text(entry["text"]),
        url=None if entry["url"] is None else text(entry["url"]),
        reference=text(entry["reference"]),
        date=text(entry["date"]),
    )


def _find(terms: Terms, known: list[Acceptance]) -> Acceptance | None:
    def same(entry: Acceptance) -> bool:
        return entry.sha256 == terms.sha256 and entry.reference.partition(":")[0] == terms.method

    return next(filter(same, known), None)
