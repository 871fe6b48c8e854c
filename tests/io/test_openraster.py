"""OpenRaster files: what the specification asks for, and files of other programs, damaged ones included."""

import io
import zipfile
from xml.etree import ElementTree

import PIL.Image
import pytest
import torch
from layer_cases import layered, noise, png, write_ora

from zoo.errors import InvalidInput
from zoo.io import layer_png, openraster
from zoo.io.layers import Layer, LayeredImage, read_layers
from zoo.io.metadata import read_provenance


def plain(name="a", attributes="", source="data/a.png"):
    return f'<layer name="{name}" src="{source}" {attributes}/>'


# What is written


def test_the_members_are_those_of_the_specification(tmp_path, provenance):
    path = layered(provenance).save(tmp_path / "x.ora")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        first = archive.infolist()[0]
        assert archive.read("mimetype") == b"image/openraster"
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
    # Programs look for these bytes at a fixed place to tell the file's type.
    assert path.read_bytes()[30:54] == b"mimetypeimage/openraster"
    assert names == [
        "mimetype",
        "stack.xml",
        *(f"data/layer{index}.png" for index in range(4)),
        "mergedimage.png",
        "Thumbnails/thumbnail.png",
        "zoo.json",
    ]


def test_the_stack_lists_layers_from_the_front(tmp_path):
    path = layered().save(tmp_path / "x.ora")
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read("stack.xml"))
    assert root.tag == "image"
    assert {"w": "52", "h": "40"}.items() <= root.attrib.items()
    assert [int(number) for number in root.get("version").split(".")] >= [0, 0, 3]
    entries = [dict(layer.attrib) for layer in root.find("stack")]
    assert [entry["name"] for entry in entries][::3] == ["sketch", "background"]
    assert entries[1] == {
        "name": "front",
        "src": "data/layer2.png",
        "x": "18",
        "y": "9",
        "opacity": "0.7",
        "visibility": "visible",
        "composite-op": "svg:src-over",
    }
    assert entries[0]["visibility"] == "hidden"


@pytest.mark.parametrize(
    ("size", "small"), [((40, 52), (52, 40)), ((30, 600), (256, 13)), ((512, 512), (256, 256))]
)
def test_the_thumbnail_is_at_most_256_pixels_a_side(tmp_path, size, small):
    path = LayeredImage(size, (Layer(torch.ones(4, 1, 1)),)).save(tmp_path / "x.ora")
    with zipfile.ZipFile(path) as archive:
        thumbnail = PIL.Image.open(io.BytesIO(archive.read("Thumbnails/thumbnail.png")))
    assert (thumbnail.mode, thumbnail.size) == ("RGB", small)


@pytest.mark.parametrize("name", ["<b> & \"c\" 'd'", "two\nlines\tand a tab", "赤い円 \U0001f7e5"])
def test_names_of_any_letters_come_back(tmp_path, name):
    path = layered().with_layer(0, name=name).save(tmp_path / "x.ora")
    assert read_layers(path).layers[0].name == name


def test_what_xml_cannot_hold_is_replaced(tmp_path):
    path = layered().with_layer(0, name="a\x00b\x1bc\ud800d\uffff").save(tmp_path / "x.ora")
    assert read_layers(path).layers[0].name == "a\ufffdb\ufffdc\ufffdd\ufffd"


# Files of other programs


def test_missing_attributes_have_their_defaults(tmp_path):
    image = read_layers(write_ora(tmp_path / "x.ora", '<layer src="data/a.png"/>'))
    (layer,) = image.layers
    assert image.size == (3, 4) and image.provenance is None
    assert (layer.name, layer.x, layer.y, layer.visible, layer.opacity) == ("", 0, 0, True, 1.0)
    with pytest.raises(InvalidInput, match="has no zoo metadata"):
        read_provenance(tmp_path / "x.ora")


def test_groups_are_taken_apart(tmp_path):
    stack = (
        plain("front")
        + '<stack name="outer" visibility="hidden" x="10" y="20">'
        + plain("second", 'x="1" y="-2"')
        + '<stack name="inner" opacity="0.5" x="100">'
        + plain("third", 'opacity="0.5" x="1"')
        + "</stack></stack>"
        + plain("back", 'visibility="hidden"')
        + '<note xmlns="urn:someone">their own</note>'
    )
    layers = read_layers(write_ora(tmp_path / "x.ora", stack)).layers
    assert [(layer.name, layer.x, layer.y, layer.visible, layer.opacity) for layer in layers] == [
        ("back", 0, 0, False, 1.0),
        ("third", 111, 20, False, 0.25),
        ("second", 11, 18, False, 1.0),
        ("front", 0, 0, True, 1.0),
    ]


def test_layers_smaller_than_the_canvas_keep_their_place(tmp_path):
    stack = plain("b", 'x="2" y="1"', "data/b.png") + plain("a")
    members = {"data/a.png": png((4, 3), "RGB", (0, 0, 0)), "data/b.png": png((1, 1), "RGB", (255, 0, 0))}
    composite = read_layers(write_ora(tmp_path / "x.ora", stack, members)).composite().to_bytes8()
    assert composite[1, 2].tolist() == [255, 0, 0]
    assert int(composite.sum()) == 255


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (plain("glow", 'composite-op="svg:screen"'), "layer 'glow' is blended with 'svg:screen'"),
        (
            f'<stack name="set" composite-op="svg:multiply">{plain()}</stack>',
            "'set' is blended with 'svg:multiply'",
        ),
        (plain("clip", 'alpha-preserve="true"'), "layer 'clip' is blended with 'alpha-preserve'"),
        (
            f'<stack name="set" opacity="0.5">{plain()}{plain()}</stack>',
            r"group 'set' fades its 2 layers together \(opacity 0.5\)",
        ),
        ('<text name="words">abc</text>', "has a 'text' among its layers"),
        ("", "has no layers"),
        ("<stack/>", "has no layers"),
        (plain("a", 'x="1.5"'), "'a' has '1.5' as its x, expected a whole number"),
        (plain("a", 'opacity="2"'), "'a' has the opacity '2'"),
        (plain("a", 'opacity="nan"'), "'a' has the opacity 'nan'"),
        (plain("a", 'opacity="half"'), "'a' has the opacity 'half'"),
        (plain("up", source="../a.png"), r"layer 'up' of .* lies at '\.\./a\.png'"),
        (plain("up", source="data/../../a.png"), "expected a path inside the file"),
        (plain("root", source="/etc/passwd"), "layer 'root' of"),
        (plain("drive", source=r"C:\a.png"), "layer 'drive' of"),
        ('<layer name="none"/>', "layer 'none' of .* lies at ''"),
        (plain(source="data/b.png"), r"has no data/b\.png"),
        ("<stack>" * 5000 + plain() + "</stack>" * 5000, "too deep in each other"),
    ],
)
def test_what_cannot_be_represented(tmp_path, stack, message):
    with pytest.raises(InvalidInput, match=message):
        read_layers(write_ora(tmp_path / "x.ora", stack))


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        ("", "'image' has None as its h"),
        ('w="4" h="0"', "the canvas of .* is 4x0, expected at least 1x1"),
        ('w="100000" h="100000"', "the canvas of .* has more pixels than can be read: 100000x100000"),
    ],
)
def test_canvases_that_cannot_be(tmp_path, canvas, message):
    with pytest.raises(InvalidInput, match=message):
        read_layers(write_ora(tmp_path / "x.ora", plain(), canvas=canvas))


# Damaged and hostile files


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no picture", r"data/a\.png in .* is not a PNG picture"),
        (png()[:45], r"data/a\.png in .* is damaged"),
        (b"GIF89a" + png()[6:], "is not a PNG picture"),
    ],
)
def test_layers_that_are_no_pictures(tmp_path, data, message):
    with pytest.raises(InvalidInput, match=message):
        read_layers(write_ora(tmp_path / "x.ora", plain(), {"data/a.png": data}))


def with_stack(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stack.xml", data)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<image", r"stack\.xml in .* is not well-formed XML"),
        (b"\xff\xfe<\0i\0", r"stack\.xml in .* is not UTF-8"),
        (b"<picture/>", "holds no stack of layers"),
        (b'<image w="1" h="1"/>', "holds no stack of layers"),
        (
            b'<!DOCTYPE image [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><image w="1" h="1">&b;</image>',
            "declares a document type",
        ),
    ],
)
def test_a_damaged_stack(tmp_path, data, message):
    with pytest.raises(InvalidInput, match=message):
        read_layers(with_stack(tmp_path / "x.ora", data))


def test_a_zip_file_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.ora", "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(InvalidInput, match=r"has no stack\.xml"):
        read_layers(tmp_path / "x.ora")


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short(tmp_path, part):
    path = layered().save(tmp_path / "x.ora")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    for read in (read_layers, read_provenance):
        with pytest.raises(InvalidInput, match="is damaged"):
            read(path)


def test_a_flipped_bit_is_found(tmp_path):
    path = layered().save(tmp_path / "x.ora")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"is damaged: Bad CRC-32 for file 'data/layer0\.png'"):
        read_layers(path)


def test_an_encrypted_member(tmp_path):
    path = with_stack(tmp_path / "x.ora", b"<image/>")
    data = bytearray(path.read_bytes())
    # Bit 0 of the flags, in the entry and in the directory.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"is damaged: .*encrypted"):
        read_layers(path)


def test_a_member_packed_in_another_way(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.ora", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("stack.xml", "<image/>")
    with pytest.raises(InvalidInput, match="packed in a way that OpenRaster does not allow"):
        read_layers(tmp_path / "x.ora")


def test_a_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    path = write_ora(tmp_path / "x.ora", plain(), {"data/a.png": png(), "data/zeros": bytes(100_000)})
    assert path.stat().st_size < 2000
    assert len(read_layers(path).layers) == 1
    monkeypatch.setattr(openraster, "MOST_BYTES", 100_000)
    with pytest.raises(InvalidInput, match=r"unpacks to \d+ bytes, and at most 100000 are read"):
        read_layers(path)


def test_a_member_that_declares_less_than_it_holds(tmp_path):
    path = write_ora(tmp_path / "x.ora", plain(), {"data/a.png": png() + bytes(100_000)})
    length = len(png()) + 100_000
    data = path.read_bytes()
    # In the directory, which is what readers go by.
    assert data.count(length.to_bytes(4, "little")) == 2
    path.write_bytes(data.replace(length.to_bytes(4, "little"), (200).to_bytes(4, "little")))
    with pytest.raises(InvalidInput, match="is damaged"):
        read_layers(path)


def test_layers_have_a_number_of_pixels_that_memory_can_hold(tmp_path, monkeypatch):
    path = write_ora(tmp_path / "x.ora", plain() * 5)
    monkeypatch.setattr(layer_png, "MOST_PIXELS", 5 * 12)
    assert len(read_layers(path).layers) == 5
    monkeypatch.setattr(layer_png, "MOST_PIXELS", 5 * 12 - 1)
    with pytest.raises(InvalidInput, match=r"more pixels than can be read: 4x3, and all layers together"):
        read_layers(path)


def test_pixels_of_a_canvas_larger_than_its_layers(tmp_path):
    """A moved layer may leave the canvas altogether and is kept all the same."""
    image = LayeredImage((5, 5), (Layer(noise(4, 5, 5), "a", x=-90, y=70),))
    read = read_layers(image.save(tmp_path / "x.ora"))
    assert (read.layers[0].x, read.layers[0].y) == (-90, 70)
    assert bool((read.composite().pixels == 1).all())
