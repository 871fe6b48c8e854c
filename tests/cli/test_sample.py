"""`zoo sample`: what is written, what is printed, and every way to be refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from safetensors.torch import save_file

from zoo.cards import load_card
from zoo.catalogue import Catalogue
from zoo.io.metadata import read_provenance, read_provenances
from zoo.runtime import memory
from zoo.session import Session
from zoo.training.run import initialised

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_loading(monkeypatch):
    """Fail the test if anything is loaded."""
    import zoo.runtime.model

    def load(*args, **kwargs):
        raise AssertionError("a mistake was not found before loading")

    monkeypatch.setattr(zoo.runtime.model, "load", load)


def environment(site, **more):
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "cli", ROOT / "plugins", site))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


# What is written


def test_a_picture_lands_in_the_current_folder(zoo):
    result = zoo("sample", "toy:shapes", "--prompt", "a red circle")
    assert result.code == 0
    assert result.lines == ["toy-shapes-a-red-circle-seed0.png"]
    assert "toy:shapes: 1 sample in" in result.err and "cpu, float32, seed 0" in result.err
    made = read_provenance(result.lines[0])
    assert (made.prompt, made.class_name, made.seed, made.options["steps"]) == (
        "a red circle",
        "red circle",
        0,
        3,
    )


def test_the_same_command_gives_the_same_picture_under_a_new_name(zoo):
    first, second = (zoo("sample", "toy", "-p", "a red circle").lines[0] for _ in range(2))
    assert second == "toy-shapes-a-red-circle-seed0-2.png"
    assert Path(first).read_bytes() == Path(second).read_bytes()
    other = zoo("sample", "toy", "-p", "a red circle", "--seed", 1).lines[0]
    assert Path(first).read_bytes() != Path(other).read_bytes()


def test_a_picture_does_not_depend_on_its_batch(zoo):
    arguments = ("sample", "toy", "-n", 5, "--seed", 3)
    zoo(*arguments, "-o", "a")
    zoo(*arguments, "-o", "b", "--batch-size", 2)
    zoo("sample", "toy", "--seed", 6, "-o", "c")
    a, b = sorted(Path("a").iterdir()), sorted(Path("b").iterdir())
    assert [p.name for p in a] == [p.name for p in b] and len(a) == 5
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]
    (alone,) = Path("c").iterdir()
    assert alone.read_bytes() == Path("a", alone.name).read_bytes()


def test_classes_and_numbers(zoo):
    document = zoo("sample", "toy", "--class", "blue ring", "--class", 0, "-n", 2, "--json").json
    assert [entry["class"] for entry in document["outputs"]] == ["blue ring"] * 2 + ["red circle"] * 2
    assert [entry["seed"] for entry in document["outputs"]] == [0, 1, 2, 3]
    assert [
        entry["class"] for entry in zoo("sample", "toy:numbers", "--class", 4, "--json").json["outputs"]
    ] == [4]


def test_json_is_one_document(zoo):
    result = zoo("sample", "toy", "-p", "a red circle", "--json", "-o", "out")
    document = result.json
    assert result.err == ""
    assert document["reference"] == "toy:shapes" and document["sampler"] == "toy"
    assert document["device"] == "cpu" and document["dtype"] == "float32"
    assert document["seconds"] > 0 and document["load_seconds"] >= 0 and document["grid"] is None
    assert document["outputs"] == [
        {
            "path": str(Path("out", "toy-shapes-a-red-circle-seed0.png")),
            "kind": "image",
            "seed": 0,
            "prompt": "a red circle",
            "part_prompts": [],
            "class": "red circle",
        }
    ]


def test_quiet_prints_only_paths(zoo):
    result = zoo("sample", "toy", "-q", "-n", 2)
    assert len(result.lines) == 2 and all(Path(line).is_file() for line in result.lines)
    assert result.err == ""


def test_verbose_tells_memory_threads_and_batches(zoo):
    err = zoo("sample", "toy", "-n", 3, "-v", "--batch-size", 2).err
    assert "loaded toy:shapes in" in err and "threads:" in err and "memory on cpu: about" in err
    assert "drawing 3 in batches of 2" in err


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("deep/er/a.webp", "WEBP")])
def test_a_name_with_a_suffix_is_a_file(zoo, name, kind):
    assert zoo("sample", "toy", "-o", name).lines == [name]
    with PIL.Image.open(name) as picture:
        assert picture.format == kind and picture.size == (32, 32)


def test_a_folder_with_a_suffix_is_a_folder(zoo):
    Path("set.png").mkdir()
    assert zoo("sample", "toy", "-o", "set.png").lines[0].startswith("set.png/toy-")
    assert zoo("sample", "toy", "-o", "v1.png/").lines[0].startswith("v1.png/toy-")


def test_formats_and_settings(zoo, tmp_path):
    assert zoo("sample", "toy", "--format", "webp").lines[0].endswith(".webp")
    config = tmp_path / "config" / "zoo" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        'model = "toy:plain"\nout = "pictures"\nformat = "jpeg"\ndtype = "bfloat16"\ndevice = "cpu"\n'
    )
    document = zoo("sample", "--json").json
    assert document["reference"] == "toy:plain" and document["dtype"] == "bfloat16"
    assert document["outputs"][0]["path"] == str(Path("pictures", "toy-plain-seed0.jpg"))


def test_no_metadata_leaves_no_trace(zoo):
    path = Path(zoo("sample", "toy", "-p", "a red circle", "--no-metadata").lines[0])
    assert b"toy" not in path.read_bytes() and b"red" not in path.read_bytes()


def test_options_samplers_and_shorthands(zoo):
    path = zoo("sample", "toy", "-O", "grain=0.5", "-O", "mode=flipped", "--steps", 9, "--guidance", 2).lines[
        0
    ]
    options = read_provenance(path).options
    assert (options["grain"], options["mode"], options["steps"], options["guidance"]) == (
        0.5,
        "flipped",
        9,
        2.0,
    )
    path = zoo("sample", "toy", "--sampler", "toy-flat", "-O", "level=0.25").lines[0]
    assert read_provenance(path).sampler == "toy-flat"
    with PIL.Image.open(path) as picture:
        assert picture.getpixel((5, 5)) == (64, 64, 64)


def test_size_is_width_by_height(zoo):
    assert read_provenance(zoo("sample", "toy", "--size", "48x32").lines[0]).size == (32, 48)
    assert read_provenance(zoo("sample", "toy", "--size", "16").lines[0]).size == (16, 16)


def test_a_random_seed_is_shown_and_repeats_the_picture(zoo):
    result = zoo("sample", "toy", "--seed", "random", "-o", "a.png")
    seed = read_provenance("a.png").seed
    assert f"seed {seed}" in result.err
    zoo("sample", "toy", "--seed", seed, "-o", "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_your_own_weights(zoo, toy):
    result = zoo("sample", "toy:misfit", "--weights", toy / "zoo_toy/cards/weights/toy.safetensors")
    assert result.code == 1 and "does not fit the architecture" in result.err
    assert zoo("sample", "toy:remote", "--weights", toy / "zoo_toy/cards/weights/toy.safetensors").code == 0


# Contact sheets


def test_a_grid_beside_the_single_pictures(zoo):
    result = zoo("sample", "toy", "-p", "a red circle", "-p", "a blue ring", "-n", 2, "--grid", "-o", "out")
    assert len(result.lines) == 5 and result.lines[-1] == str(Path("out", "toy-shapes-grid-seed0.png"))
    sheet = read_provenances(result.lines[-1])
    assert [made.seed for made in sheet] == [0, 1, 2, 3]
    assert [made.class_name for made in sheet] == ["red circle"] * 2 + ["blue ring"] * 2


def test_a_named_grid_is_all_that_is_written(zoo):
    document = zoo("sample", "toy", "-n", 4, "--grid", "-o", "sheet.png", "--json").json
    assert os.listdir() == ["sheet.png"] and document["grid"] == "sheet.png"
    assert [entry["path"] for entry in document["outputs"]] == ["sheet.png"] * 4
    with PIL.Image.open("sheet.png") as picture:
        assert picture.size == (66, 66)


# What is refused, and before anything is loaded


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (("nothing",), 3, ("no model is called 'nothing'", "Hint:")),
        (("toy:shaps",), 3, ("Did you mean: toy:shapes?",)),
        (("toy", "-p", "a mauve circle"), 2, ("does not know the word 'mauve'", "It knows: red")),
        (("toy", "-p", "circle"), 2, ("does not name exactly one class",)),
        (("toy", "--class", 48), 2, ("class 48 is out of range, expected 0 to 47",)),
        (("toy", "--class", "blue rng"), 2, ("there is no class 'blue rng'", "Nearest classes: blue ring")),
        (("toy", "-p", "a red ring", "--class", "1"), 2, ("both prompts and classes",)),
        (("toy:plain", "-p", "a red ring"), 2, ("unconditional: it takes no prompt",)),
        (("toy", "--steps", "abc"), 2, ("'--steps'", "not a valid integer")),
        (("toy", "--steps", 0), 2, ("'--steps'",)),
        (("toy", "--sampler", "toy-flat", "--steps", 5), 2, ("sampler 'toy-flat' has no option 'steps'",)),
        (("toy", "--sampler", "toy-needy"), 2, ("needs denoiser", "It offers: painter")),
        (("toy", "--sampler", "nope"), 6, ("no plugin provides the sampler 'nope'",)),
        (("toy", "--sampler", "toy-missing"), 6, ("plugin 'toy': zoo_toy.absent:Options cannot be loaded",)),
        (("toy", "-O", "grian=1"), 2, ("has no option 'grian'", "Did you mean: grain")),
        (("toy", "-O", "grain=x"), 2, ("option grain is 'x', expected a number",)),
        (("toy", "-O", "grain=-1"), 2, ("grain is -1.0, expected at least 0",)),
        (("toy", "-O", "grain"), 2, ("is not of the form key=value",)),
        (("toy", "--guidance", "nan"), 2, ("guidance is nan",)),
        (("toy", "-n", 0), 2, ("'-n' / '--num'",)),
        (("toy", "--seed", -1), 2, ("seed is -1",)),
        (("toy", "--seed", "randm"), 2, ("'randm' is not a whole number or 'random'",)),
        (("toy", "--size", "0x8"), 2, ("'0x8' is not a size",)),
        (("toy", "--size", "big"), 2, ("'big' is not a size",)),
        (("toy", "--format", "gif"), 2, ("unknown picture format 'gif'", "png, webp, jpeg")),
        (("toy", "-o", "a.tiff"), 2, ("unknown picture format '.tiff'",)),
        (("toy", "-o", "a.png", "--format", "webp"), 2, ("does not go with the name a.png",)),
        (("toy", "-o", "a.png", "-n", 2), 2, ("one file, but several pictures", "--grid")),
        (("toy", "-o", "there.png"), 1, ("there.png exists already", "--overwrite")),
        (("toy", "-o", "there.png/sub"), 1, ("there.png is a file, not a folder",)),
        (("toy", "-o", "there.png/a.png"), 1, ("there.png is a file, not a folder",)),
        (("toy", "-o", "s.jpg", "--grid", "-n", 65), 2, ("metadata of at most 64 samples",)),
        (("toy", "--nonsense"), 2, ("--nonsense",)),
    ],
)
def test_mistakes_are_found_before_loading(zoo, no_loading, arguments, code, texts):
    Path("there.png").write_bytes(b"kept")
    result = zoo("sample", *arguments, "--json")
    assert result.code == code, result.err
    assert result.out == "" and "Traceback" not in result.err
    assert [line.partition(":")[0] for line in result.err.splitlines() if line[0] != " "] in (
        ["Error"],
        ["Error", "Hint"],
    )
    for text in texts:
        assert text in result.err
    assert os.listdir() == ["there.png"] and Path("there.png").read_bytes() == b"kept"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written(zoo, no_loading):
    result = zoo("sample", "toy", "-o", "/proc/self/pictures")
    assert result.code == 1 and "cannot write to /proc/self/pictures" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("toy:remote",), 3, "the weights of toy:remote are not on this machine"),
        (("toy:unpublished",), 3, "nobody has published weights of toy:unpublished"),
        (("toy:misfit",), 1, "does not fit the architecture: wrong shape of linear.weight"),
        (("toy", "--weights", "absent"), 2, "absent: no such file"),
        (("toy", "--device", "cuda:99"), 2, "device 'cuda:99' is not on this machine"),
        (("toy", "-O", "fail=yes"), 6, "sampler 'toy' of plugin 'toy' failed: KeyError"),
        (("toy", "-O", "limit=0"), 7, "memory ran out on cpu with a single sample"),
    ],
)
def test_what_loading_and_sampling_can_say(zoo, arguments, code, text):
    result = zoo("sample", *arguments)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err


def test_what_does_not_fit_in_memory(zoo, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 10)
    result = zoo("sample", "toy")
    assert (
        result.code == 7 and "toy:shapes needs 88 B on cpu in float32, 80 B more than is free" in result.err
    )


def test_overwrite(zoo):
    Path("a.png").write_bytes(b"old")
    assert zoo("sample", "toy", "-o", "a.png", "--overwrite").code == 0
    assert read_provenance("a.png").seed == 0
    name = zoo("sample", "toy", "-o", "out").lines[0]
    assert zoo("sample", "toy", "-o", "out", "--overwrite").lines == [name]


def test_a_broken_plugin_is_told_and_breaks_nothing_else(zoo, tmp_path, monkeypatch):
    site = tmp_path / "broken"
    (site / "zoo_bad-1.dist-info").mkdir(parents=True)
    (site / "zoo_bad.py").write_text("raise RuntimeError('out of order')\n")
    (site / "zoo_bad-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: zoo-bad\nVersion: 1\n"
    )
    (site / "zoo_bad-1.dist-info" / "entry_points.txt").write_text("[zoo.plugins]\nbad = zoo_bad\n")
    monkeypatch.syspath_prepend(str(site))
    result = zoo("sample", "toy")
    assert result.code == 0
    assert result.err.count("Warning: plugin 'bad' (zoo-bad 1) failed: RuntimeError: out of order") == 1


# Processes


def test_an_interrupt_keeps_what_is_finished(toy):
    command = [sys.executable, "-m", "zoo_cli", "sample", "toy", "-n", "200", "--batch-size", "2"]
    process = subprocess.Popen(
        [*command, "-O", "delay=0.05", "-o", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(toy),
        # A shell without job control starts what it puts in the background, and all below, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    first = [process.stdout.readline().strip() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    kept = sorted(str(path) for path in Path("out").iterdir())
    assert 4 <= len(kept) < 200
    assert f"Warning: interrupted: {len(kept)} of 200 samples were kept" in err
    # The last one may lie there without its name having been printed.
    assert {*first, *out.split()} <= set(kept) and len([*first, *out.split()]) >= len(kept) - 1
    assert sorted(read_provenance(path).seed for path in kept) == list(range(len(kept)))
    assert "Traceback" not in err


TINY = """
schema = 1
method = "tarflow"
title = "TarFlow"
summary = "random weights"
tasks = ["class-to-image"]
default = "tiny"

[variant.tiny]
summary = "8x8"
architecture = "tarflow"
sampler = { name = "tarflow", guidance = 1.0, noise_std = 0.1 }
classes = ["cat", "dog"]

[variant.tiny.config]
in_channels = 3
img_size = 8
patch_size = 2
channels = 16
num_blocks = 2
layers_per_block = 1
num_classes = 2
head_dim = 8

[[variant.tiny.files]]
role = "model"
source = ["tiny.safetensors"]
"""


@pytest.fixture
def tiny_tarflow(toy, tmp_path):
    """A folder with the card of a TarFlow of a few thousand random weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "tarflow.toml").write_text(TINY)
    session = Session(Catalogue({"tarflow": load_card(folder / "tarflow.toml")}))
    card, variant = session.resolve("tarflow:tiny")
    save_file(initialised(session, card, variant, 0).state_dict(), folder / "tiny.safetensors")
    return folder


def test_starting_up_imports_nothing_heavy_beside_torch(toy, tiny_tarflow):
    # What it costs in seconds is measured by benchmarks/startup.py.
    program = (
        "import sys\n"
        "from zoo_cli.main import run\n"
        "code = run(['sample', 'tarflow:tiny', '-p', 'a cat', '-q', '-o', 'out'])\n"
        "heavy = {'rich', 'huggingface_hub', 'sympy', 'torch._dynamo', 'zoo.training'} & set(sys.modules)\n"
        "print(code, 'torch' in sys.modules, *heavy, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(toy, ZOO_CARDS=str(tiny_tarflow)),
        check=True,
    )
    assert done.stderr.split() == ["0", "True"]


def test_tarflow_pictures_do_not_depend_on_their_batch(zoo, tiny_tarflow, monkeypatch):
    monkeypatch.setenv("ZOO_CARDS", str(tiny_tarflow))
    for batch in (5, 2):
        assert zoo("sample", "tarflow", "-n", 5, "--batch-size", batch, "-o", f"b{batch}").code == 0
    for path in Path("b5").iterdir():
        with PIL.Image.open(path) as one, PIL.Image.open(Path("b2", path.name)) as other:
            pairs = zip(one.tobytes(), other.tobytes(), strict=True)
            assert max(abs(x - y) for x, y in pairs) <= 1
    assert zoo("replay", *Path("b5").iterdir(), "--check", "--batch-size", 1).code == 0


@pytest.mark.parametrize("verb", ["sample", "replay", "train", "eval", "bench"])
def test_help_does_not_import_torch(toy, verb):
    program = (
        f"import sys; from zoo_cli.main import run; run(['{verb}', '--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(toy), check=True
    )
    assert done.stdout.startswith("Usage: ") and done.stdout.endswith("False\n")
