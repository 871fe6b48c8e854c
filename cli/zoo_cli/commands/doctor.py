"""`zoo doctor`: check the installation."""

from __future__ import annotations

import dataclasses

import click

from zoo_cli.output import Output, output_options


@click.command(short_help="Check the installation.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that the plugins may take.",
)
@output_options
def command(timeout: float, out: Output) -> int:
    """Check Python, PyTorch, devices, disk, settings, cards, built-in weights and plugins.

    Every finding is ok, warn or fail; the exit code is 1 when something failed.

    \b
    Examples:
      zoo doctor
      zoo doctor --json
    """
    from zoo.diagnosis import diagnose

    findings = []
    for finding in diagnose(timeout):
        findings.append(finding)
        out.line(f"{finding.status:<5} {finding.text}")
        if finding.hint:
            out.line(f"      {finding.hint}")
    failed = [finding.text for finding in findings if finding.status == "fail"]
    out.result([dataclasses.asdict(finding) for finding in findings], lambda: None, quiet=failed)
    return 1 if failed else 0
