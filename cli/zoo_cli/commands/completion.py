"""`zoo completion`: the script that makes a shell complete commands, options and references."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from zoo_cli.output import Output, output_options


@click.command(short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_options
def command(shell: str, out: Output) -> None:
    """Print the completion script of a shell; it completes commands, options and references.

    \b
    Examples:
      echo 'eval "$(zoo completion bash)"' >> ~/.bashrc
      echo 'eval "$(zoo completion zsh)"' >> ~/.zshrc
      zoo completion fish > ~/.config/fish/completions/zoo.fish
    """
    from zoo_cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the choices are click's own shells
    script = kind(cli, {}, "zoo", "_ZOO_COMPLETE").source()
    out.result({"shell": shell, "script": script}, lambda: click.echo(script), quiet=[script])
