"""The guides in docs/: their code runs, their tables follow the code, their links lead somewhere."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo import cards, hookspecs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLE = DOCS / "zoo-example"

#: Tables of a card, as docs/cards.md heads them, and the dataclass behind each.
TABLES = {
    "Top level": cards.Card,
    "`[variant.NAME]`": cards.Variant,
    "`[[variant.NAME.files]]`": cards.File,
    "`[variant.NAME.components.ROLE]`": cards.Component,
    "`paper`": cards.Paper,
    "`code`": cards.Code,
    "`licence`": cards.Licence,
    "`metrics`": cards.Metric,
}

#: Fields that the loader fills in, and keys that have no field.
NOT_KEYS = {(cards.Card, "path"), (cards.Card, "origin"), (cards.Variant, "name")}
RENAMED = {(cards.Card, "variants"): "variant"}
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "tuple[str, ...]": "list of texts",
    "Mapping[str, Any]": "table",
    "Mapping[str, str]": "table of texts",
    "Mapping[str, Variant]": "tables",
    "Mapping[str, Mapping[str, Any]]": "tables",
    "Mapping[str, Component]": "tables",
    "tuple[Metric, ...]": "list of tables",
    "tuple[File, ...]": "list of tables",
    "Paper": "table",
    "Code": "table",
    "Licence": "table",
}


def guide(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def guides() -> list[Path]:
    return [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


# docs/adding-a-method.md


def shown() -> dict[str, str]:
    """What the guide shows of each file, in order: the blocks under a comment with the file's path."""
    files: dict[str, list[str]] = {}
    pattern = r"^<!-- (zoo-example/\S+) -->\n```\w+\n(.*?)^```$"
    for name, block in re.findall(pattern, guide("adding-a-method.md"), re.MULTILINE | re.DOTALL):
        files.setdefault(name, []).append(block)
    return {name: "\n\n".join(blocks) for name, blocks in files.items()}


def example_files() -> list[str]:
    kept = (path for path in EXAMPLE.rglob("*") if path.suffix in {".py", ".toml"})
    return sorted(path.relative_to(DOCS).as_posix() for path in kept if "__pycache__" not in path.parts)


def test_the_guide_shows_every_file_of_the_example() -> None:
    assert sorted(shown()) == example_files()


@pytest.mark.parametrize("name", example_files())
def test_the_guide_shows_the_example_as_it_is(name: str) -> None:
    assert shown()[name] == (DOCS / name).read_text(encoding="utf-8")


def test_the_guide_shows_no_other_code() -> None:
    text = guide("adding-a-method.md")
    blocks = re.findall(r"^(.*)\n```(?:python|toml)$", text, re.MULTILINE)
    assert [line for line in blocks if not re.fullmatch(r"<!-- zoo-example/\S+ -->", line)] == []


def test_the_guide_tells_what_a_sampler_is_registered_with() -> None:
    table = guide("adding-a-method.md").partition("\n| argument of `register` |")[2].partition("\n\n")[0]
    told = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    arguments = list(inspect.signature(hookspecs.RegisterSampler.__call__).parameters)
    # These are in the example.
    shown = {"self", "name", "sample", "options", "needs", "summary"}
    assert set(told) == set(arguments) - shown


def test_the_example_is_small() -> None:
    code = [
        line
        for path in EXAMPLE.glob("zoo_spectral/*.py")
        for line in path.read_text().splitlines()
        if line.strip()
    ]
    assert len(code) <= 110


# docs/cards.md


def documented_keys(heading: str) -> dict[str, tuple[str, str]]:
    """Key -> (type, default) of the table under a heading of docs/cards.md."""
    section = guide("cards.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .+ \|$", section, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| `", section, re.MULTILINE)), "every row has four cells"
    return {key: (kind, default) for key, kind, default in rows}


def fields(kind: type) -> dict[str, tuple[str, str]]:
    """Key -> (type, default) as the dataclass has them."""
    result = {}
    for field in dataclasses.fields(kind):
        if (kind, field.name) in NOT_KEYS:
            continue
        written = str(field.type).removesuffix(" | None")
        choice = re.fullmatch(r"Literal\[(.*)\]", written)
        text = (
            " or ".join(f"`{part.strip()}`" for part in choice[1].replace("'", '"').split(","))
            if choice
            else TYPES[written]
        )
        result[RENAMED.get((kind, field.name), field.name)] = (text, default(kind, field))
    return result


def default(kind: type, field: dataclasses.Field[object]) -> str:
    # The loader has defaults of its own for these two.
    loaders = {(cards.Variant, "config"), (cards.Variant, "sampler")}
    if (kind, field.name) in loaders or field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    shown = {None: "unknown", (): "empty", False: "`false`", "safetensors": '`"safetensors"`'}
    return shown[field.default]  # type: ignore[index]


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_of_a_card_is_documented(heading: str) -> None:
    kind = TABLES[heading]
    expected = fields(kind)
    if kind is cards.Card:
        expected = {"schema": ("whole number", "required"), **expected}
    assert documented_keys(heading) == expected


def test_every_dataclass_of_a_card_has_a_table() -> None:
    kinds = {
        kind for kind in vars(cards).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    assert kinds == set(TABLES.values())


def test_the_card_in_the_guide_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", guide("cards.md"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "mymethod.toml"
    path.write_text(block, encoding="utf-8")
    card = cards.load_card(path)
    assert card.find("large-v1") is card.variants["large"]


# docs/sampling.md


def test_every_public_name_is_documented() -> None:
    text = guide("sampling.md").partition("\n## The library\n")[2]
    names = re.findall(r"^\| `(?:zoo\.)?(\w+)[^`]*` \|", text, re.MULTILINE)
    assert sorted(names) == sorted(zoo.__all__)


def test_every_setting_is_documented() -> None:
    from zoo.settings import KEYS

    section = guide("sampling.md").partition("\n## Settings\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(KEYS)


def test_the_python_code_runs(tmp_path: Path) -> None:
    """All blocks of docs/sampling.md as one program, in order."""
    blocks = re.findall(r"^```python\n(.*?)^```$", guide("sampling.md"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    roots = os.pathsep.join(str(ROOT / name) for name in (".", "cli", "plugins"))
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": roots, "XDG_CONFIG_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "red-circle.png").is_file()


def commands(name: str) -> list[str]:
    """Every `zoo` command line in the shell blocks of a guide."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```$", guide(name), re.MULTILINE | re.DOTALL)
    whole = "".join(blocks).replace("\\\n", "")
    return re.findall(r"^(?:\$ )?(zoo .*)$", whole, re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["sampling.md", "store.md", "tokens.md", "adding-a-method.md", "architecture.md", "../README.md"]
)
def test_commands_parse(name: str) -> None:
    """Verbs, options and their values exist; nothing is run."""
    import shlex

    from zoo_cli.main import cli

    found = commands(name)
    assert found or name == "architecture.md"
    for line in found:
        # Without a comment, and without what the output is piped to.
        words = shlex.split(re.split(r"  #| \| ", line)[0])[1:]
        root = cli.make_context("zoo", words, resilient_parsing=False)
        verb = words[0]
        command = cli.get_command(root, verb)
        assert command is not None, line
        command.make_context(verb, words[1:], parent=root)


# Links


def anchors(text: str) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", guides(), ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(
    "name", ["architecture.md", "adding-a-method.md", "cards.md", "sampling.md", "store.md", "tokens.md"]
)
def test_named_files_exist(name: str) -> None:
    """Paths of the repository in code font are those of files and folders that are there."""
    paths = re.findall(r"`((?:zoo|cli|plugins|cards|docs|tests|benchmarks)/[\w./-]*)`", guide(name))
    # The second is the place of the cards in an installed package.
    known = {path for path in paths if (ROOT / path).exists() or (EXAMPLE / path).exists()} | {"zoo/cards"}
    assert [path for path in paths if path not in known] == []
