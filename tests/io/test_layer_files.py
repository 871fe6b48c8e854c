"""Files of layered images, whatever the format: what comes back, what is left unchanged, what is told."""

import json
import shutil
import zipfile
from dataclasses import replace

import PIL.Image
import pytest
import torch
from layer_cases import (
    PROMPT,
    bytes8,
    folder_layers,
    largest_difference,
    layered,
    noise,
    ora_layers,
    pillow_composite,
    png,
    rgb,
    same_layers,
)
from PIL.PngImagePlugin import PngInfo

from zoo.errors import InvalidInput, OutputExists, OutputNotWritable, ZooError
from zoo.io.artifacts import Image
from zoo.io.images import read_image
from zoo.io.layers import Layer, LayeredImage, read_layers
from zoo.io.metadata import read_provenance, read_provenances

PATHS = ["x.ora", "x"]


def members(path):
    """Every file of an OpenRaster file or a folder, by name."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def layer_files(path):
    """The PNG files of the layers, back to front."""
    return [data for name, data in sorted(members(path).items()) if "layer" in name and name.endswith(".png")]


def composite_of(path):
    return members(path)["composite.png" if path.is_dir() else "mergedimage.png"]


# What comes back


@pytest.mark.parametrize("name", PATHS)
def test_every_value_comes_back(tmp_path, provenance, name):
    image = layered(provenance)
    path = image.save(tmp_path / "new" / name)
    read = read_layers(path)
    assert path == tmp_path / "new" / name
    assert same_layers(read, image)
    assert read.provenance == provenance and read.drawn is None
    assert [layer.encoded for layer in read.layers] == layer_files(path)


@pytest.mark.parametrize("name", PATHS)
def test_colours_under_full_transparency_come_back(tmp_path, name):
    pixels = noise(4, 6, 6)
    pixels[3] = 0.0
    path = LayeredImage((6, 6), (Layer(pixels),)).save(tmp_path / name)
    assert torch.equal(read_layers(path).layers[0].pixels, pixels)


@pytest.mark.parametrize("name", PATHS)
def test_the_same_picture_makes_the_same_bytes(tmp_path, provenance, name):
    first = layered(provenance).save(tmp_path / "1" / name)
    second = layered(provenance).save(tmp_path / "2" / name)
    assert members(first) == members(second)
    again = read_layers(first).save(tmp_path / "3" / name)
    assert members(again) == members(first)
    if first.is_file():
        assert first.read_bytes() == second.read_bytes() == again.read_bytes()


def test_the_format_argument_goes_before_the_suffix(tmp_path):
    assert layered().save(tmp_path / "a.ora", format="folder").is_dir()
    assert read_layers(layered().save(tmp_path / "b", format="ora")).layers[0].encoded is not None
    with pytest.raises(InvalidInput, match="unknown layered image format"):
        layered().save(tmp_path / "c.png")


def test_the_content_tells_the_format_and_not_the_suffix(tmp_path):
    path = layered().save(tmp_path / "a.ora").rename(tmp_path / "a.psd")
    assert same_layers(read_layers(path), layered())


@pytest.mark.parametrize("name", PATHS)
def test_the_layer_pngs_are_8_bit_rgba(tmp_path, name):
    image = LayeredImage((2, 2), (Layer(torch.full((4, 2, 2), 0.3)),))
    (tmp_path / "layer.png").write_bytes(layer_files(image.save(tmp_path / name))[0])
    with PIL.Image.open(tmp_path / "layer.png") as opened:
        assert (opened.mode, opened.size) == ("RGBA", (2, 2))
        assert opened.getpixel((0, 0)) == (77, 77, 77, 77)


@pytest.mark.parametrize("name", PATHS)
def test_values_that_are_not_finite_leave_no_file(tmp_path, name):
    bad = LayeredImage((2, 2), (Layer(torch.full((4, 2, 2), float("inf")), "sky", visible=False),))
    with pytest.raises(ZooError, match="layer 'sky' has 16 of 16 values that are not finite"):
        bad.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# The composite


@pytest.mark.parametrize(("name", "read"), [("x.ora", ora_layers), ("x", folder_layers)])
@pytest.mark.parametrize("seed", range(3))
def test_pillow_makes_the_same_composite_to_one_grey_level(tmp_path, name, read, seed):
    path = layered(seed=10 * seed).save(tmp_path / name)
    (tmp_path / "composite.png").write_bytes(composite_of(path))
    with PIL.Image.open(tmp_path / "composite.png") as opened:
        assert opened.mode == "RGB"
        written = rgb(opened)
    assert torch.equal(written, layered(seed=10 * seed).composite().to_bytes8())
    assert largest_difference(pillow_composite(*read(path)), written) <= 1


def test_pillow_agrees_on_soft_layers_over_white_paper(tmp_path):
    layers = tuple(Layer(noise(4, 50, 50, seed=seed), x=9 * seed, y=-4 * seed) for seed in range(3))
    path = LayeredImage((44, 60), layers).save(tmp_path / "x")
    written = LayeredImage((44, 60), layers).composite().to_bytes8()
    assert largest_difference(pillow_composite(*folder_layers(path)), written) <= 1


# Files that stay as they are


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.with_layer(1, pixels=noise(4, 8, 8, seed=9), name="other"),
        lambda image: image.moved(1, 5, -5),
        lambda image: image.with_layer(1, visible=False, opacity=0.5),
    ],
    ids=["paint", "move", "hide"],
)
def test_changing_a_layer_leaves_the_files_of_the_others(tmp_path, name, change):
    before = layered().save(tmp_path / "1" / name)
    after = change(read_layers(before)).save(tmp_path / "2" / name)
    old, new = layer_files(before), layer_files(after)
    assert [old[i] == new[i] for i in (0, 2, 3)] == [True] * 3
    assert (old[1] != new[1]) == (read_layers(after).layers[1].pixels.shape == (4, 8, 8))
    assert composite_of(before) != composite_of(after)


FOREIGN = {
    "palette": png((5, 4), "P", 3),
    "grey": png((5, 4), "L", 90),
    "rgb": png((5, 4), "RGB", (1, 2, 3)),
    "profile": png((5, 4), "RGBA", (9, 8, 7, 6), icc_profile=b"not really a profile", dpi=(300, 300)),
    "uncompressed": png((5, 4), "RGBA", (9, 8, 7, 6), compress_level=0),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_file_of_another_program_is_written_again_byte_for_byte(tmp_path, kind):
    folder = LayeredImage((4, 5), (Layer(torch.zeros(4, 4, 5)),)).save(tmp_path / "in")
    (folder / "layer-0.png").write_bytes(FOREIGN[kind])
    image = read_layers(folder)
    assert layer_files(image.save(tmp_path / "out.ora")) == [FOREIGN[kind]]
    assert layer_files(image.save(tmp_path / "out")) == [FOREIGN[kind]]
    assert image.layers[0].pixels.shape == (4, 4, 5)


@pytest.mark.parametrize(
    ("mode", "colour", "options", "expected"),
    [
        ("RGBA", (9, 8, 7, 6), {}, (9, 8, 7, 6)),
        ("RGB", (9, 8, 7), {}, (9, 8, 7, 255)),
        ("RGB", (9, 8, 7), {"transparency": (9, 8, 7)}, (9, 8, 7, 0)),
        ("L", 90, {}, (90, 90, 90, 255)),
        ("LA", (90, 80), {}, (90, 90, 90, 80)),
        ("1", 1, {}, (255, 255, 255, 255)),
        ("P", 0, {"transparency": 0}, (0, 0, 0, 0)),
        ("I;16", 257 * 90, {}, (90, 90, 90, 255)),
        ("I;16", 257 * 90, {"transparency": 257 * 90}, (90, 90, 90, 0)),
        ("I;16", 257 * 90, {"transparency": 257}, (90, 90, 90, 255)),
    ],
)
def test_every_sort_of_png_becomes_rgba(tmp_path, mode, colour, options, expected):
    folder = LayeredImage((3, 4), (Layer(torch.zeros(4, 3, 4)),)).save(tmp_path / "x")
    (folder / "layer-0.png").write_bytes(png((4, 3), mode, colour, **options))
    layer = read_layers(folder).layers[0]
    assert layer.to_bytes8().shape == (3, 4, 4)
    assert layer.to_bytes8()[1, 2].tolist() == list(expected)


# Provenance


@pytest.mark.parametrize("name", PATHS)
def test_provenance_is_found_again(tmp_path, provenance, name):
    path = layered(provenance).save(tmp_path / name)
    assert read_provenance(path) == provenance
    assert read_provenances(path) == [provenance]
    (tmp_path / "composite.png").write_bytes(composite_of(path))
    assert read_provenance(tmp_path / "composite.png") == provenance


@pytest.mark.parametrize("name", PATHS)
def test_a_prompt_of_undecodable_bytes_comes_back(tmp_path, provenance, name):
    prompt = b"caf\xe9".decode("utf-8", errors="surrogateescape")
    path = layered(replace(provenance, prompt=prompt)).with_layer(0, name=prompt).save(tmp_path / name)
    assert read_provenance(path).prompt == prompt
    assert read_layers(path).layers[0].name in (prompt, "caf\ufffd")


TRACES = [b"zoo", b"tarflow", b"abababab", b"caf", b"rond", b"<soft>", b"&lt;soft", b"front", b"sketch"]


@pytest.mark.parametrize("name", PATHS)
def test_without_metadata_no_trace_is_left(tmp_path, provenance, name):
    image = layered(replace(provenance, prompt=PROMPT))
    told = image.save(tmp_path / "1" / name)
    silent = image.save(tmp_path / "2" / name, metadata=False)
    everything = b"".join(members(told).values())
    assert [trace for trace in TRACES if trace not in everything] in ([], [b"&lt;soft"])
    for member, data in members(silent).items():
        assert [trace for trace in [*TRACES, b"tEXt", b"iTXt", b"eXIf"] if trace in data] == [], member
        assert b"zoo" not in member.encode()
    if silent.is_file():
        assert [trace for trace in TRACES if trace in silent.read_bytes()] == []
    read = read_layers(silent)
    assert [layer.name for layer in read.layers] == ["background", "layer 1", "layer 2", "layer 3"]
    assert read.provenance is None
    assert all(torch.equal(a, b) for a, b in zip(bytes8(read), bytes8(image), strict=True))
    with pytest.raises(InvalidInput, match="has no zoo metadata"):
        read_provenance(silent)


@pytest.mark.parametrize("name", PATHS)
def test_without_metadata_texts_in_the_layers_of_another_program_go_too(tmp_path, provenance, name):
    texts = PngInfo()
    texts.add_text("Description", "a secret prompt")
    texts.add_itxt("zoo", "a secret prompt", zip=False)
    file = png((5, 4), "RGBA", (9, 8, 7, 6), pnginfo=texts, icc_profile=b"a profile", dpi=(300, 300))
    folder = LayeredImage((4, 5), (Layer(torch.zeros(4, 4, 5)),), provenance).save(tmp_path / "in")
    (folder / "layer-0.png").write_bytes(file + b"a secret behind the end")
    image = read_layers(folder)
    assert layer_files(image.save(tmp_path / "1" / name)) == [file + b"a secret behind the end"]
    (stripped,) = layer_files(image.save(tmp_path / "2" / name, metadata=False))
    assert b"secret" not in stripped and b"iCCP" in stripped and b"pHYs" in stripped
    assert read_layers(tmp_path / "2" / name).layers[0].to_bytes8()[0, 0].tolist() == [9, 8, 7, 6]
    clean = png((5, 4), "RGBA", (9, 8, 7, 6), icc_profile=b"a profile", dpi=(300, 300))
    assert stripped == clean


@pytest.mark.parametrize("name", PATHS)
def test_layers_without_a_name_get_one(tmp_path, name):
    layers = tuple(Layer(torch.zeros(4, 2, 2), text) for text in ("", "sky", ""))
    read = read_layers(LayeredImage((2, 2), layers).save(tmp_path / name))
    assert [layer.name for layer in read.layers] == ["background", "sky", "layer 2"]
    assert read.provenance is None


def test_damaged_metadata(tmp_path, provenance):
    folder = layered(provenance).save(tmp_path / "x")
    listing = json.loads((folder / "layers.json").read_text())
    listing["zoo"] = {"reference": "tarflow:shapes"}
    (folder / "layers.json").write_text(json.dumps(listing))
    for read in (read_provenance, read_layers):
        with pytest.raises(InvalidInput, match=r"the zoo metadata in .* is damaged: provenance lacks seed"):
            read(folder)
    ora = layered(provenance).save(tmp_path / "x.ora")
    with zipfile.ZipFile(ora) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    for text in ("{", "[]", '{"zoo": 3}', "[" * 100_000):
        with zipfile.ZipFile(ora, "w") as archive:
            for name, data in {**kept, "zoo.json": text}.items():
                archive.writestr(name, data)
        with pytest.raises(InvalidInput, match=r"the zoo metadata in .* is damaged"):
            read_provenance(ora)


# Paths


@pytest.mark.parametrize("name", PATHS)
def test_what_exists_is_kept(tmp_path, name):
    path = layered().save(tmp_path / name)
    before = members(path)
    with pytest.raises(OutputExists, match="exists already"):
        layered(seed=7).save(path)
    assert members(path) == before
    layered(seed=7).save(path, overwrite=True)
    assert same_layers(read_layers(path), layered(seed=7))
    assert [item.name for item in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", PATHS)
def test_a_file_as_parent_is_not_writable(tmp_path, name):
    (tmp_path / "parent").touch()
    with pytest.raises(OutputNotWritable):
        layered().save(tmp_path / "parent" / name)


def test_a_missing_path(tmp_path):
    with pytest.raises(InvalidInput, match="does not exist"):
        read_layers(tmp_path / "x.ora")


@pytest.mark.parametrize("content", [b"", b"PK", b"some text", png()])
def test_a_file_that_is_no_layered_image(tmp_path, content):
    (tmp_path / "x.ora").write_bytes(content)
    with pytest.raises(InvalidInput, match="is not a layered image") as caught:
        read_layers(tmp_path / "x.ora")
    assert ".ora" in caught.value.hint


def test_a_picture_is_what_it_was(tmp_path, provenance):
    """The composite of a folder is a picture like any other."""
    folder = layered(provenance).save(tmp_path / "x")
    shutil.copy(folder / "composite.png", tmp_path / "copy.png")
    pixels = Image(read_image(tmp_path / "copy.png"))
    assert torch.equal(pixels.to_bytes8(), layered().composite().to_bytes8())
