"""The entry point: a click group that imports only the verb that runs, and the one place where errors end."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import click

from zoo.errors import ExitCode, PluginError, ZooError, did_you_mean
from zoo.version import __version__

COMMANDS_GROUP = "zoo.commands"

#: Verb -> one line of help. The module of verb `x` is `zoo_cli.commands.x`.
VERBS = {
    "list": "List models and where their weights are.",
    "show": "Show everything a card says about a model.",
    "search": "Search the cards by words.",
    "sample": "Draw samples from a model.",
    "replay": "Repeat a sample from the metadata in its file.",
    "train": "Train a built-in variant by its recipe.",
    "eval": "Score a model of the shapes world.",
    "bench": "Measure loading, sampling speed and memory.",
    "convert": "Convert a checkpoint to safetensors, or back.",
    "plugins": "List plugins and whether they work.",
    "doctor": "Check the installation.",
    "config": "Show and change settings.",
    "completion": "Print the shell completion script.",
}

ALIASES = {"ls": "list"}


class LazyGroup(click.Group):
    """Knows every verb's name and help without importing its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *sorted(self._extra())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name in VERBS:
            command: click.Command = importlib.import_module(f"zoo_cli.commands.{name}").command
            return command
        entry = self._extra().get(name)
        return None if entry is None else _plugin_command(entry)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.list_commands(ctx)) or "zoo --help lists the commands."
            raise click.UsageError(f"There is no command '{args[0]}'. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(VERBS.items())
        rows += [(name, _origin(entry)) for name, entry in sorted(self._extra().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _extra(self) -> dict[str, Any]:
        if os.environ.get("ZOO_PLUGINS") == "":
            return {}
        return {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP) if entry.name not in VERBS}


def _origin(entry: Any) -> str:
    return f"Provided by {entry.dist.name}." if entry.dist else "Provided by a plugin."


def _plugin_command(entry: Any) -> click.Command:
    try:
        command = entry.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"command '{entry.name}' of {_origin(entry)[12:-1]} failed: {type(error).__name__}: {error}",
            "ZOO_DEBUG=1 shows the traceback; zoo plugins lists every plugin.",
        ) from error
    if not isinstance(command, click.Command):
        raise PluginError(f"command '{entry.name}' of {_origin(entry)[12:-1]} is not a click command")
    return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zoo", message="%(prog)s %(version)s")
@click.option("--no-plugins", is_flag=True, help="Load no plugin (as ZOO_PLUGINS='').")
def cli(no_plugins: bool) -> None:
    """A model zoo for research on generation: every method is a plugin, every model a short name.

    \b
    zoo sample --prompt "a red circle"     draw with the built-in model
    zoo list                               what there is
    zoo show tarflow:afhq256               everything about one model
    """
    if no_plugins:
        os.environ["ZOO_PLUGINS"] = ""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; prints errors, never raises for a user's mistake."""
    try:
        result = cli.main(args=arguments, prog_name="zoo", standalone_mode=False)
    except click.exceptions.Abort:
        return _report("interrupted", "", ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        return _report("interrupted", "", ExitCode.INTERRUPTED)
    except click.ClickException as error:
        return _report(error.format_message(), _usage_hint(error), ExitCode.USAGE)
    except ZooError as error:
        _debug()
        return _report(error.message, error.hint, error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe left (`zoo list | head -1`): nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        _debug()
        text = f"unexpected {type(error).__name__}: {error}"
        return _report(text, "ZOO_DEBUG=1 shows the traceback; please report it.", ExitCode.FAILED)
    return result if isinstance(result, int) else ExitCode.OK


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else ""


def _debug() -> None:
    if os.environ.get("ZOO_DEBUG"):
        traceback.print_exc()


def _report(message: str, hint: str, code: int) -> int:
    from zoo_cli.output import error_console

    error_console().error(message, hint)
    return int(code)


def main() -> None:
    """The console script."""
    sys.exit(run())
