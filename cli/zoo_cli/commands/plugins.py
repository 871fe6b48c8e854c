"""`zoo plugins`: which plugins are installed and whether they work."""

from __future__ import annotations

import click

from zoo_cli.output import Output, output_options


@click.command(short_help="List plugins and whether they work.")
@click.option("--check", is_flag=True, help="Exit with code 6 when a plugin fails.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that loading may take.",
)
@output_options
def command(check: bool, timeout: float, out: Output) -> None:
    """List plugins, where they come from, and whether they can be loaded.

    They are loaded in a process of their own, so one that crashes or never ends is only reported. A plugin is
    a Python package: installing and removing it is pip's work, such as pip install zoo-mymethod.

    \b
    Examples:
      zoo plugins
      zoo plugins --json
      zoo plugins --check -q
      ZOO_PLUGINS=tarflow zoo plugins
    """
    from zoo.plugincheck import check_plugins

    rows = check_plugins(timeout)
    columns = ["name", "distribution", "version", "status", "error"]
    cells = [[row[column] for column in columns] for row in rows]
    out.result(rows, lambda: out.table(columns, cells), quiet=[row["name"] for row in rows])
    failed = [str(row["name"]) for row in rows if row["status"] == "failed"]
    if check and failed:
        from zoo.errors import PluginError

        raise PluginError(f"{len(failed)} of {len(rows)} plugins failed: {', '.join(failed)}")
