"""Pictures and texts of prompt files: `zoo sample --task NAME --prompts FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pictures_method import DARK, LIGHT, TELL, digest, listing
from prompt_folders import manifest

from zoo.io.artifacts import Image
from zoo.io.text import Text, read_text
from zoo.runtime.sampling import tell_text


def write_lines(path, *lines):
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("\n".join(map(json.dumps, lines)))


def test_lines_name_pictures_beside_the_file(zoo, given):
    Path("deep").mkdir()
    Path("dark.png").rename("deep/dark.png")
    write_lines(
        "deep/p.jsonl",
        {"image": "dark.png"},
        {"image": {"image": str(Path("light.png").absolute())}, "prompt": "And?", "num": 2},
        {"image": "dark.png", "prompt": "Eh?"},
    )
    arguments = (*TELL, "--prompts", "deep/p.jsonl")
    shown = [DARK, *["And? 5 by 5, level 0.800."] * 2, "Eh? 6 by 4, level 0.200."]
    assert zoo(*arguments).lines == shown and listing() == ["deep", "light.png"]
    document = zoo(*arguments, "--json").json
    assert document["manifest"] is None
    assert [one["text"] for one in document["outputs"]] == shown
    places = [(one["line"], one["index"], one["path"]) for one in document["outputs"]]
    assert places == [(1, 0, None), (2, 0, None), (2, 1, None), (3, 0, None)]
    assert document["outputs"][0]["images"] == {
        "image": {"sha256": digest("deep/dark.png"), "path": "deep/dark.png"}
    }


def test_texts_of_a_file_go_on_where_they_ended(zoo, given):
    lines = [{"image": "dark.png"}, {"image": "light.png"}, {"image": "dark.png", "prompt": "Eh?"}]
    write_lines("p.jsonl", *lines)
    arguments = (*TELL, "--prompts", "p.jsonl", "-o", "out")
    names = zoo(*arguments).lines
    assert sorted(Path(name).name for name in names) == [
        "line00001-toypictures-base-dark-seed0.json",
        "line00002-toypictures-base-light-seed0.json",
        "line00003-toypictures-base-eh-seed0.json",
    ]
    noted = {line["line"]: line["images"]["image"]["path"] for line in manifest()}
    assert noted == {1: "dark.png", 2: "light.png", 3: "dark.png"}
    assert zoo(*arguments).lines == []
    # The same picture under another name is the same picture; another picture of the same name is not.
    Path("dark.png").rename("renamed.png")
    write_lines("p.jsonl", {"image": "renamed.png"}, lines[1], {"image": "light.png", "prompt": "Eh?"})
    (name,) = zoo(*arguments).lines
    assert Path(name).name == "line00003-toypictures-base-eh-seed0-2.json"
    assert read_text(name).text == "Eh? 5 by 5, level 0.800."


def test_one_picture_for_all_lines(zoo, given):
    Path("p.txt").write_text('What?\n{"prompt": "And?", "image": "light.png"}\nEh?\n')
    arguments = (*TELL, "--prompts", "p.txt", "--image", "dark.png")
    assert zoo(*arguments).lines == [DARK, "And? 5 by 5, level 0.800.", "Eh? 6 by 4, level 0.200."]
    refused = zoo(*arguments, "--image", "light.png")
    assert refused.code == 2 and "several pictures were given as 'image', expected one" in refused.err


def test_a_file_of_one_prompt_is_printed_while_it_is_made(zoo, telling, capfd):
    seen = []

    def sample(loaded, batch, options, noise, on_step):
        tell_text(on_step, 0, "a ")
        seen.append(capfd.readouterr().out)
        return [Text("a ring")]

    telling(sample)
    Path("p.txt").write_text("What?\n")
    assert zoo(*TELL, "--prompts", "p.txt", "--image", "dark.png").out == "ring\n" and seen == ["a "]


def test_texts_of_several_groups_are_printed_in_the_order_of_the_file(zoo, given):
    fine = {"digits": 1}
    write_lines(
        "p.jsonl",
        {"prompt": "1"},
        {"prompt": "2", "options": fine},
        {"prompt": "3"},
        {"prompt": "4", "options": fine},
    )
    result = zoo(*TELL, "--prompts", "p.jsonl", "--image", "dark.png")
    levels = ("0.200", "0.2", "0.200", "0.2")
    assert result.lines == [f"{i} 6 by 4, level {level}." for i, level in enumerate(levels, start=1)]


def test_pictures_and_texts_in_one_file(zoo, given):
    write_lines(
        "p.jsonl", {"image": "dark.png", "sampler": "toy-tell"}, {"prompt": "turn", "image": "dark.png"}
    )
    arguments = ("sample", "toypictures", "--sampler", "toy-mirror", "--prompts", "p.jsonl")
    result = zoo(*arguments)
    assert result.lines[0] == DARK and Path(result.lines[1]).suffix == ".png"
    again = zoo(*arguments, "--json").json
    assert [entry["kind"] for entry in again["outputs"]] == ["text"]
    assert [entry["kind"] for entry in again["skipped"]] == ["image"]
    assert [line["kind"] for line in manifest(".")] == ["image"]


def test_many_pictures_are_drawn_in_parts(zoo, given, monkeypatch):
    monkeypatch.setattr("zoo_cli.prompt_jobs.MOST_PICTURE_BYTES", 3 * 4 * 5 * 5 + 3 * 4 * 4 * 6 - 1)
    batches = []
    import zoo_toy_pictures.sampling as sampling

    original = sampling.tell

    def tell(loaded, batch, options, noise, on_step):
        batches.append(len(batch))
        return original(loaded, batch, options, noise, on_step)

    monkeypatch.setattr(sampling, "tell", tell)
    names = ("dark.png", "dark.png", "light.png", "light.png", "dark.png")
    write_lines("p.jsonl", *({"image": name} for name in names))
    shown = {"dark.png": DARK, "light.png": LIGHT}
    assert zoo(*TELL, "--prompts", "p.jsonl").lines == [shown[name] for name in names]
    assert batches == [2, 2, 1]


def test_a_picture_that_changes_while_others_are_drawn(zoo, given, monkeypatch):
    import zoo_toy_pictures.sampling as sampling

    original = sampling.tell

    def tell(loaded, batch, options, noise, on_step):
        Image(torch.full((3, 2, 2), 0.5)).save("light.png", overwrite=True)
        return original(loaded, batch, options, noise, on_step)

    monkeypatch.setattr(sampling, "tell", tell)
    monkeypatch.setattr("zoo_cli.prompt_jobs.MOST_WITH_PICTURES", 1)
    monkeypatch.setattr("zoo_cli.input_pictures._KEPT", 0)
    write_lines("p.jsonl", {"image": "dark.png"}, {"image": "light.png"})
    result = zoo(*TELL, "--prompts", "p.jsonl")
    assert (result.code, result.lines) == (2, [DARK])
    assert "light.png is another picture than it was when the prompts were checked" in result.err


def test_what_is_wrong_with_the_pictures_of_lines(zoo, given, no_loading):
    write_lines(
        "p.jsonl",
        {"image": "none.png"},
        {"image": 3},
        {"image": {}},
        {"image": {"other": "dark.png"}},
        {"prompt": "What?"},
        {"image": "dark.png", "task": "mirror"},
    )
    err = zoo(*TELL, "--prompts", "p.jsonl").err
    assert "p.jsonl has 6 mistakes" in err
    for text in (
        "line 1: none.png does not exist",
        "line 2: image is 3, expected a path, or an object of paths by role",
        "line 3: image is {}, expected a path",
        "line 4: ",
        "line 5: ",
        "and 1 more, in lines 6",
    ):
        assert text in err, err
    write_lines("p.jsonl", {"image": "dark.png", "task": "mirror"})
    assert "unknown key 'task'" in zoo(*TELL, "--prompts", "p.jsonl").err
    write_lines("p.jsonl", {"image": "dark.png", "sampler": "toy-mirror"})
    assert "both a task and a sampler" in zoo(*TELL, "--prompts", "p.jsonl").err


def test_what_is_wrong_with_the_command_is_told_once(zoo, given, no_loading):
    Path("p.txt").write_text("a\nb\nc\n")
    for arguments, text in (
        (("--image", "none.png"), "none.png does not exist"),
        (("-O", "digit=1"), "digit"),
        (("--image", "dark.png", "-o", "a.json"), "a.json is one file, expected a folder"),
    ):
        result = zoo(*TELL, "--prompts", "p.txt", *arguments)
        assert result.code == 2 and text in result.err and "line 1" not in result.err, result.err
