"""The rules of the house: what CONTRIBUTING.md asks for and a machine can check."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE_ROOTS = ("zoo", "cli", "plugins")
CONTENT = (*SOURCE_ROOTS, "cards", "docs", "benchmarks", "tests")
FORBIDDEN_WORDS = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME")))
MEGABYTE = 2**20


def content(*folders: str) -> Iterator[Path]:
    """Files below the folders of the repository, without caches."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and not {"__pycache__", ".DS_Store"} & set(path.parts):
                yield path


def sources() -> list[Path]:
    return [path for path in content(*SOURCE_ROOTS) if path.suffix == ".py"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def readme_command() -> str:
    """The text between the two markers of the README, without the code fence."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(
        r"^<!-- test-command -->\n```\w*\n(.*?)\n```\n<!-- /test-command -->$", text, re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 1, "README.md has exactly one marked test command"
    return blocks[0]


# The README and the check that runs it


def test_readme_shows_the_two_commands() -> None:
    assert re.search(
        r'^[^\n]*pip install \.[^\n]*zoo sample --prompt "a red circle"$',
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    command = readme_command()
    assert "\n" not in command
    assert 'pip install -e ".[test]"' in command
    assert command.endswith("pytest --cov")


def run_ci(tree: Path, readme: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this repository's `.ci/run` on a small tree of its own."""
    (tree / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", tree / ".ci" / "run")
    (tree / "README.md").write_text(readme, encoding="utf-8")
    (tree / "kept.txt").write_text("kept", encoding="utf-8")
    (tree / ".venv").mkdir()
    temporary = tree.parent / "tmp"
    temporary.mkdir()
    return subprocess.run(
        ["bash", tree / ".ci" / "run"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(temporary), **environment},
        check=False,
    )


def marked(command: str) -> str:
    return f"text\n\n<!-- test-command -->\n```sh\n{command}\n```\n<!-- /test-command -->\n\nmore `text`\n"


def test_ci_shows_the_readmes_command_word_for_word(tmp_path: Path) -> None:
    # The real command, run where `python3` is a stand-in: only what is executed matters here.
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "python3"
    stand_in.write_text('#!/bin/sh\necho "python3 $*"\nexit 7\n', encoding="utf-8")
    stand_in.chmod(0o755)
    result = run_ci(
        tmp_path / "tree",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
    )
    assert result.stdout == f"+ {readme_command()}\npython3 -m venv .venv\n"
    assert result.returncode == 7


def test_ci_runs_in_a_fresh_copy_with_a_clean_environment(tmp_path: Path) -> None:
    tree = tmp_path / "tree with spaces"
    command = 'cat kept.txt; ls -A; echo "[${PYTHONPATH-}${VIRTUAL_ENV-}${ZOO_HOME-}]"; touch made; pwd'
    result = run_ci(tree, marked(command), PYTHONPATH="/a", VIRTUAL_ENV="/b", ZOO_HOME="/c")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"+ {command}"
    assert lines[1:] == ["kept.ci", "README.md", "kept.txt", "[]", lines[-1]]
    assert not (tree / "made").exists()
    assert not Path(lines[-1]).exists(), "the copy is removed"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_ci_copies_what_git_would_commit(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tree / ".gitignore").write_text("ignored\n", encoding="utf-8")
    (tree / "ignored").touch()
    result = run_ci(tree, marked("ls -A"))
    assert result.stdout.split() == ["+", "ls", "-A", ".ci", ".gitignore", "README.md", "kept.txt"]


@pytest.mark.parametrize(("command", "code"), [("false", 1), ("exit 3", 3), ("false\necho later", 1)])
def test_ci_fails_when_the_command_fails(tmp_path: Path, command: str, code: int) -> None:
    result = run_ci(tmp_path / "tree", marked(command))
    assert result.returncode == code
    assert "\nlater" not in result.stdout.removeprefix(f"+ {command}")


def test_ci_refuses_a_readme_without_a_command(tmp_path: Path) -> None:
    result = run_ci(tmp_path / "tree", "# A title\n")
    assert result.returncode == 2
    assert "README.md has no command" in result.stderr


# The tree


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def test_no_drawers() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert [relative(path) for path in sources() if path.stem in drawers or path.parent.name in drawers] == []


def test_packages_say_in_one_line_what_lives_in_them() -> None:
    packages = [path for path in sources() if path.name == "__init__.py"]
    docstrings = {relative(path): ast.get_docstring(ast.parse(path.read_bytes())) for path in packages}
    assert packages
    assert [name for name, text in docstrings.items() if not text or len(text.splitlines()) != 1] == []


def test_folders_with_code_are_packages() -> None:
    folders = {path.parent for path in sources()}
    assert [relative(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_typed_packages_say_so() -> None:
    assert (ROOT / "zoo" / "py.typed").exists()
    assert (ROOT / "cli" / "zoo_cli" / "py.typed").exists()


def test_nothing_is_left_for_later() -> None:
    files = [*content(*CONTENT), *ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    found = []
    for path in files:
        if path.suffix in {".py", ".md", ".toml", ""}:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [
                f"{relative(path)}:{i}" for i, line in enumerate(lines, 1) if FORBIDDEN_WORDS.search(line)
            ]
    assert found == []


def test_changelog_has_an_unreleased_section() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"


# Plugins


def plugin_folders() -> list[Path]:
    return sorted(path for path in (ROOT / "plugins").iterdir() if path.name != "__pycache__")


def test_builtin_names_the_plugin_folders() -> None:
    from zoo.plugins import BUILTIN

    assert len(set(BUILTIN)) == len(BUILTIN)
    assert sorted(f"zoo_{name}" for name in BUILTIN) == [folder.name for folder in plugin_folders()]


def test_plugins_start_light() -> None:
    for folder in plugin_folders():
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) < 40, f"{folder.name}/__init__.py stays under 40 lines"
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
        }
        assert not imported & {"torch", "numpy", "safetensors", "transformers"}, folder.name


def test_plugins_do_not_import_each_other() -> None:
    names = {folder.name for folder in plugin_folders()}
    for folder in plugin_folders():
        others = "|".join(sorted(names - {folder.name})) or "(?!)"
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(rf"^\s*(from|import) ({others})\b", text, re.MULTILINE), relative(path)


# What we refuse


def refused(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that would run code from a download."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
        if name in {"eval", "exec"} or re.fullmatch(
            r"(pickle|cloudpickle|dill|joblib)\.(loads?|Unpickler)", name
        ):
            yield node.lineno, name
        if name == "torch.load" and options.get("weights_only") is not True:
            yield node.lineno, "torch.load without weights_only=True"
        if (
            any(k.arg == "trust_remote_code" for k in node.keywords)
            and options.get("trust_remote_code") is not False
        ):
            yield node.lineno, "trust_remote_code"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=flag)", 1),
        ("torch.load(path, map_location='cpu', weights_only=True)", 0),
        ("pickle.loads(data)", 1),
        ("model.eval()", 0),
        ("eval(text)", 1),
        ("f(trust_remote_code=True)", 1),
        ("f(trust_remote_code=False)", 0),
    ],
)
def test_the_check_for_refused_calls_works(code: str, count: int) -> None:
    assert len(list(refused(ast.parse(code)))) == count


def test_no_pickle_and_no_remote_code() -> None:
    found = [
        f"{relative(p)}:{i}: {what}" for p in sources() for i, what in refused(ast.parse(p.read_bytes()))
    ]
    assert found == []


# Cards and sizes


def test_cards_parse_and_are_named_after_their_method() -> None:
    cards = sorted((ROOT / "cards").glob("*.toml"))
    assert cards
    for path in cards:
        assert tomllib.loads(path.read_text(encoding="utf-8"))["method"] == path.stem


def test_built_in_weights_are_small_safetensors() -> None:
    weights = list(content("cards/weights"))
    assert weights
    assert [relative(path) for path in weights if path.suffix != ".safetensors"] == []
    assert {relative(p): p.stat().st_size for p in weights if p.stat().st_size > 8 * MEGABYTE} == {}


def test_the_repository_stays_small() -> None:
    assert sum(path.stat().st_size for path in content(*CONTENT)) < 100 * MEGABYTE
