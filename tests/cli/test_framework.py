"""The group, exit codes, errors and pipes: what holds for every verb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from third_party import install_plugin

from zoo.errors import ExitCode, ZooError
from zoo_cli import main
from zoo_cli.main import ALIASES, VERBS, cli


def verbs() -> list[tuple[str, click.Command]]:
    """Every command that does something, with its words."""
    found = []
    for name in VERBS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", inner_command) for inner, inner_command in command.commands.items()]
        found.append((name, command))
    return found


def shell(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "zoo_cli", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_modules_and_verbs_are_the_same():
    folder = Path(main.__file__).parent / "commands"
    assert {path.stem for path in folder.glob("[!_]*.py")} == set(VERBS)


@pytest.mark.parametrize(("name", "command"), verbs(), ids=[name for name, _ in verbs()])
def test_every_verb_has_help_and_examples(name, command):
    assert command.help
    assert "\b" in command.help
    assert f"zoo {name.split()[0]}" in command.help
    if not isinstance(command, click.Group):
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--quiet", "--verbose", "--no-color"} <= options
        assert all(p.help for p in command.params if isinstance(p, click.Option)), (
            "every option has a help text"
        )


def test_help_of_the_group(zoo):
    result = zoo("--help")
    assert result.code == 0
    assert all(f"  {name}" in result.out for name in VERBS)
    assert "list, ls" in result.out
    assert zoo().out == zoo("-h").out == result.out
    assert zoo().code == 0
    assert zoo("config").code == 0


def test_version(zoo):
    from zoo.version import __version__

    assert zoo("--version").out == f"zoo {__version__}\n"


def test_aliases(zoo):
    for alias, verb in ALIASES.items():
        assert zoo(alias, "--json").json == zoo(verb, "--json").json


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["lsit"], "there is no command 'lsit'", "Did you mean: list"),
        (["zzzzzz"], "there is no command 'zzzzzz'", "zoo --help lists the commands."),
        (["--verison"], "No such option '--verison'", "zoo --help"),
        (["show"], "Missing argument 'REF'", "zoo show --help"),
        (["list", "--stat", "x"], "No such option '--stat'", "zoo list --help"),
        (["list", "a", "b"], "unexpected extra argument", "zoo list --help"),
        (["list", "--state", "gone"], "'gone' is not one of", "zoo list --help"),
        (["plugins", "--timeout", "abc"], "'abc' is not a valid float", "zoo plugins --help"),
        (["config", "gte", "x"], "No such command 'gte'", "zoo config --help"),
        (["show", "a:b:c"], "'a:b:c' is not a reference", "zoo list shows every reference."),
    ],
)
def test_usage_errors(zoo, arguments, error, hint):
    result = zoo(*arguments)
    assert result.code == ExitCode.USAGE
    assert result.out == ""
    first, second = result.err.splitlines()
    assert first.startswith("Error: ")
    assert error in first
    assert second.startswith("Hint: ")
    assert hint in second


def test_did_you_mean_for_options(zoo):
    assert "--state" in zoo("list", "--stat", "x").err


def test_no_traceback_unless_asked(zoo, monkeypatch):
    assert "Traceback" not in zoo("show", "tarflwo").err
    monkeypatch.setenv("ZOO_DEBUG", "1")
    result = zoo("show", "tarflwo")
    assert result.code == ExitCode.NOT_FOUND
    assert "Traceback" in result.err
    assert "Error: no model is called 'tarflwo'" in result.err


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (RuntimeError("odd"), 1, "Error: unexpected RuntimeError: odd"),
        (ZooError("plain", "do this"), 1, "Error: plain\nHint: do this"),
        (ZooError("plain", "one\ntwo"), 1, "Error: plain\nHint: one\n      two"),
        (KeyboardInterrupt(), 130, "Error: interrupted"),
        (click.Abort(), 130, "Error: interrupted"),
        (click.FileError("f", "gone"), 1, "Could not open file"),
        (SystemExit(5), 5, ""),
        (SystemExit("words"), 1, ""),
        (SystemExit(), 0, ""),
        (BrokenPipeError(32, "gone"), 0, ""),
    ],
)
def test_one_table_of_exit_codes(zoo, monkeypatch, raised, code, text):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr("zoo.catalogue.load_catalogue", fail)
    monkeypatch.setattr("zoo_cli.main._reader_left", lambda: 0)
    result = zoo("list")
    assert result.code == code
    assert text in result.err
    assert "Traceback" not in result.err


def test_the_return_value_of_a_verb_is_its_exit_code(zoo, monkeypatch):
    monkeypatch.setattr("zoo.diagnosis.diagnose", lambda timeout: iter(()))
    assert zoo("doctor").code == 0


def test_switches_hold_for_one_command_line(zoo, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    zoo("--no-plugins", "list", "--no-color")
    assert os.environ["NO_COLOR"] == ""
    assert "ZOO_PLUGINS" not in os.environ


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    # Enough lines to fill the pipe, so that writing fails while the verb runs.
    big = tmp_path / "big.toml"
    lines = ["schema = 1", "method = 'big'", "title = ''", "summary = ''", "tasks = []", "default = 'v0'"]
    lines += [f"[variant.v{i}]\nsummary = '{'long ' * 40}'\narchitecture = 'x'" for i in range(1000)]
    big.write_text("\n".join(lines), encoding="utf-8")
    for arguments in (["list", "big"], ["list", "tarflow"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo_cli", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ZOO_CARDS": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(60) == 0


def test_a_terminal_without_the_characters_gets_codes(tmp_path):
    card = tmp_path / "uml.toml"
    card.write_text(
        "schema = 1\nmethod = 'uml'\ntitle = ''\nsummary = ''\ntasks = []\ndefault = 'v'\n"
        "[variant.v]\nsummary = 'ünï'\narchitecture = 'x'\n",
        encoding="utf-8",
    )
    environment = {"ZOO_CARDS": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    assert "\\xfcn\\xef" in shell("list", "uml", **environment).stdout
    import json

    assert json.loads(shell("list", "uml", "--json", **environment).stdout)[0]["summary"] == "ünï"


def test_module_and_script_are_the_same():
    result = shell("show", "tarflwo")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.splitlines() == [
        "Error: no model is called 'tarflwo'",
        "Hint: Did you mean: tarflow?",
    ]


def test_a_damaged_card_of_a_plugin_is_a_warning_of_every_verb_that_reads_cards(zoo, tmp_path, monkeypatch):
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    install_plugin(site, "dented", "", {"dented": "schema = 1\nmetod = 'dented'\nmethod = 'dented'\n"})
    for arguments in (["list"], ["search", "flow"], ["show", "toy"], ["list", "--json"], ["list", "-q"]):
        result = zoo(*arguments)
        assert result.code == 0
        [warning] = [line for line in result.err.splitlines() if line.startswith("Warning: ")]
        assert "dented.toml: [top level] metod: unknown key" in warning


def test_a_damaged_card_in_tree_is_an_error(zoo, tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text("schema = 1\n[variant.a]\n", encoding="utf-8")
    monkeypatch.setattr("zoo.catalogue.builtin_folder", lambda: tmp_path)
    result = zoo("list")
    assert result.code == 1
    assert "x.toml: [variant.a] summary: missing" in result.err
    assert "Traceback" not in result.err
