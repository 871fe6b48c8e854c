"""`zoo search`: find models by words of their cards."""

from __future__ import annotations

import click

from zoo_cli.output import Output, output_options


@click.command(short_help="Search the cards by words.")
@click.argument("words", nargs=-1, required=True)
@output_options
def command(words: tuple[str, ...], out: Output) -> None:
    """Search methods, titles, summaries, tasks, tags, papers, variants and classes; all WORDS must occur.

    Nothing is looked up online. A method that matches as a whole is answered by its default variant.

    \b
    Examples:
      zoo search flow
      zoo search imagenet unconditional
      zoo search cat --json
    """
    from zoo.catalogue import load_catalogue, state_of
    from zoo.describe import summary
    from zoo.search import search
    from zoo_cli.commands.list import show_models

    catalogue = load_catalogue()
    out.warnings(catalogue.warnings)
    found = search(catalogue, words)
    show_models([summary(card, variant, state_of(card, variant)) for card, variant in found], out)
