"""The entry point: a click group that imports only the verb that runs, and the one place where errors end."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import click
from click.shell_completion import CompletionItem

from zoo.discovery import distribution_of, entries
from zoo.errors import ExitCode, InvalidInput, PluginError, ZooError, did_you_mean
from zoo.version import __version__
from zoo_cli.output import ReaderLeft

COMMANDS_GROUP = "zoo.commands"

#: Verb -> one line of help. The module of verb `x` is `zoo_cli.commands.x`.
VERBS = {
    "list": "List models and where their weights are.",
    "show": "Show everything a card says about a model.",
    "search": "Search the cards by words.",
    "pull": "Download a model's weights.",
    "rm": "Remove pulled weights.",
    "prune": "Remove what no model uses.",
    "verify": "Check weights against their digests.",
    "cp": "Copy a model to a plain folder.",
    "sample": "Draw samples from a model.",
    "edit": "Change one layer of a layered picture.",
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
        known = [*VERBS, *ALIASES]
        if args[0] not in known:
            known += self._extra()
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], known) or "zoo --help lists the commands."
            raise InvalidInput(f"there is no command '{args[0]}'", hint)
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ZooError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError as error:
            raise ReaderLeft from error
        except Exception as error:
            entry = self._extra().get(ctx.invoked_subcommand or "")
            if entry is None:
                raise
            raise _command_failed(entry, error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        short = {verb: alias for alias, verb in ALIASES.items()}
        rows = [(f"{name}, {short[name]}" if name in short else name, text) for name, text in VERBS.items()]
        rows += [(name, f"Provided by {_owner(entry)}.") for name, entry in sorted(self._extra().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands without importing them, and the options of the group."""
        helps = {**VERBS, **{name: f"Provided by {_owner(entry)}." for name, entry in self._extra().items()}}
        items = [
            CompletionItem(name, help=text) for name, text in helps.items() if name.startswith(incomplete)
        ]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def _extra(self) -> dict[str, EntryPoint]:
        """Commands that plugins bring; the first of a name counts, and none takes the name of a verb."""
        if os.environ.get("ZOO_PLUGINS") == "":
            return {}
        taken = {*VERBS, *ALIASES}
        return {entry.name: entry for entry in reversed(entries(COMMANDS_GROUP)) if entry.name not in taken}


def _owner(entry: EntryPoint) -> str:
    name = distribution_of(entry)[0]
    return "a plugin" if name == "unknown" else name


def _command_failed(entry: EntryPoint, error: BaseException) -> PluginError:
    if isinstance(error, PluginError):
        return error
    problem = (
        f"it called sys.exit({error.code!r})"
        if isinstance(error, SystemExit)
        else f"{type(error).__name__}: {error}"
    )
    return PluginError(
        f"command '{entry.name}' of {_owner(entry)} failed: {problem}",
        "ZOO_DEBUG=1 shows the traceback; zoo plugins lists every plugin.",
    )


def _plugin_command(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except (Exception, SystemExit) as error:
        raise _command_failed(entry, error) from error
    if not isinstance(command, click.Command):
        raise PluginError(f"command '{entry.name}' of {_owner(entry)} is not a click command")
    return command


def _disable_plugins(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    # Eager, because the group looks for the command before its own callback runs.
    if value:
        os.environ["ZOO_PLUGINS"] = ""


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zoo", message="%(prog)s %(version)s")
@click.option(
    "--no-plugins",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_disable_plugins,
    help="Load no plugin (as ZOO_PLUGINS='').",
)
def cli() -> None:
    """A model zoo for research on generation: every method is a plugin, every model a short name.

    \b
    zoo sample --prompt "a red circle"     draw with the built-in model
    zoo list                               what there is
    zoo show tarflow:afhq256               everything about one model
    zoo pull tarflow:afhq256               download its weights
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; prints errors, never raises for a user's mistake."""
    with _switches_kept():
        try:
            return _run(None if arguments is None else list(arguments))
        except (BrokenPipeError, ReaderLeft):
            return _reader_left()


def _run(arguments: list[str] | None) -> int:
    try:
        result = cli.main(args=arguments, prog_name="zoo", standalone_mode=False)
        # Here, and not when the interpreter ends: only here a closed pipe can be passed over in silence.
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return _report("interrupted", "", ExitCode.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.OK
    except click.ClickException as error:
        _debug()
        return _report(error.format_message(), _usage_hint(error), error.exit_code)
    except ZooError as error:
        _debug()
        return _report(error.message, error.hint, error.exit_code)
    except SystemExit as stop:
        # Completion ends this way.
        return (
            stop.code if isinstance(stop.code, int) else ExitCode.OK if stop.code is None else ExitCode.FAILED
        )
    except (BrokenPipeError, ReaderLeft):
        raise
    except Exception as error:
        _debug()
        text = f"unexpected {type(error).__name__}: {error}"
        return _report(text, "ZOO_DEBUG=1 shows the traceback; please report it.", ExitCode.FAILED)
    return result if isinstance(result, int) else ExitCode.OK


def _reader_left() -> int:
    """The reader of a pipe left (`zoo list | head -1`): nothing more can be said, and nothing went wrong."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.OK


@contextlib.contextmanager
def _switches_kept() -> Iterator[None]:
    """Undo what --no-plugins and --no-color set for this one command line."""
    before = {name: os.environ.get(name) for name in ("ZOO_PLUGINS", "NO_COLOR")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its code, not a traceback.
            stream.reconfigure(errors="backslashreplace")
    code = run()
    # The final garbage collection of a process that imported torch costs as much as drawing a picture.
    gc.freeze()
    sys.exit(code)
