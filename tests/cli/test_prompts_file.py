"""`zoo sample --prompts`: lines into files, the seeds they get, and what is refused."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from planned_parts import machine, session_of
from prompt_folders import NAMES, PROMPTS, by_prompt, manifest, pictures, prompts, watched

from zoo.errors import PluginError
from zoo.io.metadata import read_provenance
from zoo.io.prompt_files import Line, PromptFile
from zoo.io.request import Request
from zoo_cli.prompt_jobs import Job, read_jobs

__all__ = ["prompts", "watched"]


# What is written


def test_each_sample_gets_a_file_that_tells_line_and_seed(zoo, prompts):
    result = zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    assert result.code == 0, result.err
    assert sorted(Path(line).name for line in result.lines) == sorted(pictures()) == NAMES
    assert "toy:shapes: 4 samples in" in result.err and "seed 0; from prompts.txt" in result.err
    made = read_provenance(Path("out", NAMES[1]))
    assert (made.prompt, made.class_name, made.seed, made.options["steps"]) == (None, "blue ring", 10, 3)
    assert {(entry["path"], entry["line"], entry["index"], entry["seed"]) for entry in manifest()} == {
        (NAMES[0], 2, 0, 0),
        (NAMES[1], 4, 1, 10),
        (NAMES[2], 4, 0, 9),
        (NAMES[3], 5, 0, 0),
    }


def test_json_is_one_document_with_lines_and_skipped_ones(zoo, prompts):
    arguments = ("sample", "toy", "--prompts", prompts, "-o", "out", "--json")
    first = zoo(*arguments)
    document = first.json
    assert first.err == ""
    assert [(entry["line"], entry["index"], entry["seed"]) for entry in document["outputs"]] == [
        (2, 0, 0),
        (4, 0, 9),
        (4, 1, 10),
        (5, 0, 0),
    ]
    assert document["outputs"][1] == {
        "path": str(Path("out", NAMES[2])),
        "kind": "image",
        "line": 4,
        "index": 0,
        "seed": 9,
        "prompt": None,
        "class": "blue ring",
        "negative": None,
        "part_prompts": [],
        "sampler": "toy",
    }
    assert (document["reference"], document["sampler"], document["device"]) == ("toy:shapes", "toy", "cpu")
    assert document["prompts"] == "prompts.txt" and document["seconds"] > 0
    again = zoo(*arguments).json
    assert again["skipped"] == document["outputs"] and again["outputs"] == []
    assert (again["device"], again["dtype"], again["interrupted"]) == (None, None, False)


def test_a_line_gives_what_the_same_prompt_gives_by_itself(zoo, prompts):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out", "--seed", 3, "-n", 2)
    zoo("sample", "toy", "--prompt", "a green cross", "-n", 2, "--seed", 3, "-o", "alone")
    together = by_prompt("out")
    assert len(together) == 6
    assert all(together[key] == data for key, data in by_prompt("alone").items())


def test_settings_of_a_line_come_before_those_of_the_command(zoo, prompts):
    prompts.write_text(
        '{"prompt": "a red circle", "steps": 7, "guidance": 0, "options": {"mode": "flipped"}, "size": 16}\n'
        '{"prompt": "a red ring", "sampler": "toy-flat", "options": {"level": 0.25}}\na blue ring\n'
    )
    assert zoo("sample", "toy", "--prompts", prompts, "-o", "out").code == 0
    first, second, third = (read_provenance(path) for path in sorted(Path("out").glob("*.png")))
    assert (first.options["steps"], first.options["guidance"], first.size) == (7, 0.0, (16, 16))
    assert first.options["mode"] == "flipped" and third.options["mode"] == "plain"
    assert (second.sampler, second.options) == ("toy-flat", {"level": 0.25})
    assert (third.sampler, third.options["steps"], third.size) == ("toy", 3, None)
    prompts.write_text('{"prompt": "a red circle", "options": {"grain": 0.5}}\n')
    zoo("sample", "toy", "--prompts", prompts, "-o", "b", "-O", "grain=0.25", "-O", "mode=flipped")
    (made,) = (read_provenance(path) for path in Path("b").glob("*.png"))
    assert (made.options["grain"], made.options["mode"]) == (0.5, "flipped")


def test_standard_input(zoo, prompts, monkeypatch):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PROMPTS.encode())))
    assert zoo("sample", "toy", "--prompts", "-", "-o", "b").code == 0
    assert pictures("b") == pictures()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a pink unicorn")))
    assert "standard input, line 1: this model" in zoo("sample", "toy", "--prompts", "-", "-o", "b").err


def test_formats_and_metadata_are_those_of_single_samples(zoo, prompts):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out", "--format", "webp", "--no-metadata")
    assert sorted(pictures()) == [name.replace(".png", ".webp") for name in NAMES]
    assert not any(b"toy" in data for data in pictures().values())
    # Pictures in another form are other files.
    assert len(zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines) == 4


# Seeds


@pytest.mark.parametrize("seed", [0, 5])
def test_pictures_do_not_depend_on_the_order_of_lines_or_the_batch(zoo, prompts, seed):
    zoo("sample", "toy", "--prompts", prompts, "-o", "out", "--seed", seed, "-n", 3)
    prompts.write_text("\n".join(reversed(PROMPTS.splitlines())) + "\na red square\n")
    zoo("sample", "toy", "--prompts", prompts, "-o", "b", "--seed", seed, "-n", 3, "--batch-size", 2)
    first, second = by_prompt("out"), by_prompt("b")
    assert len(first) == 8 and len(second) == 11
    assert all(second[key] == data for key, data in first.items())


def test_distinct_seeds_count_over_the_whole_file(zoo, prompts):
    prompts.write_text('a red circle\n{"prompt": "a red ring", "num": 1, "seed": 2}\na red circle\n')
    arguments = ("sample", "toy", "--prompts", prompts, "-n", 2, "--seed", 7, "--json")
    seeds = [entry["seed"] for entry in zoo(*arguments, "--distinct-seeds", "-o", "out").json["outputs"]]
    assert seeds == [7, 8, 2, 10, 11]
    same = [entry["seed"] for entry in zoo(*arguments, "-o", "b").json["outputs"]]
    assert same == [7, 8, 2, 7, 8]


def test_lines_of_equal_settings_are_drawn_together(zoo, watched):
    lines = [
        '{"prompt": "a red circle", "seed": 4}',
        '{"prompt": "a red ring", "steps": 9}',
        '{"prompt": "a blue ring", "options": {"steps": 3}}',
        '{"prompt": "a pink ring", "guidance": 1.0, "num": 2}',
        '{"prompt": "a cyan ring", "steps": 9}',
    ]
    Path("prompts.jsonl").write_text("\n".join(lines))
    assert zoo("sample", "toy", "--prompts", "prompts.jsonl", "-o", "out").code == 0
    # The card's own steps are 3 and the sampler's own guidance is 1.
    assert watched == [
        [
            ("a red circle", None, 4),
            ("a blue ring", None, 0),
            ("a pink ring", None, 0),
            ("a pink ring", None, 1),
        ],
        [("a red ring", None, 0), ("a cyan ring", None, 0)],
    ]


def test_two_equal_lines_are_two_pictures(zoo, prompts):
    prompts.write_text("a red circle\na red circle\n")
    assert len(zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines) == 2
    assert len(set(pictures().values())) == 1 and len(pictures()) == 2
    Path("out", sorted(pictures())[1]).unlink()
    (path,) = zoo("sample", "toy", "--prompts", prompts, "-o", "out").lines
    assert Path(path).name.startswith("line00002") and len(pictures()) == 2


# What is refused, and before anything is loaded


def test_all_mistakes_are_told_at_once_and_nothing_is_drawn(zoo, prompts, monkeypatch):
    monkeypatch.setattr("zoo.runtime.model.load", lambda *args, **kwargs: pytest.fail("loaded"))
    prompts.write_text(
        "a red circle\na mauve circle\n"
        '{"prompt": "a red ring", "stesp": 3}\n'
        '{"class": 48}\n{"prompt": "a red ring", "options": {"grian": 1}}\n'
        '{"prompt": "a red ring", "sampler": "toy-needy"}\n'
        '{"prompt": "a red ring", "negative": "dust"}\n{"class": "blue rng"}\n'
    )
    result = zoo("sample", "toy", "--prompts", prompts, "-o", "out", "--json")
    assert (result.code, result.out, os.path.exists("out")) == (2, "", False)
    assert "Error: prompts.txt has 7 mistakes" in result.err
    for text in (
        "line 2: this model does not know the word 'mauve'. It knows: red",
        "line 3: unknown key 'stesp'. Did you mean: steps?",
        "line 4: class 48 is out of range, expected 0 to 47",
        "line 5: sampler 'toy' has no option 'grian'. Did you mean: grain",
        "line 6: sampler 'toy-needy' needs denoiser",
        "and 2 more, in lines 7-8",
    ):
        assert text in result.err
    assert "line 7:" not in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (("absent.txt",), 2, ("absent.txt: no such file",)),
        ((".",), 2, (". is a folder, expected a text or JSONL file",)),
        (("empty.txt",), 2, ("empty.txt holds no prompt",)),
        (("prompts.txt", "-p", "a red ring"), 2, ("--prompts does not go with --prompt",)),
        (("prompts.txt", "--class", 1), 2, ("--prompts does not go with --class",)),
        (("prompts.txt", "--grid"), 2, ("--prompts does not go with --grid",)),
        (("prompts.txt", "--overwrite"), 2, ("finished samples are never replaced",)),
        (("prompts.txt", "-o", "a.png"), 2, ("a.png is one file, expected a folder", "--out a/")),
        (("prompts.txt", "-o", "prompts.txt"), 2, ("prompts.txt is one file, expected a folder",)),
        (("prompts.txt", "-o", "taken/manifest.jsonl"), 1, ("manifest.jsonl is a file, not a folder",)),
        (("prompts.txt", "--steps", 3, "--sampler", "toy-flat"), 2, ("has no option 'steps'",)),
        (("prompts.txt", "--seed", 2**63 - 2, "-n", 2), 2, ("seed is 9223372036854775806",)),
        (("prompts.txt", "--negative", "dust"), 2, ("takes no negative prompt",)),
        (("prompts.txt", "--weights", "absent"), 2, ("absent: no such file",)),
        (("prompts.txt", "-o", "taken"), 1, ("manifest.jsonl is not a manifest of samples",)),
        (("taken/manifest.jsonl", "-o", "taken"), 2, ("is the place of the folder's manifest",)),
    ],
)
def test_mistakes_are_found_before_loading(zoo, prompts, monkeypatch, arguments, code, texts):
    monkeypatch.setattr("zoo.runtime.model.load", lambda *args, **kwargs: pytest.fail("loaded"))
    Path("empty.txt").write_text("# nothing\n\n")
    Path("taken").mkdir()
    Path("taken", "manifest.jsonl").write_text('{"prompt": "a red ring"}\n')
    result = zoo("sample", "toy", "--prompts", *arguments)
    assert (result.code, result.out) == (code, ""), result.err
    assert all(text in result.err for text in texts), result.err
    assert "Traceback" not in result.err
    assert sorted(os.listdir()) == ["empty.txt", "prompts.txt", "taken"]
    assert os.listdir("taken") == ["manifest.jsonl"]


def test_distinct_seeds_need_a_file(zoo, toy):
    result = zoo("sample", "toy", "--distinct-seeds")
    assert result.code == 2 and "--distinct-seeds is for --prompts" in result.err


def test_models_that_are_not_there_are_told_before_anything_is_made(zoo, prompts):
    prompts.write_text('{"class": 0}')
    result = zoo("sample", "toy:unpublished", "--prompts", prompts, "-o", "out")
    assert result.code == 2 and "this model has no classes" in result.err
    result = zoo("sample", "toytext", "--prompts", prompts, "--weights", "absent", "-o", "out")
    assert result.code == 2 and not Path("out").exists()


def test_what_fails_while_drawing_leaves_no_empty_folder(zoo, prompts):
    result = zoo("sample", "toy", "--prompts", prompts, "-o", "out", "-O", "fail=yes")
    assert result.code == 6 and not Path("out").exists()
    Path("out").mkdir()
    zoo("sample", "toy", "--prompts", prompts, "-o", "out", "-O", "fail=yes")
    assert Path("out").is_dir(), "a folder of the user's is left alone"


def test_packages_that_the_options_need_are_missed_before_any_line_is_read(tmp_path, monkeypatch):
    """Once, as an error of its own, and not as a mistake of every line; what is not used may be missing."""
    machine(monkeypatch)
    session = session_of(tmp_path, decoder={"architecture": "lacking"}, tokenizer={"architecture": "lacking"})
    lines = tuple(Line(number, prompt="a cat") for number in (1, 2))

    def jobs(decoder: str) -> list[Job]:
        defaults = Request(options={"decoder": decoder})
        return read_jobs(session, "planned:one", PromptFile("lines.txt", lines), defaults)

    assert len(jobs("none")) == 2
    for decoder in ("pixel", "diffusion"):
        with pytest.raises(PluginError, match="absent_package:Decoder cannot be loaded"):
            jobs(decoder)
