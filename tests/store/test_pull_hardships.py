"""Pulls that are killed, that meet a full disk, and that meet each other."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from far_models import MIB, large_safetensors, sha256, toy_checkpoint, toy_safetensors
from servers.crashing import every_crash
from servers.faulty import FaultyServer
from servers.killing import kill_at_random

from zoo.errors import WeightsError
from zoo.store.layout import blob_path, blobs, home, manifest_path, parts
from zoo.store.manifest import all_manifests, read_manifest
from zoo.store.progress import Silent
from zoo.store.pull import pull

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "zoo_cli", "pull"]


@pytest.fixture(autouse=True)
def source_roots(monkeypatch):
    roots = [str(ROOT), str(ROOT / "cli"), str(ROOT / "plugins"), str(ROOT / "tests"), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))


def check_store():
    """Nothing that has a name is half there: blobs hold what they are called by, manifests name what is."""
    for blob in blobs().glob("sha256-*"):
        assert blob.name == f"sha256-{sha256(blob.read_bytes())}"
    for manifest in all_manifests():
        for file in manifest.files:
            assert sha256(file.path.read_bytes()) == file.sha256


@pytest.mark.slow
def test_twenty_kills_cost_at_most_a_tenth_of_200_megabytes(far, tmp_path):
    content = tmp_path / "large.safetensors"
    content.write_bytes(large_safetensors(200))
    size = content.stat().st_size
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    with FaultyServer({"/large.safetensors": content}) as server:
        server.fault(bytes_per_second_total=30 * MIB)
        file = {"source": [server.url("/large.safetensors")], "sha256": digest, "size": size}
        reference = far.variant("a", file)
        seen = []

        def under_way():
            return server.sent() > (seen[-1] if seen else 0)

        killed = kill_at_random(
            [*COMMAND, reference],
            times=20,
            seed=1,
            first=under_way,
            between=(0.0, 0.5),
            after_each=lambda number: seen.append(server.sent()),
        )
        assert killed.hits == 20
        assert killed.result.returncode == 0, killed.result.stderr
        assert server.sent() <= 1.1 * size
    stored = read_manifest("far", "a").files[0]
    assert (stored.sha256, stored.size) == (digest, size)
    assert hashlib.sha256(stored.path.read_bytes()).hexdigest() == digest
    assert not list(parts().iterdir())


def pull_in(folder: str, cards: str, reference: str) -> None:
    """What the crashing process runs: a pull into a home of its own."""
    os.environ |= {"ZOO_HOME": folder, "ZOO_CARDS": cards, "HF_HOME": f"{folder}-hf"}
    pull(reference, keep_original=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moment"), [("toy.safetensors", "before"), ("toy.safetensors", "torn"), ("toy.pth", "before")]
)
def test_killed_at_any_step_nothing_is_half_there(far, tmp_path, monkeypatch, name, moment):
    content = toy_checkpoint(tmp_path / "toy.pth") if name == "toy.pth" else toy_safetensors()
    with FaultyServer({f"/{name}": content}) as server:
        format = "pytorch" if name == "toy.pth" else "safetensors"
        reference = far.variant("a", {"source": [server.url(f"/{name}")], "format": format})
        outcomes = []

        def arguments(step):
            return [str(tmp_path / f"home{step}"), str(far.folder), reference]

        for outcome in every_crash("test_pull_hardships:pull_in", arguments, moment=moment):
            outcomes.append(outcome.killed)
            monkeypatch.setenv("ZOO_HOME", str(tmp_path / f"home{outcome.at}"))
            check_store()
            manifest = pull(reference, keep_original=True)
            check_store()
            assert manifest.files[0].downloaded_sha256 == sha256(content)
    assert outcomes[-1] is False
    assert len(outcomes) > 12


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_pull_the_same_do_the_work_once(far, count):
    content = large_safetensors(4)
    with FaultyServer({"/f": content}) as server:
        server.fault(bytes_per_second_total=4 * MIB)
        reference = far.variant("a", {"source": [server.url("/f")], "sha256": sha256(content)})
        running = [
            subprocess.Popen([*COMMAND, reference, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(count)
        ]
        results = [process.communicate() for process in running]
        assert [process.returncode for process in running] == [0] * count, results
        documents = [json.loads(out) for out, _ in results]
        assert all(document["files"] == documents[0]["files"] for document in documents)
        assert server.sent() == len(content)


def test_variants_with_the_same_content_do_not_fetch_it_twice(far):
    content = large_safetensors(4)
    with FaultyServer({"/f": content}) as server:
        server.fault(bytes_per_second_total=4 * MIB)
        file = {"source": [server.url("/f")], "sha256": sha256(content)}
        references = [far.variant(name, file) for name in "abcd"]
        running = [
            subprocess.Popen([*COMMAND, reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for reference in references
        ]
        results = [process.communicate() for process in running]
        assert [process.returncode for process in running] == [0] * len(references), results
        assert server.sent() == len(content)
    check_store()


BUSY = """
import sys
from zoo.errors import NotPulled, WeightsError
from zoo.runtime.loading import read_tensors
from zoo.store.locate import locate
from zoo.catalogue import load_catalogue
from zoo.store.pull import pull
from zoo.store.removal import remove

what, reference, total = sys.argv[1], sys.argv[2], 0.0
for _ in range(int(sys.argv[3])):
    try:
        if what == "pull":
            pull(reference)
        elif what == "rm":
            remove([reference])
        else:
            tensors = read_tensors(locate(*load_catalogue().resolve(reference))["model"])
            assert tensors["ballast"].long().sum() == int(sys.argv[4])
            total += 1
    except NotPulled:
        pass
    except WeightsError as error:
        assert "no such file" in error.message or "removed" in error.message or "gone" in error.message, error
print(what, total)
"""


def test_pulling_removing_and_loading_at_once_corrupts_nothing(far, tmp_path):
    from safetensors.torch import load

    content = large_safetensors(1)
    checksum = int(load(content)["ballast"].long().sum())
    with FaultyServer({"/f": content}) as server:
        file = {"source": [server.url("/f")], "sha256": sha256(content)}
        mine, other = far.variant("a", file), far.variant("b", file)
        work = [("pull", mine), ("pull", other), ("rm", mine), ("rm", other), ("load", mine), ("load", other)]
        running = [
            subprocess.Popen(
                [sys.executable, "-c", BUSY, what, reference, "25", str(checksum)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for what, reference in work
        ]
        results = [process.communicate() for process in running]
        assert [process.returncode for process in running] == [0] * len(work), results
        check_store()
        pull(mine)
        assert read_manifest("far", "a").files[0].path.read_bytes() == content


class Remover(Silent):
    """Removes contents when something happens in a pull, as another process might."""

    def __init__(self, **contents):
        self.contents, self.times = contents, 0

    def planned(self, files):
        self.remove("planned")

    def working(self, role, what):
        if what == "storing":
            self.remove(role)

    def remove(self, moment):
        path = blob_path(sha256(self.contents.get(moment, b"")))
        self.times += path.is_file()
        path.unlink(missing_ok=True)


@pytest.fixture
def pair(far):
    """A variant of two files, both pulled, and their server."""
    words = b"one two three"
    with FaultyServer({"/f": toy_safetensors(), "/w": words}) as server:
        weights = {"source": [server.url("/f")], "sha256": sha256(toy_safetensors())}
        other = {"role": "words", "format": "raw", "source": [server.url("/w")], "sha256": sha256(words)}
        reference = far.variant("a", weights, other)
        pull(reference)
        server.reset()
        yield reference, words, server


def test_content_that_is_removed_between_plan_and_work_is_downloaded(pair):
    reference, words, server = pair
    manifest_path("far", "a").unlink()
    manifest = pull(reference, watcher=Remover(planned=words))
    assert [request.path for request in server.requests if request.method == "GET"] == ["/w"]
    check_store()
    assert manifest == read_manifest("far", "a")


def test_a_kept_file_that_is_removed_during_the_pull_is_pulled_again(pair):
    reference, words, server = pair
    blob_path(sha256(words)).unlink()
    remover = Remover(words=toy_safetensors())
    manifest = pull(reference, watcher=remover)
    assert remover.times == 1
    assert sorted({request.path for request in server.requests}) == ["/f", "/w"]
    assert all(path.is_file() for file in manifest.files for path in file.paths)
    check_store()


def test_a_pull_gives_up_where_files_are_removed_again_and_again(pair):
    reference, words, _ = pair
    manifest_path("far", "a").unlink()
    blob_path(sha256(words)).unlink()
    # Each file goes while the other one is put into its place.
    remover = Remover(model=words, words=toy_safetensors())
    with pytest.raises(WeightsError, match=f"{reference} were removed 5 times") as error:
        pull(reference, watcher=remover)
    assert remover.times == 5
    assert f"zoo pull {reference}" in error.value.hint
    assert read_manifest("far", "a") is None


def in_small_home(script: str, folder: Path, megabytes: int) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a small file system of its own mounted at `folder`."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={megabytes}m zoo-test {folder}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    return subprocess.run(["unshare", "-m", "sh", "-c", f"{mount}; {script}"], capture_output=True, text=True)


@pytest.fixture
def eight_megabytes(far, tmp_path, monkeypatch):
    """A variant of that size, its content, its server, and a folder for a disk that holds the store."""
    content = large_safetensors(8)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "disk" / "home"))
    with FaultyServer({"/f": content}) as server:
        reference = far.variant("a", {"source": [server.url("/f")], "sha256": sha256(content)})
        yield reference, content, server, tmp_path / "disk"


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(eight_megabytes):
    reference, _, server, disk = eight_megabytes
    done = in_small_home(f"{' '.join(COMMAND)} {reference}", disk, 4)
    assert done.returncode == 7
    assert "too little" in done.stderr
    assert server.sent() == 0


def test_a_disk_that_fills_up_stops_the_pull_and_another_goes_on(eight_megabytes):
    reference, content, server, disk = eight_megabytes
    command = f"{' '.join(COMMAND)} {reference}"
    script = (
        f"{command} --no-space-check; echo first $?; ls {disk}/home/parts;"
        f"mount -o remount,size=40m {disk}; {command}; echo second $?; sha256sum {disk}/home/blobs/*"
    )
    done = in_small_home(script, disk, 6)
    assert "first 7" in done.stdout, done
    assert ".part" in done.stdout
    assert "the disk is full" in done.stderr
    assert "second 0" in done.stdout, done.stderr
    assert sha256(content) in done.stdout.splitlines()[-1]
    assert server.sent() < 1.5 * len(content)


def test_a_pulled_model_is_used_from_a_store_that_cannot_be_written(far, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(toy), prepend=os.pathsep)
    with FaultyServer({"/f": toy_safetensors()}) as server:
        reference = far.variant("a", {"source": [server.url("/f")]})
        manifest = pull(reference)
    # Root may write anywhere, so the store is mounted read-only.
    code = (
        "import sys, zoo; from zoo.store.pull import pull;"
        "print(len(zoo.sample(sys.argv[1])), len(pull(sys.argv[1]).files))"
    )
    script = f"mount --bind -o ro {home()} {home()} && mount -o remount,ro,bind {home()};"
    script += f"touch {home()}/x 2>/dev/null && exit 99; {sys.executable} -c '{code}' {reference}"
    done = in_small_home(script, tmp_path / "any", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", str(len(manifest.files))]


def test_a_store_that_cannot_be_written_is_said_in_one_line(far, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file" / "home"))
    with FaultyServer({"/f": toy_safetensors()}) as server:
        reference = far.variant("a", {"source": [server.url("/f")]})
        done = subprocess.run([*COMMAND, reference], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the store cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
