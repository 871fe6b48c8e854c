"""`zoo list`: models and where their weights are."""

from __future__ import annotations

import fnmatch
from typing import Any

import click

from zoo_cli.arguments import complete_reference
from zoo_cli.output import Output, output_options

STATES = ("built-in", "pulled", "published", "unpublished")


@click.command(short_help="List models and where their weights are.")
@click.argument("pattern", required=False, shell_complete=complete_reference)
@click.option("--state", type=click.Choice(STATES), help="Only models in this state.")
@click.option("--task", metavar="TASK", help="Only models for this task, such as class-to-image.")
@output_options
def command(pattern: str | None, state: str | None, task: str | None, out: Output) -> None:
    """List models, their state, size and number of parameters.

    The size of a pulled model is what it takes on this machine; "unverified" means that nobody publishes a
    digest of its files.

    PATTERN is the beginning of a reference, or a pattern with * and ?. A star behind a reference marks the
    default variant of its method: what the bare name of the method means.

    States: built-in (ships with zoo), pulled (on this machine), published (to be downloaded), unpublished
    (nobody released the weights; the architecture can be inspected and trained).

    \b
    Examples:
      zoo list
      zoo list tarflow
      zoo list "*imagenet*" --state published
      zoo list --json
    """
    from zoo.catalogue import list_models, load_catalogue
    from zoo.describe import summary

    catalogue = load_catalogue()
    out.warnings(catalogue.warnings)
    rows = [summary(*model) for model in list_models(catalogue)]
    if task is not None:
        _check_task(task, rows)
    rows = [
        row
        for row in rows
        if (pattern is None or matches(row["reference"], pattern))
        and (state is None or row["state"] == state)
        and (task is None or task in row["tasks"])
    ]
    show_models(rows, out)
    _tell_pulled(rows, out)


def show_models(rows: list[dict[str, Any]], out: Output) -> None:
    """Show variants as `list` and `search` do."""

    def text() -> None:
        if not rows:
            out.hint("Nothing matches; zoo list shows every reference.")
            return
        out.table(["reference", "state", "size>", "params>", "summary"], [_cells(row) for row in rows])

    out.result(rows, text, quiet=[row["reference"] for row in rows])


def matches(reference: str, pattern: str) -> bool:
    """Whether a reference begins with `pattern`, or matches it where it holds a wildcard."""
    pattern = pattern.lower()
    if any(sign in pattern for sign in "*?["):
        return fnmatch.fnmatchcase(reference, pattern)
    return reference.startswith(pattern)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    from zoo.quantities import human_bytes, human_count

    size = "" if row["size"] is None else human_bytes(row["size"])
    params = "" if row["params"] is None else human_count(row["params"])
    mark = " *" if row["default"] else ""
    state = f"{row['state']} (unverified)" if row["verified"] is False else row["state"]
    return f"{row['reference']}{mark}", state, size, params, row["summary"]


def _tell_pulled(rows: list[dict[str, Any]], out: Output) -> None:
    """What all pulled models take together, and which of them cannot be used."""
    if not any(row["state"] == "pulled" for row in rows):
        return
    from zoo.quantities import human_bytes
    from zoo.store.layout import home
    from zoo.store.locate import pulled_here

    here = pulled_here()
    out.warnings(f"{entry.error.message}\n{entry.error.hint}" for entry in here.damaged)
    count = f"{len(here.manifests)} pulled model{'' if len(here.manifests) == 1 else 's'}"
    out.hint(f"{count}: {human_bytes(here.size)} on this machine. The store is {home()}")


def _check_task(task: str, rows: list[dict[str, Any]]) -> None:
    from zoo.errors import InvalidInput, did_you_mean

    known = sorted({name for row in rows for name in row["tasks"]})
    if task not in known:
        raise InvalidInput(
            f"no model is for the task '{task}'", did_you_mean(task, known) or f"Tasks: {', '.join(known)}"
        )
