"""What each command may import (stages A and B): start-up time is decided here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "safetensors", "pluggy", "transformers", "huggingface_hub", "PIL"}

# Runs a command line and prints the names of all imported modules behind its own output.
PROBE = """
import json, sys
from zoo_cli.main import run
code = run(sys.argv[1:])
sys.stdout.flush()
print()
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.fixture
def modules(tmp_path):
    def imported(*arguments: str) -> set[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_CONFIG_HOME": str(tmp_path),
            "ZOO_HOME": str(tmp_path),
        }
        # The coverage tool, where it is on, imports more than the command does.
        environment.pop("COVERAGE_PROCESS_START", None)
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
        result = subprocess.run(
            [sys.executable, "-c", PROBE, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        code, names = json.loads(result.stdout.splitlines()[-1])
        assert code == 0, result.stderr
        return set(names)

    return imported


def methods(names: set[str]) -> set[str]:
    """Packages of plugins."""
    return {name for name in names if name.startswith("zoo_") and not name.startswith("zoo_cli")}


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("completion", "bash"),
        ("plugins",),
        ("plugins", "--json"),
        ("sample", "--help"),
        ("pull", "--help"),
    ],
    ids=" ".join,
)
def test_stage_a(modules, arguments):
    names = modules(*arguments)
    assert top(names) & (HEAVY | {"rich", "tomllib", "platformdirs"}) == set()
    assert methods(names) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "--json"),
        ("show", "tarflow"),
        ("show", "tarflow", "--json"),
        ("search", "flow"),
        ("config", "list"),
        ("config", "set", "model", "tarflow"),
    ],
    ids=" ".join,
)
def test_stage_b(modules, arguments):
    names = modules(*arguments)
    # Nothing here is a terminal, so not even tables need rich.
    allowed = {"pluggy"} if "set" in arguments else set()
    assert top(names) & (HEAVY | {"rich"}) <= allowed
    assert methods(names) == set()


#: A model whose only file lies on this machine and is stored as it is.
CARD = """
schema = 1
method = "near"
title = ""
summary = ""
tasks = []
default = "only"
[variant.only]
summary = ""
architecture = "none"
[[variant.only.files]]
role = "words"
source = ["file://{source}"]
format = "raw"
"""


@pytest.fixture
def near(tmp_path):
    """The reference of a model that can be pulled without a network."""
    source = tmp_path / "words.json"
    source.write_text("{}", encoding="utf-8")
    cards = tmp_path / "zoo" / "cards"
    cards.mkdir(parents=True)
    (cards / "near.toml").write_text(CARD.format(source=source), encoding="utf-8")
    return "near:only"


@pytest.mark.parametrize(
    "arguments",
    [
        ("pull",),
        ("pull", "--json"),
        ("list",),
        ("show", "near"),
        ("verify",),
        ("verify", "near"),
        ("cp", "near", "{folder}"),
        ("rm", "near", "--dry-run"),
        ("rm", "near"),
        ("rm", "--all", "--yes"),
        ("prune", "--dry-run"),
        ("prune", "--yes"),
    ],
    ids=" ".join,
)
def test_the_store_is_looked_after_in_stage_b(modules, near, tmp_path, arguments):
    modules("pull", near)
    words = [word.format(folder=tmp_path / "copy") for word in arguments]
    names = modules(*words, *([near] if arguments[0] == "pull" else []))
    assert top(names) & (HEAVY | {"rich"}) == set()
    assert methods(names) == set()
    if arguments[0] == "pull":
        # What is here already costs no network code either.
        assert names & {"ssl", "http.client", "asyncio"} == set()


def test_a_pull_imports_what_its_files_need(modules, near):
    names = modules("pull", near)
    # Neither a file of the hub nor a checkpoint.
    assert top(names) & (HEAVY | {"rich"}) == set()
    assert methods(names) == set()
    names = modules("pull", "tarflow:shapes")
    assert top(names) & (HEAVY | {"rich"}) == set()


def test_help_imports_little(modules):
    names = modules("--help")
    assert {name for name in names if name.startswith("zoo_cli.commands")} == set()
    assert "zoo.cards" not in names
    # What click and the search for entry points need is theirs; ours adds a handful.
    code = "import click, click.shell_completion, click._textwrap, difflib, tempfile, traceback"
    bare = subprocess.run(
        [sys.executable, "-c", f"{code}, importlib.metadata, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert len(names - set(bare.stdout.split())) < 30
