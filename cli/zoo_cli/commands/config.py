"""`zoo config`: the user's settings."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from zoo_cli.output import Output, output_options


def _complete_key(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from zoo.settings import KEYS

    return [CompletionItem(key, help=text) for key, text in KEYS.items() if key.startswith(incomplete)]


_key = click.argument("key", shell_complete=_complete_key)


@click.group(short_help="Show and change settings.")
def command() -> None:
    """Show and change settings: what holds where a command line says nothing.

    \b
    Examples:
      zoo config list
      zoo config set model tarflow:shapes
      zoo config get model
      zoo config unset model
    """


@command.command("list")
@output_options
def list_(out: Output) -> None:
    """List every setting, its value and what it means.

    \b
    Examples:
      zoo config list --json
    """
    from zoo.settings import KEYS, load_settings

    settings = load_settings()
    rows = [{"key": key, "value": settings.get(key), "meaning": text} for key, text in KEYS.items()]
    columns = ["key", "value", "meaning"]
    out.result(
        rows,
        lambda: out.table(columns, [[row[column] for column in columns] for row in rows]),
        quiet=[f"{key}={value}" for key, value in settings.values.items()],
    )


@command.command()
@_key
@output_options
def get(key: str, out: Output) -> None:
    """Print the value of one setting.

    \b
    Examples:
      zoo config get model
    """
    from zoo.errors import ZooError
    from zoo.settings import load_settings

    value = load_settings().get(key)
    if value is None:
        raise ZooError(f"'{key}' is not set", f"zoo config set {key} VALUE")
    out.result({"key": key, "value": value}, lambda: out.line(value), quiet=[value])


@command.command("set")
@_key
@click.argument("value")
@output_options
def set_(key: str, value: str, out: Output) -> None:
    """Set KEY to VALUE, which is checked first.

    \b
    Examples:
      zoo config set model tarflow:shapes
      zoo config set device cuda:1
    """
    from zoo.settings import checked_value, save_setting

    _saved(key, save_setting(key, checked_value(key, value)).get(key), out)


@command.command()
@_key
@output_options
def unset(key: str, out: Output) -> None:
    """Remove a setting, so that the default holds again.

    \b
    Examples:
      zoo config unset model
    """
    from zoo.settings import save_setting

    _saved(key, save_setting(key, None).get(key), out)


@command.command()
@output_options
def path(out: Output) -> None:
    """Print where the settings are kept.

    \b
    Examples:
      zoo config path
    """
    from zoo.settings import config_folder

    place = str(config_folder() / "config.toml")
    out.result({"path": place}, lambda: out.line(place), quiet=[place])


def _saved(key: str, value: str | None, out: Output) -> None:
    text = f"{key} is not set" if value is None else f"{key} = {value}"
    out.result({"key": key, "value": value}, lambda: out.line(text), quiet=[] if value is None else [value])
