"""What a user installs: what the wheel and the source distribution hold, and imports from the wheel alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling builds the distributions")

ROOT = Path(__file__).resolve().parents[1]


def build(target: str, folder: Path) -> Path:
    """Build the wheel or the sdist without the network, in an environment that has the build backend."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked to a folder that can stand on `sys.path`."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run_installed(installed: Path, code: str) -> str:
    """Run `code` where the unpacked wheel shadows the checkout, unmeasured: coverage is the checkout's."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTHON", "ZOO_"))
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.parent,
        env={**environment, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def files(folder: str, pattern: str) -> set[str]:
    """Paths below a folder of the checkout, relative to that folder."""
    base = ROOT / folder
    return {path.relative_to(base).as_posix() for path in base.rglob(pattern) if path.is_file()}


def test_wheel_holds_all_code(wheel_names: set[str]) -> None:
    expected = (
        {f"zoo/{name}" for name in files("zoo", "*.py")} | files("cli", "*.py") | files("plugins", "*.py")
    )
    assert {name for name in wheel_names if name.endswith(".py")} == expected


def test_wheel_holds_nothing_else_at_the_top(wheel: Path, wheel_names: set[str]) -> None:
    distribution, version, *_ = wheel.name.split("-")
    plugins = {path.name for path in (ROOT / "plugins").iterdir() if path.name != "__pycache__"}
    top = {name.split("/")[0] for name in wheel_names}
    assert top == {"zoo", "zoo_cli", f"{distribution}-{version}.dist-info", *plugins}


def test_wheel_holds_cards_and_built_in_weights(wheel_names: set[str]) -> None:
    cards = files("cards", "*.toml") | files("cards", "*.safetensors")
    assert any(name.startswith("weights/") for name in cards)
    assert {name.removeprefix("zoo/cards/") for name in wheel_names if name.startswith("zoo/cards/")} == cards


def test_built_in_weights_are_the_same_bytes(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in files("cards", "*.safetensors"):
            assert archive.read(f"zoo/cards/{name}") == (ROOT / "cards" / name).read_bytes()


def test_wheel_is_typed(wheel_names: set[str]) -> None:
    assert {"zoo/py.typed", "zoo_cli/py.typed"} <= wheel_names


def test_metadata(metadata: Message) -> None:
    assert metadata["Name"] == "zoo"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert set(metadata.get_all("Provides-Extra", [])) >= {"test", "dev"}


def test_version_is_the_packages_version(metadata: Message, installed: Path) -> None:
    assert (
        run_installed(installed, "import zoo.version; print(zoo.version.__version__)") == metadata["Version"]
    )


def test_command_is_registered(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        assert "zoo = zoo_cli.main:main" in archive.read(name).decode().splitlines()


def test_cards_stay_a_module_next_to_the_cards_folder(installed: Path) -> None:
    # zoo/cards.py and the data folder zoo/cards share a name. A module wins over a folder without
    # `__init__.py`; a Python file among the data would turn the folder into a package and break the import.
    assert (installed / "zoo" / "cards").is_dir()
    assert not list((installed / "zoo" / "cards").rglob("*.py"))
    found = run_installed(
        installed, "import zoo.cards; print(zoo.cards.__file__, hasattr(zoo.cards, '__path__'))"
    )
    assert found == f"{installed / 'zoo' / 'cards.py'} False"


def test_cards_are_found_by_path(installed: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "folder = files('zoo') / 'cards'\n"
        "print(*sorted(path.name for path in folder.iterdir() if path.name.endswith('.toml')), sep='\\n')"
    )
    assert run_installed(installed, code).split() == sorted(files("cards", "*.toml"))


def test_command_lists_every_method_without_the_checkout(installed: Path) -> None:
    rows = json.loads(
        run_installed(installed, "import sys, zoo_cli.main as m; sys.argv[1:] = ['list', '--json']; m.main()")
    )
    assert {row["method"] for row in rows} == {
        name.removesuffix(".toml") for name in files("cards", "*.toml")
    }


def test_sdist_builds_the_same_wheel(wheel_names: set[str], tmp_path: Path) -> None:
    sdist = build("sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for name in ("tests", "docs", "cards", "benchmarks", "README.md", "LICENSE", "CHANGELOG.md", ".ci/run"):
        assert (source / name).exists(), name
    subprocess.run(
        [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            str(tmp_path / "again"),
        ],
        cwd=source,
        capture_output=True,
        check=True,
    )
    (again,) = (tmp_path / "again").iterdir()
    with zipfile.ZipFile(again) as archive:
        assert set(archive.namelist()) == wheel_names
