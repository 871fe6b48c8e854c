"""Searching the cards by words, offline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.cards import Card, Variant
from zoo.catalogue import Catalogue

#: A field of a card and what a hit in it counts.
Field = tuple[str, int]


def search(catalogue: Catalogue, words: Sequence[str]) -> list[tuple[Card, Variant]]:
    """Variants whose card holds all `words` (parts of words count, case does not), best first.

    A method that matches by what it says of itself alone is answered by its default variant; otherwise by
    those variants that hold at least one of the words themselves.
    """
    folded = [word.casefold() for text in words for word in text.split()]
    found = [(*match, card) for card in catalogue.cards.values() for match in _matches(card, folded)]
    found.sort(key=lambda match: (-match[0], -match[1], match[3].method, match[2].name))
    return [(card, variant) for _, _, variant, card in found]


def _matches(card: Card, words: Sequence[str]) -> list[tuple[int, int, Variant]]:
    """Variants that match, each with how many words it holds itself and its score."""
    of_card = [_score(word, _card_fields(card)) for word in words]
    matches = []
    for variant in card.variants.values():
        of_variant = [_score(word, _variant_fields(variant)) for word in words]
        if any(of_variant) and all(a or b for a, b in zip(of_card, of_variant, strict=True)):
            own = sum(1 for score in of_variant if score)
            matches.append((own, sum(of_card) + sum(of_variant), variant))
    if not matches and words and all(of_card):
        matches.append((0, sum(of_card), card.variants[card.default]))
    return matches


def _score(word: str, fields: Iterable[Field]) -> int:
    """The best hit of a word: a whole field counts three times, the beginning of one twice."""
    best = 0
    for text, weight in fields:
        folded = text.casefold()
        if word in folded:
            best = max(best, weight * (3 if folded == word else 2 if folded.startswith(word) else 1))
    return best


def _card_fields(card: Card) -> list[Field]:
    fields = [(card.method, 10), (card.title, 8), (card.summary, 4)]
    fields += [(text, 5) for text in (*card.tasks, *card.tags)]
    return fields + ([(card.paper.title, 3)] if card.paper else [])


def _variant_fields(variant: Variant) -> list[Field]:
    fields = [(name, 9) for name in (variant.name, *variant.aliases)]
    return [*fields, (variant.summary, 4), *((name, 3) for name in variant.classes)]
