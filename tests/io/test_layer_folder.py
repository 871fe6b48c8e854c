"""Folders of layers: what layers.json says, and how an existing folder is replaced or kept."""

import json
import os
import shutil

import pytest
from layer_cases import layered, same_layers

from zoo.errors import InvalidInput, OutputExists, OutputNotWritable
from zoo.io import layer_folder
from zoo.io.layers import read_layers
from zoo.io.metadata import read_provenance


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder, **changes):
    """Change keys of layers.json; None takes one away."""
    listing = json.loads((folder / "layers.json").read_text()) | changes
    listing = {key: value for key, value in listing.items() if value is not None}
    (folder / "layers.json").write_text(json.dumps(listing))


def test_layers_json(tmp_path, provenance):
    folder = layered(provenance).save(tmp_path / "x")
    listing = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    assert list(listing) == ["size", "composite", "layers", "zoo"]
    assert (listing["size"], listing["composite"]) == ([52, 40], "composite.png")
    assert [layer["file"] for layer in listing["layers"]] == [f"layer-{index}.png" for index in range(4)]
    assert listing["layers"][2] == {
        "file": "layer-2.png",
        "name": "front",
        "x": 18,
        "y": 9,
        "visible": True,
        "opacity": 0.7,
    }
    assert listing["layers"][3]["visible"] is False
    assert listing["zoo"] == provenance.to_dict()
    assert set(content(folder)) == {"layers.json", "composite.png", *(f"layer-{i}.png" for i in range(4))}
    assert "zoo" not in json.loads((layered().save(tmp_path / "y") / "layers.json").read_text())


def test_only_file_is_needed_of_a_layer(tmp_path):
    folder = layered().save(tmp_path / "x")
    rewrite(folder, layers=[{"file": "layer-3.png"}], composite=None)
    (layer,) = read_layers(folder).layers
    assert (layer.name, layer.x, layer.y, layer.visible, layer.opacity) == ("", 0, 0, True, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": []}, "at least one layer"),
        ({"layers": None}, "lists no layers"),
        ({"layers": {}}, "lists no layers"),
        ({"size": None}, "lists no layers"),
        ({"size": [4]}, r'is damaged: "size" is \[4\], expected two whole numbers'),
        ({"size": [4, 0]}, "two positive integers"),
        ({"size": ["4", "3"]}, r'is damaged: "size" is \[.4., .3.\], expected two whole numbers'),
        ({"size": [10**6, 10**6]}, "more pixels than can be read"),
        ({"layers": ["layer-0.png"]}, "is damaged: a layer is 'layer-0.png', expected an object"),
        ({"layers": [{"name": "a"}]}, "lacks 'file'"),
        ({"layers": [{"file": "layer-0.png", "x": "left"}]}, "position"),
        ({"layers": [{"file": "layer-0.png", "opacity": 3}]}, "opacity"),
        ({"layers": [{"file": "layer-0.png", "visible": 1}]}, '"visible" is true or false'),
        ({"layers": [{"file": "layer-0.png", "name": 1}]}, '"name" a text'),
        ({"layers": [{"file": "layer-9.png"}]}, r"is a folder without layer-9\.png"),
        ({"layers": [{"file": "../secret.png"}]}, r"names the file '\.\./secret\.png', expected one inside"),
        ({"layers": [{"file": "/etc/passwd"}]}, "expected one inside"),
        ({"layers": [{"file": ""}]}, "expected one inside"),
        ({"layers": [{"file": "a\0b"}]}, "expected one inside"),
        ({"layers": [{"file": 7}]}, "expected one inside"),
        ({"layers": [{"file": "layers.json"}]}, "is not a PNG picture"),
        ({"layers": [{"file": "link.png"}]}, "expected one inside"),
    ],
)
def test_a_damaged_listing(tmp_path, changes, message):
    folder = layered().save(tmp_path / "x")
    shutil.copy(folder / "layer-0.png", tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    rewrite(folder, **changes)
    with pytest.raises(InvalidInput, match=message):
        read_layers(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff"])
def test_a_listing_that_is_no_json(tmp_path, text):
    folder = layered().save(tmp_path / "x")
    (folder / "layers.json").write_bytes(text.encode("latin-1"))
    for read in (read_layers, read_provenance):
        with pytest.raises(InvalidInput, match=r"layers\.json"):
            read(folder)


def test_another_folder(tmp_path):
    for read in (read_layers, read_provenance):
        with pytest.raises(InvalidInput, match=r"is a folder without layers\.json"):
            read(tmp_path)


# Overwriting


@pytest.mark.parametrize("name", ["empty", "notes", "file", "json", "broken"])
def test_only_a_folder_of_layers_is_replaced(tmp_path, name):
    target = tmp_path / "x"
    if name == "file":
        target.write_text("kept")
    else:
        target.mkdir()
        texts = {
            "notes": ("notes.txt", "kept"),
            "json": ("layers.json", "[1]"),
            "broken": ("layers.json", "{"),
        }
        if name in texts:
            (target / texts[name][0]).write_text(texts[name][1])
    before = content(target) if target.is_dir() else target.read_text()
    with pytest.raises(OutputExists, match="exists and is not a folder of layers"):
        layered().save(target, overwrite=True)
    assert before == (content(target) if target.is_dir() else target.read_text())
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_with_further_files_is_kept(tmp_path):
    folder = layered().save(tmp_path / "x")
    (folder / "notes.txt").write_text("kept")
    before = content(folder)
    with pytest.raises(OutputExists, match=r"also holds notes\.txt, which overwriting would lose"):
        layered(seed=7).save(folder, overwrite=True)
    assert content(folder) == before


def test_what_operating_systems_leave_does_not_matter(tmp_path):
    folder = layered().save(tmp_path / "x")
    (folder / ".DS_Store").touch()
    layered(seed=7).save(folder, overwrite=True)
    assert ".DS_Store" not in content(folder) and same_layers(read_layers(folder), layered(seed=7))


def test_fewer_layers_leave_no_file_of_the_old_ones(tmp_path):
    folder = layered().save(tmp_path / "x")
    image = read_layers(folder)
    type(image)(image.size, image.layers[:2]).save(folder, overwrite=True)
    assert set(content(folder)) == {"layers.json", "composite.png", "layer-0.png", "layer-1.png"}


def test_a_full_disk_leaves_the_old_folder(tmp_path, monkeypatch):
    folder = layered().save(tmp_path / "x")
    before = content(folder)
    write = layer_folder.Path.write_bytes

    def full(path, data):
        if path.name == "composite.png":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(layer_folder.Path, "write_bytes", full)
    with pytest.raises(OutputNotWritable, match="no space left on device"):
        layered(seed=7).save(folder, overwrite=True)
    with pytest.raises(OutputNotWritable, match="no space left on device"):
        layered(seed=7).save(tmp_path / "y")
    assert content(folder) == before and list(tmp_path.iterdir()) == [folder]


def test_a_failure_at_the_last_step_brings_the_old_folder_back(tmp_path, monkeypatch):
    folder = layered().save(tmp_path / "x")
    before = content(folder)

    def refuse(temporary, target):
        raise OutputNotWritable(f"cannot write {target}")

    monkeypatch.setattr(layer_folder, "publish_new", refuse)
    with pytest.raises(OutputNotWritable):
        layered(seed=7).save(folder, overwrite=True)
    assert content(folder) == before and list(tmp_path.iterdir()) == [folder]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    real = layered().save(tmp_path / "real")
    before = content(real)
    (tmp_path / "x").symlink_to(real)
    layered(seed=7).save(tmp_path / "x", overwrite=True)
    assert not (tmp_path / "x").is_symlink() and content(real) == before
    assert same_layers(read_layers(tmp_path / "x"), layered(seed=7))


def test_a_path_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputNotWritable, match="it has no name"):
        layered().save(".", format="folder")
    assert os.listdir(tmp_path) == []
