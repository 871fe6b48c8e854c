"""`zoo edit`: one layer changes, and every other one stays, byte for byte."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_layerdiff import small_cards, small_network

from zoo.errors import ExitCode
from zoo.io.layers import LayeredImage, read_layers
from zoo.io.metadata import read_provenance

PROMPT = "a red circle left of a blue square on a white background"


@pytest.fixture
def picture(zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CARDS", str(small_cards(tmp_path)))
    result = zoo("sample", "small:layers", "-p", PROMPT, "-o", tmp_path / "picture.ora")
    assert result.code == 0, result.err
    return tmp_path / "picture.ora"


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def layer_files(path: Path) -> list[bytes]:
    """The PNG files of the layers of an .ora file, back to front."""
    image = read_layers(path)
    made = [layer.encoded for layer in image.layers]
    assert all(encoded in members(path).values() for encoded in made)
    return [encoded for encoded in made if encoded is not None]


def test_a_new_prompt_changes_its_layer_and_no_other(zoo, picture: Path) -> None:
    before = layer_files(picture)
    result = zoo("edit", picture, "--layer", 1, "--prompt", "a green ring", "--json")
    assert result.code == 0, result.err
    (output,) = result.json["outputs"]
    assert output == {
        "source": str(picture),
        "path": str(picture.with_name("picture-edit.ora")),
        "kind": "layers",
        "layer": 1,
        "name": "a green ring",
        "redrawn": True,
        "reference": "small:layers",
        "seed": 0,
        "prompt": "a green ring left of a blue square on a white background",
        "part_prompts": ["a white background", "a green ring", "a blue square"],
    }
    after = layer_files(Path(output["path"]))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    made = read_provenance(output["path"])
    assert made.prompt == "a green ring left of a blue square on a white background"
    assert made.part_prompts == ("a white background", "a green ring", "a blue square")
    assert made.options["redraw"] == 1
    assert [layer.name for layer in read_layers(output["path"]).layers] == list(made.part_prompts)


def test_the_files_of_a_folder_stay_too(zoo, picture: Path, tmp_path: Path) -> None:
    assert zoo("sample", "small:layers", "-p", PROMPT, "--format", "folder", "-o", tmp_path / "out").code == 0
    (source,) = (tmp_path / "out").iterdir()
    result = zoo("edit", source, "--layer", 2, "--seed", 9, "-q")
    assert result.code == 0, result.err
    made = Path(result.lines[0])
    assert made == source.with_name(f"{source.name}-edit")
    same = [
        (source / f"layer-{i}.png").read_bytes() == (made / f"layer-{i}.png").read_bytes() for i in range(3)
    ]
    assert same == [True, True, False]
    assert read_provenance(made).seed == 9


def test_edits_follow_each_other(zoo, picture: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.ora", tmp_path / "second.ora"
    assert zoo("edit", picture, "--layer", 1, "-p", "a green ring", "--strength", 0.5, "-o", first).code == 0
    result = zoo("edit", first, "--layer", 2, "-p", "a pink cross", "-O", "steps=3", "-o", second)
    assert result.code == 0, result.err
    original, once, twice = (layer_files(path) for path in (picture, first, second))
    assert (original[0], once[1]) == (twice[0], twice[1])
    made = read_provenance(second)
    assert made.part_prompts == ("a white background", "a green ring", "a pink cross")
    assert (made.options["redraw"], made.options["strength"], made.options["steps"]) == (2, 1.0, 3)


def test_moving_hiding_and_fading_need_no_model(zoo, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = layer_files(picture)
    monkeypatch.setenv("ZOO_PLUGINS", "")
    result = zoo("edit", picture, "--layer", 1, "--move", "4,-2", "--opacity", 0.5, "-o", "moved.ora")
    assert result.code == 0, result.err
    moved = read_layers("moved.ora")
    assert layer_files(Path("moved.ora")) == before
    assert (moved.layers[1].x, moved.layers[1].y, moved.layers[1].opacity) == (4, -2, 0.5)
    assert zoo("edit", "moved.ora", "--layer", 1, "--hide", "-o", "hidden.ora").code == 0
    hidden = read_layers("hidden.ora")
    without = LayeredImage(moved.size, (moved.layers[0], moved.layers[2]))
    assert torch.equal(hidden.composite().pixels, without.composite().pixels)
    assert zoo("edit", "hidden.ora", "--layer", 1, "--show", "-o", "shown.ora").code == 0
    assert torch.equal(read_layers("shown.ora").composite().pixels, moved.composite().pixels)


def test_a_moved_layer_is_seen_where_it_stands(zoo, picture: Path) -> None:
    assert zoo("edit", picture, "--layer", 1, "--move", "9,9", "-o", "moved.ora").code == 0
    drawn = []
    for source in (picture, Path("moved.ora")):
        result = zoo("edit", source, "--layer", 2, "-p", "a green ring", "-q", "-o", f"{source.stem}-2.ora")
        assert result.code == 0, result.err
        drawn.append(read_layers(result.lines[0]).layers[2].pixels)
    assert not torch.equal(*drawn)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["--layer", 1],
            "nothing to change: give one of --prompt, --seed, --strength, --move, --hide, --show",
        ),
        (["--layer", 1, "--opacity", "nan"], "'nan' is not a number"),
        (["--layer", 1, "--strength", "nan"], "'nan' is not a number"),
        (["--layer", 1, "-p", "a red ring at the top"], "'a red ring at the top left of a blue square on"),
        (["--layer", 1, "-p", "a red ring at the top"], "with --whole TEXT"),
        (["--layer", 3, "--move", "1,1"], "there is no layer 3, expected 0 to 2"),
        (["--layer", 3, "-p", "a green ring"], "there is no layer 3, expected 0 to 2"),
        (["--layer", 1, "-p", "a cat"], "this model does not know the word 'cat'"),
        (["--layer", 1, "-p", "a red ring left of a blue ring"], "it names 2 objects, expected one"),
        (["--layer", 1, "--move", "left"], "'left' is not an offset"),
        (["--layer", 1, "-p", "a green ring", "-O", "stepz=3"], "has no option 'stepz'"),
        (["--layer", 1, "--move", "1,1", "-o", "picture.png"], "png"),
        (["--move", "1,1"], "--layer"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(zoo, picture: Path, arguments, problem) -> None:
    there = sorted(Path().rglob("*"))
    result = zoo("edit", picture, *arguments)
    assert result.code == ExitCode.USAGE
    assert problem in result.err and "Traceback" not in result.err
    assert sorted(Path().rglob("*")) == there


def test_a_picture_without_metadata_can_be_arranged_and_not_redrawn(zoo, picture: Path) -> None:
    assert zoo("edit", picture, "--layer", 0, "--opacity", 1, "--no-metadata", "-o", "bare.ora").code == 0
    assert zoo("edit", "bare.ora", "--layer", 1, "--move", "1,0", "-o", "moved.ora").code == 0
    result = zoo("edit", "bare.ora", "--layer", 1, "-p", "a green ring")
    assert result.code == ExitCode.USAGE
    assert "does not tell how it was made" in result.err


def test_a_place_for_a_layer_goes_with_a_whole_that_names_none(zoo, picture: Path) -> None:
    place = "a small red ring at the top left"
    whole = "a small red ring left of a blue square"
    result = zoo("edit", picture, "--layer", 1, "-p", place, "--whole", whole, "--json")
    assert result.code == 0, result.err
    (output,) = result.json["outputs"]
    assert (output["prompt"], output["part_prompts"][1]) == (whole, place)


def test_a_picture_that_does_not_tell_how_it_was_made_has_no_prompts(zoo, picture: Path) -> None:
    assert zoo("edit", picture, "--layer", 1, "--hide", "--no-metadata", "-o", "bare.ora").code == 0
    (output,) = zoo("edit", "bare.ora", "--layer", 1, "--show", "--json").json["outputs"]
    assert (output["path"], output["name"], output["redrawn"]) == ("bare-edit.ora", "layer 1", False)
    assert (output["reference"], output["seed"], output["prompt"], output["part_prompts"]) == (None,) * 3 + (
        [],
    )


def test_the_model_runs_as_it_ran(zoo, picture: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    save_file({name: tensor * 0.5 for name, tensor in small_network().state_dict().items()}, own)
    how = ("--weights", own, "--dtype", "bfloat16")
    assert zoo("sample", "small:layers", "-p", PROMPT, *how, "-o", "mine.ora").code == 0
    result = zoo("edit", "mine.ora", "--layer", 1, "-p", "a green ring", "-o", "edited.ora")
    assert result.code == 0 and "Warning" not in result.err, result.err
    first, then = read_provenance("mine.ora"), read_provenance("edited.ora")
    assert (then.weights, then.dtype) == (first.weights, first.dtype) == (str(own), "bfloat16")
    own.unlink()
    result = zoo("edit", "mine.ora", "--layer", 1, "-p", "a green ring", "-o", "others.ora")
    assert result.code == 0 and "was made with the weights" in result.err


def test_an_edited_picture_is_not_replayed_but_says_what_to_do(zoo, picture: Path) -> None:
    assert zoo("replay", picture, "--check").code == 0
    assert zoo("edit", picture, "--layer", 1, "-p", "a green ring", "-o", "edited.ora").code == 0
    result = zoo("replay", "edited.ora", "--check")
    assert result.code == ExitCode.USAGE
    assert "zoo edit" in result.err
