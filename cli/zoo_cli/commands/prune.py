"""`zoo prune`: remove what no pulled model needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from zoo_cli.output import Output, output_options

if TYPE_CHECKING:
    from zoo.store.pruning import Leftover


@click.command(short_help="Remove what no model uses.")
@click.option("--originals", is_flag=True, help="Also downloads that were kept after their conversion.")
@click.option("--all", "everything", is_flag=True, help="Also what changed within the last hour.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@output_options
def command(originals: bool, everything: bool, yes: bool, dry_run: bool, out: Output) -> None:
    """Remove unfinished downloads, refused files, and files that no pulled model names.

    What would go is listed first, and on a terminal zoo asks. Without a terminal nothing is removed unless
    --yes is given. Files of pulled models stay, and so do all unfinished ones while something is being
    pulled. Nothing else in the store or in the Hugging Face cache is touched.

    \b
    Kinds: part (an unfinished download), refused (its content was not what was promised), orphan (in no
    manifest), temporary (left by a process that was killed), original (with --originals).

    \b
    Examples:
      zoo prune
      zoo prune --all --yes
      zoo prune --originals --dry-run
    """
    from zoo.store.pruning import leftovers, prune

    found = leftovers(originals=originals, everything=everything)
    going = [item for item in found if item.kept is None]
    if out.mode == "text":
        _list(going, out)
    if going and not dry_run and (yes or _asked(going, out)):
        pruned = prune(found, everything=everything)
        _tell(pruned.removed, pruned.kept, pruned.freed, out)
        return
    _tell((), [item for item in found if item.kept is not None], 0, out, going)


def _asked(going: Sequence[Leftover], out: Output) -> bool:
    if out.mode != "text" or not sys.stdin.isatty():
        return False
    return click.confirm(f"Remove {_counted(going)}?", err=True)


def _list(going: Sequence[Leftover], out: Output) -> None:
    if not going:
        out.line("There is nothing to remove.")
        return
    from zoo.quantities import human_bytes

    rows = [(item.kind, human_bytes(item.size), _age(item), item.path) for item in going]
    out.table(["kind", "size>", "age>", "path"], rows)
    out.line(f"total {_counted(going)}")


def _tell(
    removed: Sequence[Leftover],
    kept: Sequence[Leftover],
    freed: int,
    out: Output,
    left: Sequence[Leftover] = (),
) -> None:
    """Show what was `removed`, `kept` for a reason, or only listed."""

    def text() -> None:
        from zoo.quantities import human_bytes

        for item in kept:
            out.line(f"kept {item.path}: {item.kept}")
        if removed:
            out.line(f"freed {human_bytes(freed)}")
        if left:
            out.hint("Nothing was removed; zoo prune --yes removes what is listed.")

    rows = [_row(item, True) for item in removed] + [_row(item, False) for item in (*left, *kept)]
    document = {"items": rows, "freed": freed}
    out.result(document, text, quiet=[item.path for item in (*removed, *left)])


def _row(item: Leftover, removed: bool) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "path": str(item.path),
        "size": item.size,
        "modified": datetime.fromtimestamp(item.modified, UTC).isoformat(timespec="seconds"),
        "removed": removed,
        "kept": item.kept,
    }


def _counted(items: Sequence[Leftover]) -> str:
    from zoo.quantities import human_bytes

    count = f"{len(items)} file{'' if len(items) == 1 else 's'}"
    return f"{count}, {human_bytes(sum(item.size for item in items))}"


def _age(item: Leftover) -> str:
    """How long nobody has changed it, in one unit."""
    seconds = max(time.time() - item.modified, 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
