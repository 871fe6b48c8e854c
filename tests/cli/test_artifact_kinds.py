"""Layered images, and a kind that only a plugin knows, on the command line: artifacts like any other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import PIL.Image
import pytest
import torch
from kinds_method import drawn, kinds_site
from prompt_folders import manifest

from zoo.errors import InvalidInput, PluginError
from zoo.io.artifacts import Image
from zoo.io.finished import digest_of
from zoo.io.grid import grid
from zoo.io.images import read_image
from zoo.io.layers import LayeredImage, read_layers
from zoo.io.metadata import read_provenance, read_provenances
from zoo.io.reading import format_of, read_artifact
from zoo.runtime.sampling import Item
from zoo_cli.prompt_jobs import Job, Settings

__all__ = ["drawn", "kinds_site"]

PARTS = ("--layer-prompt", "sky", "--part-prompt", "a ring")
NAME = "toylayers-free-two-seed0"


@pytest.fixture
def no_loading(monkeypatch):
    monkeypatch.setattr("zoo.runtime.model.load", lambda *args, **kwargs: pytest.fail("loaded"))


def listing(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


# What is written


def test_a_layered_image_is_written_in_its_own_format(zoo, drawn):
    result = zoo("sample", "toylayers", "-p", "two", *PARTS, "--negative", "rain", "-v")
    assert result.code == 0, result.err
    assert result.lines == [f"{NAME}.ora"] and "parts of 'two': 'sky', 'a ring'" in result.err
    assert drawn == [[("two", ("sky", "a ring"), "rain", 0)]]
    image = read_layers(result.lines[0])
    assert [layer.name for layer in image.layers] == ["sky", "a ring"]
    assert image.provenance.part_prompts == ("sky", "a ring") and image.provenance.prompt == "two"


def test_json_tells_kind_and_part_prompts(zoo, drawn):
    (entry,) = zoo("sample", "toylayers", *PARTS, "--json").json["outputs"]
    assert entry == {
        "path": "toylayers-free-sky-a-ring-seed0.ora",
        "kind": "layers",
        "seed": 0,
        "prompt": "",
        "part_prompts": ["sky", "a ring"],
        "class": None,
    }


def test_part_prompts_hold_for_every_prompt(zoo, drawn):
    assert zoo("sample", "toylayers", "-p", "one", "-p", "two", *PARTS, "-n", 2).code == 0
    assert [parts for _, parts, _, _ in drawn[0]] == [("sky", "a ring")] * 4
    assert zoo("sample", "toylayers:shapes", "-p", "a red circle on white").code == 0
    assert [parts for _, parts, _, _ in drawn[1]] == [("a white background", "a red circle")]


def test_a_folder_for_each_sample(zoo, drawn):
    arguments = ("sample", "toylayers", "-p", "two", "--format", "folder", "-o", "out", "-n", 2)
    assert zoo(*arguments).lines == [f"out/{NAME}", f"out/{NAME[:-1]}1"]
    assert zoo(*arguments).lines == [f"out/{NAME}-2", f"out/{NAME[:-1]}1-2"]
    first, again = Path("out", NAME), Path("out", f"{NAME}-2")
    assert first.is_dir() and listing(first) == listing(again)
    assert all(Path(first, name).read_bytes() == Path(again, name).read_bytes() for name in listing(first))
    assert zoo(*arguments, "--overwrite").lines == [f"out/{NAME}", f"out/{NAME[:-1]}1"]
    assert len(listing("out")) == 4


def test_a_name_with_a_suffix_of_the_kind_is_a_file(zoo, drawn):
    assert zoo("sample", "toylayers", "-o", "deep/a.ORA").lines == ["deep/a.ORA"]
    assert read_layers("deep/a.ORA").provenance.seed == 0
    assert zoo("sample", "toylayers", "-o", "deep/a.ORA").code == 1
    assert zoo("sample", "toylayers", "-o", "v1.5").lines == ["v1.5/toylayers-free-seed0.ora"]


def test_the_configured_format_is_for_kinds_that_have_it(zoo, drawn):
    assert zoo("config", "set", "format", "webp").code == 0
    assert zoo("sample", "toylayers", "-p", "two").lines == [f"{NAME}.ora"]
    assert zoo("sample", "toynotes").lines == ["toynotes-base-seed0.note"]
    names = zoo("sample", "toylayers", "--sampler", "toy-composite", "--grid").lines
    assert [Path(name).suffix for name in names] == [".webp", ".webp"]


def test_no_metadata_leaves_no_trace(zoo, drawn):
    zoo("sample", "toylayers", "-p", "secret", *PARTS, "--no-metadata", "-o", "a.ora")
    with pytest.raises(InvalidInput):
        read_provenance("a.ora")
    assert [layer.name for layer in read_layers("a.ora").layers] == ["background", "layer 1"]


# Contact sheets


def test_a_sheet_shows_the_picture_of_each(zoo, drawn):
    result = zoo("sample", "toylayers", "-p", "two", *PARTS, "-n", 3, "--grid", "-o", "out")
    assert [Path(line).suffix for line in result.lines] == [".ora"] * 3 + [".png"]
    sheet = result.lines[-1]
    assert Path(sheet).name == "toylayers-free-two-grid-seed0.png"
    shown = grid([read_layers(path).picture() for path in result.lines[:3]]).pixels
    assert (read_image(sheet) - shown).abs().max() <= 0.51 / 255
    made = read_provenances(sheet)
    assert [one.seed for one in made] == [0, 1, 2]
    assert {one.part_prompts for one in made} == {("sky", "a ring")}


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG"])
def test_a_picture_as_out_is_the_sheet_alone(zoo, drawn, name):
    document = zoo("sample", "toylayers", "-n", 2, "--grid", "-o", name, "--json").json
    assert listing() == [name] and document["grid"] == name
    assert [(entry["path"], entry["kind"]) for entry in document["outputs"]] == [(name, "layers")] * 2
    with PIL.Image.open(name) as picture:
        assert picture.format == {"sheet.png": "PNG", "sheet.JPG": "JPEG"}[name]


def test_previews_lie_beside_the_file(zoo, drawn):
    arguments = ("--preview-every", 1, "--keep-previews", "-o", "out", "-p", "two")
    assert zoo("sample", "toylayers", *arguments).code == 0
    assert listing("out") == [f"{NAME}.ora", f"{NAME}.preview-1.png", f"{NAME}.preview-2.png"]
    assert read_image(Path("out", f"{NAME}.preview-1.png")).shape == (3, 8, 8)
    assert zoo("sample", "toylayers", *arguments[:2], *arguments[3:], "--format", "folder").code == 0
    assert NAME in listing("out") and len(listing("out")) == 4


# Refused before anything is loaded


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (("--format", "png"), 2, ("unknown layers format 'png'", "Formats: ora, folder, psd.")),
        (("--format", "orra"), 2, ("unknown layers format 'orra'", "Did you mean: ora?")),
        (
            ("-o", "a.png"),
            2,
            ("a.png has the name of a picture", "layers", "ora (.ora), folder, psd", "--grid"),
        ),
        (("-o", "a.gif"), 2, ("a.gif has the name of a picture",)),
        (("-o", "a.gif", "--grid"), 2, ("unknown picture format '.gif'", "png, webp, jpeg")),
        (("-o", "a.ora", "--grid"), 2, ("does not name a picture, and a contact sheet is one", "a.png")),
        (("-o", "a.ora", "--format", "psd"), 2, ("--format psd does not go with the name a.ora",)),
        (("-o", "a.png", "--format", "ora", "--grid"), 2, ("--format ora does not go with the name a.png",)),
        (("-o", "a.ora", "-n", 2), 2, ("one file, but several samples", "--out a/", "a picture as --out")),
        (("-o", "s.jpg", "--grid", "-n", 65), 2, ("metadata of at most 64 samples",)),
        (("--sampler", "toy", "-p", "a red ring", *PARTS), 2, ("sampler 'toy' reads no part prompts",)),
        (("--prompts", "p.txt", *PARTS), 2, ("--prompts does not go with --layer-prompt",)),
        (("--prompts", "p.txt", "-o", "a.ora"), 2, ("a.ora is one file, expected a folder",)),
        (("--sampler", "toy-unknown"), 6, ("'hologram' is no kind of artifact", "Kinds: image, layers")),
    ],
)
def test_mistakes(zoo, drawn, no_loading, arguments, code, texts):
    Path("p.txt").write_text("two\n")
    result = zoo("sample", "toylayers", *arguments)
    assert (result.code, result.out) == (code, ""), result.err
    assert all(text in result.err for text in texts), result.err
    assert "Traceback" not in result.err and listing() == ["p.txt"]


def test_part_prompts_for_models_that_read_none(zoo, drawn, no_loading):
    for reference, text in (("toy", "not on text"), ("toytext", "reads no part prompts")):
        result = zoo("sample", reference, "--layer-prompt", "sky")
        assert result.code == 2 and text in result.err and "Leave out --layer-prompt" in result.err
    result = zoo("sample", "toylayers:shapes", "--layer-prompt", "a mauve sky")
    assert result.code == 2 and "does not know the words 'mauve', 'sky'" in result.err


def test_pictures_are_not_named_as_layers(zoo, drawn, no_loading):
    result = zoo("sample", "toy", "-o", "a.ora")
    assert result.code == 2 and "unknown picture format '.ora'" in result.err


# Prompt files


def test_lines_with_part_prompts(zoo, drawn):
    lines = [
        {"prompt": "two", "part_prompts": ["sky", "a ring"]},
        {"part_prompts": ["sea", "a cross", ""], "num": 2},
        {"prompt": "two", "part_prompts": []},
    ]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ("sample", "toylayers", "--prompts", "p.jsonl", "-o", "out", "--format", "folder", "--json")
    document = zoo(*arguments).json
    wanted = [["sky", "a ring"], ["sea", "a cross", ""], ["sea", "a cross", ""], []]
    assert [entry["part_prompts"] for entry in document["outputs"]] == wanted
    assert len(drawn) == 1, "lines that differ in part prompts alone are drawn together"
    names = [Path(entry["path"]).name for entry in document["outputs"]]
    assert names[1] == "line00002-toylayers-free-sea-a-cross-seed0"
    assert listing("out") == sorted([*names, "manifest.jsonl"])
    assert [line["part_prompts"] for line in manifest()] == wanted
    assert read_provenance(Path("out", names[1])).part_prompts == ("sea", "a cross", "")
    again = zoo(*arguments).json
    assert again["outputs"] == [] and again["skipped"] == document["outputs"]
    # A line whose part prompts changed is another sample; the others are not drawn again.
    lines[0]["part_prompts"] = ["sky", "a cross"]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (entry,) = zoo(*arguments).json["outputs"]
    assert (entry["line"], entry["part_prompts"]) == (1, ["sky", "a cross"])
    assert Path(entry["path"]).name == f"{names[0]}-2"


def test_samples_without_part_prompts_keep_the_identity_that_they_had():
    settings = Settings("s", {"steps": 2}, None, Image)
    job = Job(1, 0, Item(0, 3, "a"), settings)
    asked = {"prompt": "a", "class": None, "negative": None, "seed": 3}
    before = digest_of({"format": "png", **asked, "settings": '["s", {"steps": 2}, null]'})
    assert job.digest({"format": "png"}) == before
    parted = Job(1, 0, Item(0, 3, "a", part_prompts=("sky",)), settings)
    assert parted.digest({"format": "png"}) != before


def test_what_is_wrong_with_part_prompts_in_a_line(zoo, drawn, no_loading):
    Path("p.txt").write_text(
        '{"prompt": "two", "part_prompts": "sky"}\n{"prompt": "two", "part_prompts": ["sky", 1]}\n'
        '{"part_prompts": []}\n{"prompt": "a ring", "sampler": "toy", "part_prompts": ["sky"]}\n'
    )
    err = zoo("sample", "toylayers", "--prompts", "p.txt").err
    for text in (
        'line 1: part_prompts is "sky", expected a list of texts',
        'line 2: part_prompts is ["sky", 1], expected a list of texts',
        "line 3: expected prompt or class, got neither",
        "line 4: sampler 'toy' reads no part prompts",
    ):
        assert text in err


def test_lines_may_make_several_kinds(zoo, drawn):
    Path("p.txt").write_text('one\n{"prompt": "two", "sampler": "toy-composite"}\n')
    document = zoo("sample", "toylayers", "--prompts", "p.txt", "-o", "out", "--json").json
    assert [(Path(entry["path"]).suffix, entry["kind"]) for entry in document["outputs"]] == [
        (".ora", "layers"),
        (".png", "image"),
    ]
    assert zoo("sample", "toylayers", "--prompts", "p.txt", "-o", "out", "--json").json["outputs"] == []
    refused = zoo("sample", "toylayers", "--prompts", "p.txt", "-o", "b", "--format", "ora")
    assert refused.code == 2 and "unknown picture format 'ora'" in refused.err


# Replay


@pytest.mark.parametrize(("format", "suffix"), [("ora", ".ora"), ("folder", "")])
def test_replay_writes_the_same_kind_and_format(zoo, drawn, format, suffix):
    zoo("sample", "toylayers", "-p", "two", *PARTS, "--seed", 3, "--format", format, "-o", "out")
    name = f"out/toylayers-free-two-seed3{suffix}"
    drawn.clear()
    (entry,) = zoo("replay", name, "--json").json["outputs"]
    assert drawn == [[("two", ("sky", "a ring"), None, 3)]]
    assert entry == {
        "source": name,
        "path": f"out/toylayers-free-two-seed3-replay{suffix}",
        "kind": "layers",
        "reference": "toylayers:free",
        "seed": 3,
        "prompt": "two",
        "part_prompts": ["sky", "a ring"],
        "class": None,
    }
    first, again = read_layers(name), read_layers(entry["path"])
    assert [layer.encoded for layer in first.layers] == [layer.encoded for layer in again.layers]
    assert first.provenance == again.provenance
    assert zoo("replay", name, "--check").lines == [f"{name}: identical"]
    other = zoo("replay", name, "--seed", 4, "-o", "other.ora").lines
    assert other == ["other.ora"] and read_provenance("other.ora").seed == 4


def test_check_compares_what_the_layers_show(zoo, drawn):
    zoo("sample", "toylayers", "-p", "two", *PARTS, "-o", "a.ora")
    image = read_layers("a.ora")
    dark = torch.where(image.layers[1].pixels > 0.5, 0.0, image.layers[1].pixels)
    image.with_layer(1, pixels=dark).save("changed.ora")
    result = zoo("replay", "a.ora", "changed.ora", "--check", "--json")
    same, changed = result.json["checks"]
    assert result.code == 1 and same["same"] and same["max_difference"] == 0
    assert not changed["same"] and changed["max_difference"] > 50


def test_a_sheet_of_layers_is_replayed_as_a_whole(zoo, drawn):
    zoo("sample", "toylayers", "-p", "one", "-p", "two", *PARTS, "-n", 2, "--grid", "-o", "sheet.png")
    assert zoo("replay", "sheet.png", "--check").lines == ["sheet.png: identical"]
    (path,) = zoo("replay", "sheet.png").lines
    assert path == "sheet-replay.png" and Path(path).read_bytes() == Path("sheet.png").read_bytes()


def test_replay_from_inside_a_folder_of_layers(zoo, drawn, monkeypatch):
    (name,) = zoo("sample", "toylayers", "--format", "folder").lines
    before = Path.cwd()
    monkeypatch.chdir(name)
    (path,) = zoo("replay", ".").lines
    assert Path(path) == before / f"{name}-replay" and Path(path, "layers.json").is_file()


def test_a_picture_of_layers_is_no_layered_image(zoo, drawn):
    zoo("sample", "toylayers", "-o", "a.ora")
    read_layers("a.ora").composite().save("shown.png")
    result = zoo("replay", "shown.png", "--check")
    assert result.code == 2 and "shown.png is not a layered image" in result.err
    assert zoo("replay", "shown.png").lines == ["shown-replay.ora"]
    result = zoo("replay", "a.ora", "-o", "a.png")
    assert result.code == 2 and "a.png has the name of a picture" in result.err


# A kind that only a plugin knows


def test_a_kind_of_a_plugin_is_written_shown_and_replayed(zoo, drawn):
    result = zoo("sample", "toynotes", "-n", 2, "--grid", "-o", "out")
    assert listing("out") == [
        "toynotes-base-grid-seed0.png",
        *(f"toynotes-base-seed{i}.note" for i in (0, 1)),
    ]
    assert [one.seed for one in read_provenances(result.lines[-1])] == [0, 1]
    note = "out/toynotes-base-seed1.note"
    level = json.loads(Path(note).read_text())["level"]
    assert zoo("replay", *result.lines, "--check").lines == [f"{line}: identical" for line in result.lines]
    (entry,) = zoo("replay", note, "--json").json["outputs"]
    assert (entry["path"], entry["kind"]) == ("out/toynotes-base-seed1-replay.note", "note")
    assert Path(entry["path"]).read_bytes() == Path(note).read_bytes()
    Path(note).write_text(Path(note).read_text().replace(f'"level": {level}', f'"level": {255 - level}'))
    changed = zoo("replay", note, "--check", "--json")
    assert changed.code == 1 and changed.json["checks"][0]["max_difference"] == abs(255 - 2 * level)


def test_folders_and_suffixes_of_a_kind_of_a_plugin(zoo, drawn):
    (pile,) = zoo("sample", "toynotes", "--format", "pile").lines
    assert pile == "toynotes-base-seed0" and listing(pile) == ["note.json"]
    assert zoo("replay", pile, "--check").lines == [f"{pile}: identical"]
    assert zoo("replay", pile).lines == [f"{pile}-replay"]
    assert zoo("sample", "toynotes", "-o", "mine.txt").lines == ["mine.txt"]
    assert zoo("replay", "mine.txt", "-o", "out").lines == ["out/mine-replay.note"]
    Path("p.txt").write_text('{"class": 1}\n')
    refused = zoo("sample", "toynotes", "--format", "ora")
    assert refused.code == 2 and "unknown note format 'ora'" in refused.err and "plain, pile" in refused.err


def test_what_no_kind_understands_is_told_as_before(zoo, drawn):
    Path("a.note").write_text("{}")
    Path("a.bin").write_bytes(b"\0\1")
    for name in ("a.note", "a.bin"):
        result = zoo("replay", name)
        assert result.code == 2 and f"{name} is not a picture" in result.err
    zoo("sample", "toynotes", "--no-metadata", "-o", "b.note")
    assert zoo("replay", "b.note").code == 2 and os.path.exists("b.note")


# Reading


def test_artifacts_are_read_by_their_class(zoo, drawn):
    zoo("sample", "toylayers", "-o", "a.ora")
    zoo("sample", "toy", "-o", "a.png")
    assert isinstance(read_artifact("a.ora", LayeredImage), LayeredImage)
    assert read_artifact("a.png", Image).pixels.shape == (3, 32, 32)
    Path("a.png").rename("a.webp")
    assert (format_of(Path("a.webp"), Image), format_of(Path("a.ora"), LayeredImage)) == ("png", "ora")
    assert format_of(Path("none.xyz"), LayeredImage) == "ora"

    class Mute(Image):
        kind = "mute"

    with pytest.raises(PluginError, match="Mute has no class method read"):
        read_artifact("a.webp", Mute)
