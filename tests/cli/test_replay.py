"""`zoo replay`: the same picture again, and telling when it is not."""

from __future__ import annotations

import os
from pathlib import Path

import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from zoo.io.metadata import read_provenance, read_provenances


def pixels(path):
    with PIL.Image.open(path) as picture:
        return picture.tobytes()


def rewritten(path, **texts):
    """A copy of a PNG whose metadata was changed by (old, new) pairs."""
    with PIL.Image.open(path) as picture:
        text = picture.info["zoo"]
        for old, new in texts.values():
            assert old in text
            text = text.replace(old, new)
        info = PngInfo()
        info.add_itxt("zoo", text)
        picture.save("copy.png", pnginfo=info)
    return "copy.png"


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_the_same_picture_beside_the_original(zoo, name):
    zoo("sample", "toy", "-p", "an orange ring", "--seed", 5, "-O", "grain=0.2", "-o", f"out/{name}")
    result = zoo("replay", f"out/{name}")
    stem, suffix = name.split(".")
    assert result.lines == [str(Path("out", f"{stem}-replay.{suffix}"))]
    assert Path(result.lines[0]).read_bytes() == Path("out", name).read_bytes()


def test_json(zoo):
    zoo("sample", "toy", "-p", "a red circle", "-o", "a.png")
    (entry,) = zoo("replay", "a.png", "-o", "b.png", "--json").json["outputs"]
    assert entry == {
        "source": "a.png",
        "path": "b.png",
        "kind": "image",
        "reference": "toy:shapes",
        "seed": 0,
        "prompt": "a red circle",
        "part_prompts": [],
        "class": "red circle",
    }
    (check,) = zoo("replay", "b.png", "--check", "--json").json["checks"]
    assert check == {"source": "b.png", "reference": "toy:shapes", "same": True, "max_difference": 0}


def test_changes(zoo):
    zoo("sample", "toy", "-p", "a red circle", "-o", "a.png")
    zoo("replay", "a.png", "--seed", 3, "--guidance", 2, "-O", "grain=0.1", "-o", "b.png")
    made = read_provenance("b.png")
    assert (made.seed, made.prompt) == (3, "a red circle")
    assert (made.options["guidance"], made.options["grain"], made.options["steps"]) == (2.0, 0.1, 3)
    zoo("sample", "toy", "-p", "a red circle", "--seed", 3, "--guidance", 2, "-O", "grain=0.1", "-o", "c.png")
    assert Path("b.png").read_bytes() == Path("c.png").read_bytes()


def test_a_contact_sheet_is_repeated_as_a_whole(zoo):
    zoo("sample", "toy", "-p", "a red circle", "-p", "a blue ring", "-n", 3, "--grid", "-o", "sheet.png")
    assert zoo("replay", "sheet.png", "--check").lines == ["sheet.png: identical"]
    path = zoo("replay", "sheet.png").lines[0]
    assert path == "sheet-replay.png" and Path(path).read_bytes() == Path("sheet.png").read_bytes()
    assert len(read_provenances(path)) == 6


def test_a_sheet_with_other_columns(zoo, few):
    zoo("eval", few, "--per-class", 2, "--grid", "eval.png", "--renders", 0)
    assert zoo("replay", "eval.png", "--check").lines == ["eval.png: identical"]


def test_several_files_need_a_folder(zoo):
    names = [zoo("sample", "toy", "--seed", seed).lines[0] for seed in (1, 2)]
    assert len(zoo("replay", *names, "-o", "again", "-q").lines) == 2
    assert len(os.listdir("again")) == 2
    assert zoo("replay", *names, "-o", "one.png").code == 2


def test_files_of_several_models(zoo):
    zoo("sample", "toy:plain", "-o", "a.png")
    zoo("sample", "toy:shapes", "--dtype", "bfloat16", "-o", "b.png")
    zoo("sample", "toytext", "-p", "a red circle", "-o", "c.png")
    result = zoo("replay", "a.png", "b.png", "c.png", "--check")
    assert result.code == 0 and [line.split(": ")[1] for line in result.lines] == ["identical"] * 3


def test_check_tells_a_changed_picture(zoo):
    zoo("sample", "toy", "-o", "a.png")
    with PIL.Image.open("a.png") as picture:
        info = PngInfo()
        info.add_itxt("zoo", picture.info["zoo"])
        red, green, blue = picture.getpixel((4, 4))
        picture.putpixel((4, 4), (red, green, blue - 1))
        picture.save("near.png", pnginfo=info)
        picture.putpixel((4, 4), (0, green, blue))
        picture.save("far.png", pnginfo=info)
        small = picture.resize((16, 16))
        small.save("small.png", pnginfo=info)
    near = zoo("replay", "near.png", "--check")
    assert near.code == 0 and "near.png: same: at most 1 of 255" in near.out
    far = zoo("replay", "far.png", "--check", "--json")
    assert far.code == 1
    (check,) = far.json["checks"]
    assert check["same"] is False and check["max_difference"] == red
    small_one = zoo("replay", "small.png", "--check")
    assert small_one.code == 1 and "different: 16x16 in the file, 32x32 now" in small_one.out
    assert sorted(os.listdir()) == ["a.png", "far.png", "near.png", "small.png"]


def test_warnings_for_other_versions_devices_and_weights(zoo):
    zoo("sample", "toy", "-o", "a.png")
    made = read_provenance("a.png")
    changed = rewritten(
        "a.png",
        version=(f'"{made.zoo_version}"', '"99.0"'),
        device=('"cpu"', '"cuda:99"'),
        weights=(made.weights, "sha256:" + 64 * "0"),
    )
    result = zoo("replay", changed, "--check")
    assert result.code == 0
    assert "made by zoo 99.0" in result.err
    assert "made on cuda:99, which is not here" in result.err
    assert "made with the weights sha256:000" in result.err


def test_own_weights_are_found_again_or_given(zoo, toy):
    weights = Path("mine.safetensors")
    weights.write_bytes((toy / "zoo_toy/cards/weights/toy.safetensors").read_bytes())
    zoo("sample", "toy:remote", "--weights", weights, "-o", "a.png")
    assert zoo("replay", "a.png", "--check").code == 0
    weights.rename("moved.safetensors")
    gone = zoo("replay", "a.png", "--check")
    assert gone.code == 3 and "toy:remote" in gone.err
    assert zoo("replay", "a.png", "--check", "--weights", "moved.safetensors").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("absent.png",), 2, "absent.png does not exist"),
        (("text.png",), 2, "text.png is not a picture"),
        (("plain.png",), 2, "plain.png has no zoo metadata"),
        (("a.png", "-O", "grian=1"), 2, "has no option 'grian'"),
        (("a.png", "--check", "--seed", "1"), 2, "--check compares with the original"),
        (("a.png", "--check", "--overwrite"), 2, "--check writes nothing"),
        (("a.png", "-o", "a.png"), 1, "a.png exists already"),
        (("a.png", "-o", "text.png/x"), 1, "is a file, not a folder"),
        ((), 2, "Missing argument"),
    ],
)
def test_what_is_refused(zoo, arguments, code, text):
    zoo("sample", "toy", "-o", "a.png")
    Path("text.png").write_text("hello")
    PIL.Image.new("RGB", (4, 4)).save("plain.png")
    before = sorted(os.listdir())
    result = zoo("replay", *arguments)
    assert result.code == code and text in result.err and result.out == ""
    assert sorted(os.listdir()) == before


def test_a_reference_that_is_gone(zoo):
    zoo("sample", "toy", "-o", "a.png")
    copy = rewritten("a.png", reference=("toy:shapes", "toy:gone"))
    result = zoo("replay", copy)
    assert result.code == 3 and "no model is called 'toy:gone'" in result.err
