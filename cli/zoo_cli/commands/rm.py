"""`zoo rm`: remove pulled models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options

if TYPE_CHECKING:
    from zoo.store.removal import Removal


@click.command(short_help="Remove pulled weights.")
@reference_argument("references", required=False, multiple=True)
@click.option("--all", "everything", is_flag=True, help="Remove every pulled model, after asking.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@output_options
def command(references: tuple[str, ...], everything: bool, yes: bool, dry_run: bool, out: Output) -> None:
    """Remove pulled models and the files that no other pulled model uses.

    A file that lay in the Hugging Face cache before zoo used it stays there. What is removed can be pulled
    again; the licences that were accepted are remembered.

    \b
    Examples:
      zoo rm tarflow:afhq256
      zoo rm tarflow:afhq256 --dry-run
      zoo rm --all --yes
    """
    from zoo.catalogue import load_catalogue
    from zoo.store.removal import remove

    _check_choice(references, everything)
    catalogue = load_catalogue()
    wanted = _all_pulled(ask=not (yes or dry_run)) if everything else references
    try:
        removal = remove(
            wanted,
            catalogue=catalogue,
            dry_run=dry_run,
            waiting=lambda: out.note("waiting for another process that works on one of them"),
        )
    finally:
        out.warnings(catalogue.warnings)
    out.warnings(removal.warnings)
    out.result(_document(removal, dry_run), lambda: _print(removal, dry_run, out), quiet=removal.removed)


def _check_choice(references: tuple[str, ...], everything: bool) -> None:
    if bool(references) == everything:
        from zoo.errors import InvalidInput

        problem = "either references or --all, not both" if everything else "references, or --all"
        raise InvalidInput(f"zoo rm takes {problem}", "zoo list --state pulled shows what is pulled.")


def _all_pulled(ask: bool) -> list[tuple[str, str]]:
    """Method and variant of every manifest, damaged ones included; none where the user does not want it."""
    from zoo.store.locate import is_pulled, pulled_here

    here = pulled_here()
    names = [manifest.reference for manifest in here.manifests]
    names += [entry.reference for entry in here.damaged if entry.reference is not None]
    pairs = [(method, variant) for method, _, variant in (name.partition(":") for name in sorted(names))]
    wanted = [pair for pair in pairs if is_pulled(*pair)]
    return wanted if not (wanted and ask) or _agreed(wanted) else []


def _agreed(wanted: list[tuple[str, str]]) -> bool:
    from zoo.errors import InvalidInput

    names = ", ".join(f"{method}:{variant}" for method, variant in wanted)
    if not sys.stdin.isatty():
        raise InvalidInput(f"--all would remove {names}", "Without a terminal to ask on, add --yes.")
    return click.confirm(f"Remove {names}?", err=True)


def _document(removal: Removal, dry_run: bool) -> dict[str, Any]:
    return {
        "removed": removal.removed,
        "freed": removal.freed,
        "kept": removal.kept,
        "dry_run": dry_run,
    }


def _print(removal: Removal, dry_run: bool, out: Output) -> None:
    from zoo.quantities import human_bytes

    if not removal.removed:
        out.line("nothing was removed")
        return
    for reference in removal.removed:
        out.line(f"{'would remove' if dry_run else 'removed'} {reference}")
    for kept in removal.kept:
        out.line(f"{'would keep' if dry_run else 'kept'} {kept.path}: {kept.reason}")
    out.line(f"{'would free' if dry_run else 'freed'} {human_bytes(removal.freed)}")
