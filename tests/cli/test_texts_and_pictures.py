"""Tasks, input pictures and texts on the command line: `--task`, `--image`, printing, files and replay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pictures_method import DARK, LIGHT, TELL, digest, listing

from zoo.io.artifacts import Image
from zoo.io.images import read_image
from zoo.io.metadata import read_provenance, read_provenances
from zoo.io.text import Text, read_text
from zoo.runtime.sampling import tell_text

ROOT = Path(__file__).resolve().parents[2]


# Tasks and pictures


def test_a_picture_is_described_and_nothing_is_written(zoo, given):
    before = listing()
    result = zoo(*TELL, "--image", "dark.png")
    assert (result.code, result.out) == (0, f"{DARK}\n"), result.err
    assert "toypictures:base: 1 sample in" in result.err and listing() == before


def test_a_question_about_a_picture(zoo, given):
    result = zoo(*TELL, "--image", "dark.png", "-p", "How light?")
    assert result.out == "How light? 6 by 4, level 0.200.\n"


def test_a_picture_is_changed_as_the_prompt_says(zoo, given):
    arguments = ("sample", "toypictures", "--task", "mirror", "--image", "dark.png", "-p", "turn it")
    result = zoo(*arguments, "-O", "share=1", "-o", "a.png")
    assert result.lines == ["a.png"], result.err
    assert (read_image("a.png") - 0.2).abs().max() < 0.01
    made = read_provenance("a.png")
    assert made.images == {"image": {"sha256": digest("dark.png"), "path": "dark.png"}}
    assert (made.prompt, made.sampler, made.options["share"]) == ("turn it", "toy-mirror", 1.0)


def test_each_task_has_its_own_defaults(zoo, given):
    for task, share in (("mirror", 0.5), ("fade", 0.125), ("image-editing", 0.5)):
        arguments = ("--task", task, "--image", "dark.png", "-p", "turn", "-o", f"{task}.png")
        assert zoo("sample", "toypictures", *arguments).code == 0
        assert read_provenance(f"{task}.png").options["share"] == share
    assert zoo("sample", "toypictures", "-o", "plain.png").code == 0
    assert read_provenance("plain.png").sampler == "toy-plain"


def test_pictures_in_several_roles(zoo, given):
    Image(torch.full((3, 4, 6), 0.6)).save("a=b.png")
    arguments = ("--task", "blend", "--image", "dark.png", "--image", "other=./a=b.png", "-o", "a.png")
    result = zoo("sample", "toypictures", *arguments)
    assert result.code == 0, result.err
    assert (read_image("a.png") - 0.4).abs().max() < 0.01
    assert set(read_provenance("a.png").images) == {"image", "other"}


def test_json_tells_text_and_pictures(zoo, given):
    result = zoo(*TELL, "--image", "dark.png", "--json")
    document = result.json
    assert document["sampler"] == "toy-tell" and document["outputs"] == [
        {
            "path": None,
            "kind": "text",
            "text": DARK,
            "seed": 0,
            "prompt": None,
            "part_prompts": [],
            "class": None,
            "images": {"image": {"sha256": digest("dark.png"), "path": "dark.png"}},
        }
    ]
    (entry,) = zoo(*TELL, "--image", "dark.png", "--json", "-o", "a.json").json["outputs"]
    assert (entry["path"], entry["text"]) == ("a.json", DARK)


def test_several_pictures_are_described_in_order(zoo, given):
    both = ("--image", "dark.png", "--image", "light.png")
    assert zoo(*TELL, *both).lines == [DARK, LIGHT]
    assert zoo(*TELL, *both, "--batch-size", 1, "-q").lines == [DARK, LIGHT]
    assert zoo(*TELL, *both, "-p", "A?", "-p", "B?").lines == [
        "A? 6 by 4, level 0.200.",
        "B? 5 by 5, level 0.800.",
    ]
    assert [entry["text"] for entry in zoo(*TELL, *both, "-n", 2, "--json").json["outputs"]] == [
        *[DARK] * 2,
        *[LIGHT] * 2,
    ]


def test_with_out_texts_are_files_named_after_their_pictures(zoo, given):
    result = zoo(*TELL, "--image", "dark.png", "--image", "light.png", "-o", "out")
    names = ["out/toypictures-base-dark-seed0.json", "out/toypictures-base-light-seed1.json"]
    assert result.lines == names
    assert read_text(names[1]).text == LIGHT and read_text(names[1]).provenance.seed == 1
    assert zoo(*TELL, "--image", "dark.png", "-o", "a.txt").lines == ["a.txt"]
    assert Path("a.txt").read_bytes() == f"{DARK}\n".encode()
    arguments = (*TELL, "--image", "dark.png", "-p", "What is it?", "-o", "out/", "--format", "txt", "-q")
    assert zoo(*arguments).lines == ["out/toypictures-base-what-is-it-seed0.txt"]


def test_a_configured_folder_is_for_files(zoo, given):
    assert zoo("config", "set", "out", "elsewhere").code == 0
    assert zoo(*TELL, "--image", "dark.png").lines == [DARK]
    assert not Path("elsewhere").exists()


def test_a_sheet_shows_texts_beside_what_is_printed(zoo, given):
    result = zoo(*TELL, "--image", "dark.png", "--image", "light.png", "--grid")
    sheet = "toypictures-base-grid-seed0.png"
    assert result.lines == [DARK, LIGHT, sheet]
    assert [made.seed for made in read_provenances(sheet)] == [0, 1]
    document = zoo(*TELL, "--image", "dark.png", "--grid", "-o", "s.png", "--json").json
    assert (document["grid"], document["outputs"][0]["path"]) == ("s.png", "s.png")


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("--task", "tel", "--image", "dark.png"), ("no task 'tel'", "Did you mean: tell?", "mirror")),
        (("--task", "tell", "--sampler", "toy-tell"), ("both a task and a sampler", "--task or --sampler")),
        (("--task", "tell"), ("needs a picture", "--image FILE")),
        (("--task", "blend", "--image", "dark.png"), ("needs a picture", "--image other=FILE")),
        (("--image", "dark.png"), ("toy-plain", "image")),
        (("--task", "mirror", "--image", "dark.png"), ("prompt", "--prompt")),
        (("--task", "tell", "--image", "none.png"), ("none.png does not exist",)),
        (("--task", "tell", "--image", "words.txt"), ("words.txt is not a picture",)),
        (("--task", "tell", "--image", "image="), ("'image=' names no file", "ROLE=FILE")),
        (
            ("--task", "tell", "--image", "dark.png", "--format", "txt"),
            ("--format txt is for files, and a text is printed", "--out"),
        ),
        (
            ("--task", "tell", "--image", "dark.png", "-o", "a.png"),
            ("has the name of a picture", "json (.json)"),
        ),
        (("-o", "a.txt"), ("unknown picture format '.txt'", "png")),
        (
            ("--task", "tell", *("--image", "dark.png") * 2, *("-p", "a") * 3),
            ("2 pictures were given as 'image', expected 1 or one for each of the 3 prompts",),
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(zoo, given, no_loading, arguments, texts):
    Path("words.txt").write_text("a ring")
    result = zoo("sample", "toypictures", *arguments)
    assert (result.code, result.out) == (2, ""), result.err
    assert all(text in result.err for text in texts), result.err
    assert "Traceback" not in result.err


# Printing


def pieces(*told, text=None):
    """A sampler whose texts come in pieces, and are `text` in the end."""

    def sample(loaded, batch, options, noise, on_step):
        for row in range(len(batch)):
            for piece in told:
                tell_text(on_step, row, piece)
        return [Text("".join(told) if text is None else text)] * len(batch)

    return sample


def test_a_single_text_is_printed_while_it_is_made(zoo, telling, capfd):
    seen = []

    def sample(loaded, batch, options, noise, on_step):
        for piece in ("a red", " circle", "\n", "below"):
            tell_text(on_step, 0, piece)
            seen.append(capfd.readouterr().out)
        return [Text("a red circle\nbelow")]

    telling(sample)
    assert zoo(*TELL, "--image", "dark.png").out == "\n"
    assert seen == ["a red", " circle", "\n", "below"]


@pytest.mark.parametrize("how", [("--json",), ("-q",), ("-o", "a.json"), ("-n", 2)])
def test_no_other_text_is_printed_while_it_is_made(zoo, telling, capfd, how):
    seen = []

    def sample(loaded, batch, options, noise, on_step):
        tell_text(on_step, 0, "a ring")
        seen.append(capfd.readouterr().out)
        return [Text("a ring")] * len(batch)

    telling(sample)
    result = zoo(*TELL, "--image", "dark.png", *how)
    assert result.code == 0 and seen == [""]
    assert result.out.count("a ring") == {"--json": 1, "-q": 1, "-o": 0, "-n": 2}[how[0]]


@pytest.mark.parametrize(
    ("told", "text", "shown"),
    [
        (("a ", "ring"), None, "a ring\n"),
        (("a ring\n",), None, "a ring\n"),
        ((), "a ring", "a ring\n"),
        ((), "", "\n"),
        (("a ",), "a ring", "a ring\n"),
        ((" a", " ring", " \n"), "a ring", " a ring \n"),
        ((" a",), "a ring", " a ring\n"),
        (("a cross",), "a ring", "a cross\na ring\n"),
        (("a\x1b[2J", " ring\x07"), None, "a[2J ring\n"),
    ],
)
def test_the_text_is_printed_once_and_ends_its_line(zoo, telling, told, text, shown):
    telling(pieces(*told, text=text))
    assert zoo(*TELL, "--image", "dark.png").out == shown


def test_texts_are_printed_whole_without_control_characters(zoo, telling):
    telling(pieces(text="a\x1b[2J ring\n"))
    for mode in ((), ("-q",)):
        assert zoo(*TELL, "--image", "dark.png", "-n", 2, *mode).out == "a[2J ring\n" * 2
    assert zoo(*TELL, "--image", "dark.png", "--json").json["outputs"][0]["text"] == "a\x1b[2J ring\n"


def test_a_failure_ends_the_line_that_was_begun(zoo, telling):
    def sample(loaded, batch, options, noise, on_step):
        tell_text(on_step, 0, "a red")
        raise KeyError("the sampler broke")

    telling(sample)
    result = zoo(*TELL, "--image", "dark.png")
    assert (result.code, result.out) == (6, "a red\n") and "the sampler broke" in result.err


@pytest.fixture
def interruptible():
    """A shell starts what runs in its background deaf to interruptions."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_ends_the_line_that_was_begun(zoo, telling, interruptible):
    def sample(loaded, batch, options, noise, on_step):
        tell_text(on_step, 0, "a red")
        os.kill(os.getpid(), signal.SIGINT)
        return [Text("a red ring")]

    telling(sample)
    result = zoo(*TELL, "--image", "dark.png")
    assert (result.code, result.out) == (130, "a red\n") and "0 of 1 sample" in result.err


def test_nobody_who_reads_is_needed(pictures_site, toy_site, given):
    path = os.pathsep.join(map(str, (ROOT, ROOT / "cli", ROOT / "plugins", toy_site, pictures_site)))
    command = f"{sys.executable} -m zoo_cli {' '.join(TELL)} --image dark.png | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ran.stdout == "0\n" and "Traceback" not in ran.stderr, ran.stderr


# Replay


@pytest.fixture
def answer(zoo, given):
    """The file of a text that was made from a picture."""
    assert zoo(*TELL, "--image", "dark.png", "-p", "What?", "-o", "a.json").code == 0
    return "a.json"


def test_a_text_is_replayed_on_stdout_or_into_a_file(zoo, answer):
    before = listing()
    assert zoo("replay", answer).out == f"{DARK}\n" == zoo("replay", answer, "-q").out
    assert listing() == before
    assert zoo("replay", answer, "-O", "digits=1").out == "What? 6 by 4, level 0.2.\n"
    assert zoo("replay", answer, answer).lines == [DARK, DARK]
    (entry,) = zoo("replay", answer, "--json").json["outputs"]
    assert (entry["path"], entry["text"], entry["kind"]) == (None, DARK, "text")
    assert zoo("replay", answer, "-o", "again/").lines == ["again/a-replay.json"]
    assert Path("again/a-replay.json").read_bytes() == Path(answer).read_bytes()
    assert zoo("replay", answer, "-o", "again.txt").lines == ["again.txt"]


def test_a_text_is_replayed_while_it_is_made(zoo, answer, telling, capfd):
    seen = []

    def sample(loaded, batch, options, noise, on_step):
        tell_text(on_step, 0, "a ")
        seen.append(capfd.readouterr().out)
        return [Text("a ring")]

    telling(sample)
    assert zoo("replay", answer).out == "ring\n"
    assert zoo("replay", answer, answer).out == "a ring\n"
    assert seen == ["a ", "", "a ring\n"], "several are printed as a whole, each as soon as it is there"


def test_texts_are_compared_to_the_letter(zoo, answer):
    assert zoo("replay", answer, "--check").lines == ["a.json: identical"]
    made = read_text(answer).provenance
    Text("What? 6 by 4, level 0.25.", made).save("b.json")
    result = zoo("replay", "b.json", "--check")
    told = "b.json: different from character 24 on: '5.' in the file, '00.' now"
    assert (result.code, result.lines) == (1, [told])
    (check,) = zoo("replay", "b.json", "--check", "--json").json["checks"]
    assert check["same"] is False and check["max_difference"] is None


def test_a_plain_text_cannot_be_replayed(zoo, given):
    zoo(*TELL, "--image", "dark.png", "-o", "a.txt")
    result = zoo("replay", "a.txt")
    assert result.code == 2 and "a.txt is plain text" in result.err and "NAME.json" in result.err


def test_the_picture_is_found_again_beside_the_file_or_given(zoo, answer, monkeypatch):
    Path("dark.png").rename("moved.png")
    result = zoo("replay", answer)
    assert result.code == 2 and "dark.png" in result.err and "--image FILE" in result.err
    assert zoo("replay", answer, "--image", "moved.png").lines == [DARK]
    assert zoo("replay", answer, "--image", "moved.png", "--check").lines == ["a.json: identical"]
    result = zoo("replay", answer, "--image", "light.png", "--check")
    assert result.code == 2 and "made from another picture" in result.err
    (entry,) = zoo("replay", answer, "--image", "light.png", "--json").json["outputs"]
    assert entry["text"] == LIGHT and entry["images"]["image"]["path"] == "light.png"
    assert zoo("replay", answer, "--image", "moved.png", "--image", "light.png").code == 2
    # Beside the replayed file, wherever the command runs.
    Path("moved.png").rename("dark.png")
    folder = Path.cwd()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert zoo("replay", folder / answer).lines == [DARK]


def test_a_changed_picture_is_told(zoo, answer):
    Image(torch.full((3, 4, 6), 0.3)).save("dark.png", overwrite=True)
    result = zoo("replay", answer, "--check")
    assert result.code == 2 and "dark.png is not the picture any more" in result.err


def test_an_edited_picture_is_replayed_from_its_picture(zoo, given):
    arguments = ("--task", "mirror", "--image", "dark.png", "-p", "turn", "-n", 2, "--grid", "-o", "out")
    result = zoo("sample", "toypictures", *arguments)
    assert result.code == 0, result.err
    checked = zoo("replay", *result.lines, "--check")
    assert checked.lines == [f"{path}: identical" for path in result.lines], checked.err
    other = zoo("replay", result.lines[0], "--image", "light.png", "-o", "b.png")
    assert other.lines == ["b.png"] and read_image("b.png").shape == (3, 5, 5)
    assert read_provenance("b.png").images["image"]["sha256"] == digest("light.png")


# Show


def test_show_lists_the_tasks(zoo, given):
    lines = zoo("show", "toypictures").lines
    at = lines.index("task fade: sampler toy-mirror")
    assert lines[at + 1] == "  share = 0.125"
    assert lines[lines.index("task blend: sampler toy-blend") + 1] == "  no defaults"
    assert zoo("show", "toypictures", "--json").json["task_samplers"]["tell"] == {
        "name": "toy-tell",
        "digits": 3,
    }
