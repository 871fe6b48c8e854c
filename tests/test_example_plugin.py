"""The example plugin of docs/adding-a-method.md, installed as the guide says, from the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.io.images import read_image
from zoo.io.metadata import read_provenance

pytest.importorskip("hatchling", reason="hatchling builds the example")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "zoo-example"
GUIDE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")

#: Runs a command line and tells on stderr whether torch was imported.
COMMAND_LINE = """
import sys
from zoo_cli.main import run
code = run(sys.argv[1:])
print("torch imported:", "torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def guide_line(start: str) -> list[str]:
    """The one command of the guide that begins with `start`, as arguments."""
    (line,) = re.findall(rf"^(?:\$ )?({re.escape(start)}.*)$", GUIDE, re.MULTILINE)
    return shlex.split(line)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed example: the guide's command, without the network."""
    folder = tmp_path_factory.mktemp("site")
    command = guide_line("pip install docs/")
    assert command == ["pip", "install", "docs/zoo-example"]
    offline = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *offline, "--target", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def environment(site: Path, tmp_path: Path) -> dict[str, str]:
    """The checkout and the installed example, without the user's settings."""
    roots = [site, ROOT, ROOT / "cli", ROOT / "plugins"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "ZOO_HOME": str(tmp_path / "home"),
        "ZOO_STRICT": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def zoo_command(environment: dict[str, str], tmp_path: Path):
    """Runs `zoo ARGUMENTS` in an empty folder; returns the finished process."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND_LINE, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    run.folder = folder
    return run


def test_list_shows_it_without_torch(zoo_command) -> None:
    done = zoo_command("list", "--json")
    rows = {row["reference"]: row for row in json.loads(done.stdout)}
    assert rows["spectral:clouds"]["state"] == "built-in"
    assert rows["spectral:clouds"]["origin"] == "zoo-spectral"
    assert "tarflow:shapes" in rows
    assert "torch imported: False" in done.stderr


def test_the_plugin_works(zoo_command) -> None:
    rows = {row["name"]: row for row in json.loads(zoo_command("plugins", "--json").stdout)}
    assert rows["spectral"]["status"] == "ok"
    assert rows["spectral"]["distribution"] == "zoo-spectral"
    assert rows["spectral"]["error"] is None


def test_show(zoo_command) -> None:
    done = zoo_command("show", "spectral", "--json")
    document = json.loads(done.stdout)
    assert document["reference"] == "spectral:clouds"
    assert document["architecture"] == "spectral"
    assert document["sampler"] == {"name": "spectral", "temperature": 1.0}
    assert "torch imported: False" in done.stderr


def test_sample_writes_the_picture_of_the_seed(zoo_command) -> None:
    command = guide_line("zoo sample spectral --seed 3")
    assert command == ["zoo", "sample", "spectral", "--seed", "3", "-o", "clouds.png"]
    zoo_command(*command[1:])
    zoo_command("sample", "spectral", "--seed", "3", "-o", "again.png")
    zoo_command("sample", "spectral", "--seed", "4", "-o", "other.png")
    first, again, other = (read_image(zoo_command.folder / f"{n}.png") for n in ("clouds", "again", "other"))
    assert first.shape == (3, 256, 256)
    assert first.equal(again)
    assert not first.equal(other)
    # A picture, not noise nor one colour: neighbours are alike, the whole is not.
    assert (first[:, 1:] - first[:, :-1]).abs().mean() < 0.05 < first.std()
    made = read_provenance(zoo_command.folder / "clouds.png")
    assert (made.reference, made.seed, made.options) == ("spectral:clouds", 3, {"temperature": 1.0})


def test_replay_repeats_the_picture(zoo_command) -> None:
    zoo_command(
        "sample", "spectral", "--seed", "3", "--size", "48x32", "-O", "temperature=0.5", "-o", "a.png"
    )
    zoo_command("replay", "a.png", "-o", "b.png")
    original, repeated = (read_image(zoo_command.folder / name) for name in ("a.png", "b.png"))
    assert original.shape == (3, 32, 48)
    assert original.equal(repeated)
    assert "identical" in zoo_command("replay", "a.png", "--check").stdout


def test_samples_do_not_depend_on_the_batch(zoo_command) -> None:
    zoo_command(
        "sample", "spectral", "--seed", "6", "-n", "3", "--size", "16", "--batch-size", "2", "-o", "many/"
    )
    zoo_command("sample", "spectral", "--seed", "8", "--size", "16", "-o", "one.png")
    (last,) = (zoo_command.folder / "many").glob("*seed8*")
    assert read_image(last).equal(read_image(zoo_command.folder / "one.png"))


def test_recipe_trains(zoo_command) -> None:
    done = zoo_command("train", "spectral", "--steps", "5", "-o", "run", "--json")
    document = json.loads(done.stdout)
    assert (document["reference"], document["steps"]) == ("spectral:clouds", 5)
    zoo_command("sample", "spectral", "--size", "16", "--weights", "run/model.safetensors", "-o", "own.png")
    assert (zoo_command.folder / "own.png").is_file()


def test_card_has_the_digest_of_the_weights_that_ship(zoo_command) -> None:
    import hashlib

    (file,) = json.loads(zoo_command("show", "spectral", "--json").stdout)["files"]
    weights = EXAMPLE / "zoo_spectral" / "cards" / file["source"][0]
    assert file["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert file["size"] == weights.stat().st_size


def test_converted_weights_are_the_same_field(zoo_command) -> None:
    """Statistics in the foreign form, through `--weights` and the registered converter."""
    from safetensors.torch import load_file, save_file

    ours = load_file(EXAMPLE / "zoo_spectral" / "cards" / "spectral-clouds.safetensors")
    mixing = ours["mixing"].float()
    theirs = {"mu": ours["mean"], "sigma": mixing @ mixing.T, "beta": ours["slope"], "a0": ours["level"]}
    save_file(theirs, zoo_command.folder / "theirs.safetensors")
    for name in (
        "theirs.safetensors",
        str(EXAMPLE / "zoo_spectral" / "cards" / "spectral-clouds.safetensors"),
    ):
        zoo_command(
            "sample",
            "spectral",
            "-O",
            "temperature=0",
            "--size",
            "4",
            "--weights",
            name,
            "-o",
            f"{len(name)}.png",
        )
    first, second = (read_image(path) for path in zoo_command.folder.glob("*.png"))
    assert first.equal(second), "without noise the mean colour is left"


def comparable(line: str) -> str:
    """A line without what differs from run to run: seconds, versions, the width of columns."""
    return " ".join(re.sub(r"\b\d+\.\d+(\.\d+)?\b", "N", line).split())


def test_output_in_the_guide_is_real(environment: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "config" / "zoo" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('device = "cpu"\n', encoding="utf-8")
    blocks = re.findall(r"^<!-- console -->\n```console\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    commands = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    assert len(commands) >= 4
    for part in commands:
        command, *shown = part.rstrip().splitlines()
        name, *arguments = shlex.split(command)
        assert name == "zoo"
        done = subprocess.run(
            [sys.executable, "-m", "zoo_cli", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        actual = [comparable(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0, done.stdout
        # Other plugins may stand between the lines.
        assert [comparable(line) for line in shown if comparable(line) not in actual] == []


def test_its_own_tests_pass(environment: dict[str, str]) -> None:
    command = guide_line("python -m pytest docs/zoo-example")
    done = subprocess.run(
        [sys.executable, *command[1:], "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b3 passed", done.stdout)
