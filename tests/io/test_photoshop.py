"""Photoshop files, as psd-tools writes and reads them, and what Pillow makes of them."""

import logging
import sys
from dataclasses import replace

import PIL.Image
import pytest
import torch
from layer_cases import PROMPT, bytes8, largest_difference, layered, noise, rgb, same_layers

from zoo.errors import InvalidInput, OutputExists, PluginError
from zoo.io import layer_png
from zoo.io.layers import Layer, LayeredImage, read_layers
from zoo.io.metadata import read_provenance

pytest.importorskip("psd_tools", reason="needs psd-tools, which the extra zoo[psd] installs")

from psd_tools import PSDImage
from psd_tools.constants import BlendMode, Resource
from psd_tools.psd.image_resources import ImageResource


@pytest.fixture(autouse=True)
def quiet():
    """psd-tools logs what it finds odd in a file."""
    logging.getLogger("psd_tools").setLevel(logging.CRITICAL)


def saved(psd, path):
    psd.save(path)
    return path


def rgba(colour=(9, 8, 7, 6), size=(4, 3)):
    return PIL.Image.new("RGBA", size, colour)


def test_every_value_comes_back(tmp_path, provenance):
    image = layered(provenance).with_layer(2, opacity=102 / 255)
    path = image.save(tmp_path / "x.psd")
    read = read_layers(path)
    assert same_layers(read, image)
    assert read.provenance == provenance == read_provenance(path)
    assert [layer.encoded for layer in read.layers] == [None] * 4


def test_colours_under_full_transparency_come_back(tmp_path):
    pixels = noise(4, 6, 6)
    pixels[3] = 0.0
    path = LayeredImage((6, 6), (Layer(pixels),)).save(tmp_path / "x.psd")
    assert torch.equal(read_layers(path).layers[0].to_bytes8(), Layer(pixels).to_bytes8())


def test_opacity_has_255_steps(tmp_path):
    read = read_layers(layered().with_layer(0, opacity=0.5).save(tmp_path / "x.psd"))
    assert read.layers[0].opacity == 128 / 255


def test_the_composite_is_what_pillow_shows(tmp_path):
    path = layered().with_layer(0, opacity=0.5).save(tmp_path / "x.psd")
    with PIL.Image.open(path) as opened:
        assert (opened.mode, opened.size) == ("RGB", (52, 40))
        shown = rgb(opened)
    assert torch.equal(shown, read_layers(path).composite().to_bytes8())


def test_pillow_finds_the_layers_in_their_places(tmp_path):
    with PIL.Image.open(layered().save(tmp_path / "x.psd")) as opened:
        found = [(name, mode, box) for name, mode, box, _ in opened.layers]
    assert found[0] == ("background", "RGBA", (0, 0, 52, 40))
    assert [box for *_, box in found[1:]] == [(-7, 15, 23, 46), (18, 9, 38, 34), (3, 4, 12, 13)]


def test_the_same_picture_makes_the_same_bytes(tmp_path, provenance):
    first = layered(provenance).save(tmp_path / "1.psd")
    second = layered(provenance).save(tmp_path / "2.psd")
    assert first.read_bytes() == second.read_bytes()
    assert read_layers(first).save(tmp_path / "3.psd").read_bytes() == first.read_bytes()
    with pytest.raises(OutputExists):
        layered().save(first)


@pytest.mark.parametrize("name", ["赤い円 \U0001f7e5 & <b>", "x" * 255])
def test_names_of_any_letters_come_back(tmp_path, name):
    assert read_layers(layered().with_layer(0, name=name).save(tmp_path / "x.psd")).layers[0].name == name


def test_names_are_cut_to_what_the_format_holds(tmp_path):
    path = layered().with_layer(0, name="\ud800" + "é" * 300).save(tmp_path / "x.psd")
    assert read_layers(path).layers[0].name == "\ufffd" + "é" * 254


def test_a_prompt_of_undecodable_bytes_comes_back(tmp_path, provenance):
    prompt = b"caf\xe9 <&>]]>".decode("utf-8", errors="surrogateescape")
    path = layered(replace(provenance, prompt=prompt)).save(tmp_path / "x.psd")
    assert read_provenance(path).prompt == prompt


def test_without_metadata_no_trace_is_left(tmp_path, provenance):
    image = layered(replace(provenance, prompt=PROMPT))
    words = ["zoo", "tarflow", "abababab", "rond", "soft", "front", "sketch"]
    traces = [word.encode(code) for word in words for code in ("utf-8", "utf-16-be")]
    told = image.save(tmp_path / "told.psd").read_bytes()
    assert b"tarflow" in told and b"rond" in told and "rond".encode("utf-16-be") in told
    silent = image.save(tmp_path / "silent.psd", metadata=False)
    assert [trace for trace in traces if trace in silent.read_bytes()] == []
    read = read_layers(silent)
    assert [layer.name for layer in read.layers] == ["background", "layer 1", "layer 2", "layer 3"]
    assert all(torch.equal(a, b) for a, b in zip(bytes8(read), bytes8(image), strict=True))
    with pytest.raises(InvalidInput, match="has no zoo metadata"):
        read_provenance(silent)


@pytest.mark.parametrize("form", ["attribute", "among others", "none", "damaged", "entities"])
def test_metadata_that_another_program_wrote_again(tmp_path, provenance, form):
    text = '{"reference": "a:b", "seed": 3, "sampler": "c", "options": {}, "dtype": "d", "device": "e"'
    text = text.replace('"', "&quot;") + ", &quot;zoo_version&quot;: &quot;1&quot;}"
    prop = f"<z:provenance>{text}</z:provenance>"
    inside = {
        "attribute": (f'z:provenance="{text}"', ""),
        "among others": ('xmlns:dc="urn:dc"', f"<dc:title>t</dc:title>{prop}"),
        "none": ("", "<z:other>1</z:other>"),
        "damaged": ("", "<z:provenance>{</z:provenance>"),
        "entities": ("", prop),
    }[form]
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="urn:rdf"><r:Description '
        f'xmlns:z="urn:zoo:metadata#" {inside[0]}>{inside[1]}</r:Description></r:RDF></x:xmpmeta>'
    )
    if form == "entities":
        xmp = "<!DOCTYPE x>" + xmp
    psd = PSDImage.open(layered().save(tmp_path / "x.psd"))
    psd.image_resources[Resource.XMP_METADATA] = ImageResource(
        key=Resource.XMP_METADATA, data=xmp.encode() + b"\0"
    )
    path = saved(psd, tmp_path / "y.psd")
    if form in ("attribute", "among others"):
        assert read_provenance(path).seed == 3
        assert read_layers(path).provenance.reference == "a:b"
    else:
        message = {"none": "has no zoo metadata", "damaged": "is damaged", "entities": "document type"}[form]
        with pytest.raises(InvalidInput, match=message):
            read_provenance(path)


# Files of other programs


def test_groups_are_taken_apart(tmp_path):
    psd = PSDImage.new("RGBA", (8, 6))
    back = psd.create_pixel_layer(rgba(), "back", top=1, left=-2)
    inner = psd.create_pixel_layer(rgba(), "inner", opacity=51)
    group = psd.create_group([inner], "group", opacity=102)
    group.visible = False
    back.visible = True
    layers = read_layers(saved(psd, tmp_path / "x.psd")).layers
    assert [(layer.name, layer.x, layer.y, layer.visible) for layer in layers] == [
        ("back", -2, 1, True),
        ("inner", 0, 0, False),
    ]
    assert layers[1].opacity == pytest.approx(0.4 * 0.2)
    assert layers[0].to_bytes8()[2, 3].tolist() == [9, 8, 7, 6]


@pytest.mark.parametrize(("mode", "depth"), [("RGB", 8), ("L", 8), ("RGBA", 16), ("LA", 16)])
def test_rgb_and_grey_of_8_and_16_bits(tmp_path, mode, depth):
    psd = PSDImage.new(mode, (8, 6), depth=depth)
    colour = {"RGB": (9, 8, 7), "L": 9, "RGBA": (9, 8, 7, 6), "LA": (9, 6)}[mode]
    psd.create_pixel_layer(PIL.Image.new(mode, (4, 3), colour), "a")
    value = read_layers(saved(psd, tmp_path / "x.psd")).layers[0].to_bytes8()[0, 0].tolist()
    rest = [9, 9] if "L" in mode else [8, 7]
    assert value == [9, *rest, 6 if "A" in mode else 255]


def test_an_empty_layer_is_one_transparent_pixel(tmp_path):
    psd = PSDImage.new("RGBA", (8, 6))
    psd.create_pixel_layer(rgba(), "a")
    empty = psd.create_pixel_layer(rgba(), "empty")
    empty._record.right, empty._record.bottom = empty.left, empty.top
    layers = read_layers(saved(psd, tmp_path / "x.psd")).layers
    assert layers[1].name == "empty" and layers[1].pixels.tolist() == [[[0.0]]] * 4


def refused(change, mode="RGBA", depth=8):
    psd = PSDImage.new(mode, (8, 6), depth=depth)
    change(psd)
    return psd


def clipped(psd):
    psd.create_pixel_layer(rgba(), "base")
    psd.create_pixel_layer(rgba(), "top").clipping = True


def faded_group(psd):
    layers = [psd.create_pixel_layer(rgba(), name) for name in "ab"]
    psd.create_group(layers, "set", opacity=51)


@pytest.mark.parametrize(
    ("psd", "message"),
    [
        (
            lambda: refused(lambda psd: psd.create_pixel_layer(rgba(), "glow", blend_mode=BlendMode.SCREEN)),
            "layer 'glow' is blended with 'screen'",
        ),
        # On a document without an alpha channel psd-tools makes a mask of the layer's.
        (lambda: refused(lambda psd: psd.create_pixel_layer(rgba(), "cut"), "RGB"), "layer 'cut' has a mask"),
        (lambda: refused(clipped), "layer 'top' is clipped"),
        (lambda: refused(faded_group), r"group 'set' fades its 2 layers together \(opacity 0.2\)"),
        (lambda: refused(lambda psd: None), "has no layers"),
        (lambda: refused(lambda psd: None, "CMYK"), "is cmyk with 8 bits a channel"),
        (lambda: refused(lambda psd: None, "RGB", 32), "is rgb with 32 bits a channel"),
    ],
)
def test_what_cannot_be_represented(tmp_path, psd, message):
    with pytest.raises(InvalidInput, match=message):
        read_layers(saved(psd(), tmp_path / "x.psd"))


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6])
def test_a_file_that_is_cut_short(tmp_path, part):
    path = layered().save(tmp_path / "x.psd")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InvalidInput, match="is damaged"):
        read_layers(path)


def test_what_only_begins_like_a_file(tmp_path):
    path = tmp_path / "x.psd"
    path.write_bytes(b"8BPS" + bytes(40))
    with pytest.raises(InvalidInput, match=r"x\.psd is damaged: 'version' must be in \(1, 2\) \(got 0\)$"):
        read_layers(path)


def test_layers_have_a_number_of_pixels_that_memory_can_hold(tmp_path, monkeypatch):
    path = layered().save(tmp_path / "x.psd")
    monkeypatch.setattr(layer_png, "MOST_PIXELS", 40 * 52 + 31 * 30)
    with pytest.raises(InvalidInput, match=r"layer 'front' of .* has more pixels than can be read"):
        read_layers(path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (LayeredImage((1, 30_001), (Layer(torch.zeros(4, 1, 1)),)), "at most 30000 pixels a side"),
        (LayeredImage((1, 1), (Layer(torch.zeros(4, 1, 1), x=2**31),)), "farther off than psd can tell"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, image, message):
    with pytest.raises(InvalidInput, match=message):
        image.save(tmp_path / "x.psd")
    assert list(tmp_path.iterdir()) == []


def test_the_composite_agrees_with_the_one_of_psd_tools(tmp_path):
    pytest.importorskip("scipy", reason="psd-tools composes with SciPy")
    path = layered().save(tmp_path / "x.psd")
    sheet = PIL.Image.new("RGBA", (52, 40), "white")
    sheet.alpha_composite(PSDImage.open(path).composite(force=True).convert("RGBA"))
    assert largest_difference(rgb(sheet), read_layers(path).composite().to_bytes8()) <= 1


def test_without_psd_tools(tmp_path, monkeypatch):
    path = layered().save(tmp_path / "x.psd")
    monkeypatch.setattr("zoo.io.kinds.find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.split(".")[0] == "psd_tools"]:
        monkeypatch.delitem(sys.modules, name)
    for act in (read_layers, read_provenance, lambda path: layered().save(path, overwrite=True)):
        with pytest.raises(PluginError, match="needs the package 'psd-tools'") as caught:
            act(path)
        assert caught.value.hint == 'pip install "zoo[psd]"'
