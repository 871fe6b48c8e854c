"""Arguments that several verbs share: references, with completion from the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from zoo.errors import ZooError

Function = TypeVar("Function", bound=Callable[..., Any])


def complete_reference(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """References that begin with what was typed; a bare method first, then its variants."""
    from zoo.catalogue import load_catalogue

    try:
        cards = load_catalogue().cards
    except ZooError:
        # Completion has no place for an error; the command itself reports it.
        return []
    items: list[tuple[str, str]] = []
    for method, card in sorted(cards.items()):
        items.append((method, card.summary))
        items += [(f"{method}:{name}", variant.summary) for name, variant in card.variants.items()]
    return [CompletionItem(text, help=help) for text, help in items if text.startswith(incomplete.lower())]


def reference_argument(
    name: str = "reference", *, required: bool = True, multiple: bool = False
) -> Callable[[Function], Function]:
    """The REF argument, method[:variant][@revision]: a text, None when left out, a tuple when `multiple`."""
    return click.argument(
        name,
        metavar=f"[REF]{'...' if multiple else ''}" if not required else f"REF{'...' if multiple else ''}",
        required=required,
        nargs=-1 if multiple else 1,
        shell_complete=complete_reference,
    )


def reference_option(
    *declarations: str, help: str = "A reference, method[:variant][@revision].", **options: Any
) -> Callable[[Function], Function]:
    """An option whose value is a reference, such as `--model REF`."""
    return click.option(*declarations, metavar="REF", help=help, shell_complete=complete_reference, **options)
