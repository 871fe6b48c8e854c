"""Documents that follow the code: docs/commands.md, the hooks in docs/hooks.md, the README's table of models.

`pytest tests/test_docs.py --update-docs` writes what the code says into them.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from zoo import hookspecs
from zoo.cards import load_card
from zoo.catalogue import builtin_folder, state_of
from zoo.describe import summary
from zoo.quantities import human_count
from zoo_cli.main import VERBS, cli

ROOT = Path(__file__).resolve().parents[1]


def between(text: str, marker: str) -> re.Match[str]:
    """What stands between `<!-- marker -->` and `<!-- /marker -->`."""
    found = re.search(rf"(?<=<!-- {marker} -->\n).*?(?=<!-- /{marker} -->)", text, re.DOTALL)
    assert found is not None, f"there is no <!-- {marker} --> ... <!-- /{marker} -->"
    return found


# docs/commands.md


def contexts() -> Iterator[click.Context]:
    """A context for the group and for every verb, wide enough to be the same on every terminal."""
    root = cli.make_context("zoo", [], resilient_parsing=True, terminal_width=88)
    yield root
    for name in VERBS:
        command = cli.get_command(root, name)
        assert command is not None
        verb = click.Context(command, info_name=name, parent=root)
        yield verb
        if isinstance(command, click.Group):
            for inner in command.list_commands(verb):
                yield click.Context(command.commands[inner], info_name=inner, parent=verb)


def help_texts(monkeypatch: pytest.MonkeyPatch) -> str:
    # Commands that happen to be installed are not ours to document.
    monkeypatch.setenv("ZOO_PLUGINS", "")
    parts = []
    for context in contexts():
        lines = "\n".join(line.rstrip() for line in context.get_help().splitlines())
        parts.append(f"## {context.command_path}\n\n```text\n{lines}\n```\n")
    return "\n" + "\n".join(parts) + "\n"


# docs/hooks.md


def hooks(_: pytest.MonkeyPatch) -> str:
    """Every hook and every callback it is given, with its signature and docstring as in the source."""
    tree = ast.parse(inspect.getsource(hookspecs))
    parts = ["## Hooks\n"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            parts.append(section(node.name, [signature(node, node.decorator_list)], node))
    parts.append("## What a hook is given\n")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            calls = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            parts.append(section(node.name, [signature(call, [], node.name) for call in calls], node))
    return "\n" + "\n".join(parts) + "\n"


def signature(node: ast.FunctionDef, decorators: list[ast.expr], name: str = "") -> str:
    arguments = ast.unparse(node.args).removeprefix("self, ")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    lines = [f"@{ast.unparse(decorator)}" for decorator in decorators]
    return "\n".join([*lines, f"def {name or node.name}({arguments}){result}"])


def section(name: str, signatures: list[str], node: ast.FunctionDef | ast.ClassDef) -> str:
    text = ast.get_docstring(node)
    assert text, f"{name} has no docstring"
    code = (
        "\n".join(signatures).removeprefix("def ")
        if isinstance(node, ast.ClassDef)
        else "\n".join(signatures)
    )
    return f"### `{name}`\n\n```python\n{code}\n```\n\n{text}\n"


# README.md


def models(monkeypatch: pytest.MonkeyPatch) -> str:
    lines = ["| model | weights | parameters | what it is |", "|---|---|---|---|"]
    for path in sorted(builtin_folder().glob("*.toml")):
        card = load_card(path)
        for variant in card.variants.values():
            row = summary(card, variant, state_of(card, variant))
            params = "" if row["params"] is None else human_count(row["params"])
            mark = " (default)" if row["default"] else ""
            lines.append(f"| `{row['reference']}`{mark} | {row['state']} | {params} | {row['summary']} |")
    return "\n" + "\n".join(lines) + "\n\n"


DOCUMENTS = [
    ("docs/commands.md", "commands", help_texts),
    ("docs/hooks.md", "hooks", hooks),
    ("README.md", "models", models),
]


@pytest.mark.parametrize(("name", "marker", "write"), DOCUMENTS, ids=[name for name, _, _ in DOCUMENTS])
def test_documents_say_what_the_code_says(
    name: str,
    marker: str,
    write: Callable[[pytest.MonkeyPatch], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    # What happens to be pulled on this machine does not belong into a document.
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    place = between(text, marker)
    expected = write(monkeypatch)
    if request.config.getoption("--update-docs") and place[0] != expected:
        path.write_text(text[: place.start()] + expected + text[place.end() :], encoding="utf-8")
        return
    assert place[0] == expected, f"{name} is out of date: pytest tests/test_docs.py --update-docs"


def test_every_hook_is_documented() -> None:
    text = between((ROOT / "docs/hooks.md").read_text(encoding="utf-8"), "hooks")[0]
    marked = [name for name, value in vars(hookspecs).items() if hasattr(value, "zoo_spec")]
    assert marked
    assert [name for name in marked if f"### `{name}`" not in text] == []


def test_every_verb_is_documented() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert [name for name in VERBS if f"\n## zoo {name}\n" not in text] == []


@pytest.mark.parametrize("text", ["nothing", "<!-- a -->\nb", "<!-- /a -->\n<!-- a -->\n"])
def test_missing_markers_are_named(text: str) -> None:
    with pytest.raises(AssertionError, match="there is no"):
        between(text, "a")
    assert between("x\n<!-- a -->\nb\n<!-- /a -->\n", "a")[0] == "b\n"
