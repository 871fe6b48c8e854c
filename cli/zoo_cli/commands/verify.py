"""`zoo verify`: read every file again and compare its digest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options

if TYPE_CHECKING:
    from zoo.catalogue import Catalogue
    from zoo.store.verifying import Check


@click.command(short_help="Check weights against their digests.")
@reference_argument("references", required=False, multiple=True)
@click.option("--repair", is_flag=True, help="Move damaged files aside and pull them again.")
@output_options
def command(references: tuple[str, ...], repair: bool, out: Output) -> int:
    """Read every file of the models and compare its sha256 digest with what it has to be.

    Without REF, of all models that are pulled or built in. A file is ok, unverified (as it was first pulled,
    but nobody publishes a digest), unknown (built in, without a digest), absent (of an optional component,
    and no source had it), damaged or missing; the exit code is 4 if one is damaged or missing. With --repair
    such files are pulled again, and the damaged ones are kept as .bad files, which zoo prune removes.

    \b
    Examples:
      zoo verify
      zoo verify tarflow:afhq256
      zoo verify tarflow:afhq256 --repair
    """
    from zoo.catalogue import load_catalogue

    catalogue = load_catalogue()
    try:
        checks = _verified(references or None, catalogue, out)
        if repair:
            checks = _repaired(checks, catalogue, out)
    finally:
        out.warnings(catalogue.warnings)
    failed = [check for check in checks if check.failed]
    out.result(
        [_row(check) for check in checks], lambda: _print(checks, out), quiet=[check.path for check in failed]
    )
    return _verdict(failed, out)


def _repaired(checks: Sequence[Check], catalogue: Catalogue, out: Output) -> list[Check]:
    """The checks, those of variants that could be repaired made anew."""
    from zoo.store.verifying import repair
    from zoo_cli.transfers import TransferView

    repaired: list[Check] = []
    for reference, group in itertools.groupby(checks, key=lambda check: check.reference):
        of_variant = list(group)
        broken = [check for check in of_variant if check.repairable]
        if broken:
            for check in broken:
                out.note(f"{check.reference} {check.role} is {check.status}: pulling it again")
            with TransferView(out, reference) as view:
                repair(reference, watcher=view)
            of_variant = _verified((reference,), catalogue, out)
        repaired += of_variant
    return repaired


def _verified(references: Sequence[str] | None, catalogue: Catalogue, out: Output) -> list[Check]:
    from zoo.store.verifying import verify

    with out.progress("verifying") as step:
        return verify(references, catalogue=catalogue, advanced=lambda done, total: step(done, total))


def _row(check: Check) -> dict[str, Any]:
    return {
        "reference": check.reference,
        "role": check.role,
        "original": check.original,
        "status": check.status,
        "size": check.size,
        "path": str(check.path),
        "expected": check.expected,
        "actual": check.actual,
        "problem": check.problem,
    }


def _print(checks: Sequence[Check], out: Output) -> None:
    from zoo.quantities import human_bytes

    if not checks:
        out.line("There is nothing to verify.")
        return
    rows = [
        (
            check.reference,
            f"{check.role} (original)" if check.original else check.role,
            check.status,
            "" if check.size is None else human_bytes(check.size),
        )
        for check in checks
    ]
    out.table(["reference", "role", "status", "size>"], rows)
    for check in checks:
        if check.failed:
            out.line()
            out.line(f"{check.reference} {check.role}: {check.path} is {check.status}")
            for label, value in (("expected", check.expected), ("got", check.actual)):
                if value:
                    out.line(f"  {label:<8} sha256 {value}")
            if check.problem:
                out.line(f"  {check.problem}")


def _verdict(failed: Sequence[Check], out: Output) -> int:
    from zoo.errors import ExitCode

    if not failed:
        return ExitCode.OK
    count = "1 file is" if len(failed) == 1 else f"{len(failed)} files are"
    ours = list(dict.fromkeys(check.reference for check in failed if check.repairable))
    hints = [f"zoo verify {' '.join(ours)} --repair"] if ours else []
    if any(check.built_in for check in failed):
        hints.append("Built-in files come with their package: pip install --force-reinstall zoo")
    out.error(f"{count} damaged or missing", "\n".join(hints))
    return ExitCode.CHECKSUM
