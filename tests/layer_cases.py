"""Layered images for tests, and what other programs make of their files."""

import io
import json
import zipfile
from xml.etree import ElementTree

import PIL.Image
import torch

from zoo.io.layers import Layer, LayeredImage

PROMPT = "un café rond, 赤い円 & <soft>"


def noise(*shape, seed=0):
    """8-bit values of many levels as float32."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)) / 255


def layered(provenance=None, seed=0):
    """An opaque background, a soft layer that hangs over two edges, a faded one and a hidden one."""
    background = noise(4, 40, 52, seed=seed)
    background[3] = 1.0
    layers = (
        Layer(background, "background"),
        Layer(noise(4, 31, 30, seed=seed + 1), PROMPT, x=-7, y=15),
        Layer(noise(4, 25, 20, seed=seed + 2), "front", x=18, y=9, opacity=0.7),
        Layer(noise(4, 9, 9, seed=seed + 3), "sketch", x=3, y=4, visible=False),
    )
    return LayeredImage((40, 52), layers, provenance)


def bytes8(image):
    """The 8-bit values of every layer."""
    return [layer.to_bytes8() for layer in image.layers]


def same_layers(one, other):
    """Whether all that files hold of the layers is equal."""
    facts = [
        [(layer.name, layer.x, layer.y, layer.visible, layer.opacity) for layer in image.layers]
        for image in (one, other)
    ]
    return (
        one.size == other.size
        and facts[0] == facts[1]
        and all(torch.equal(a, b) for a, b in zip(bytes8(one), bytes8(other), strict=True))
    )


def png(size=(4, 3), mode="RGBA", colour=None, **options):
    """A PNG file of one colour, (width, height)."""
    data = io.BytesIO()
    PIL.Image.new(mode, size, colour if colour is not None else 0).save(data, "PNG", **options)
    return data.getvalue()


def write_ora(path, stack, members=None, canvas='w="4" h="3"'):
    """An OpenRaster file as another program may write it; `stack` is what the root stack holds."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "image/openraster")
        archive.writestr("stack.xml", f"<image {canvas}><stack>{stack}</stack></image>")
        for name, data in ({"data/a.png": png()} if members is None else members).items():
            archive.writestr(name, data)
    return path


def folder_layers(path):
    """(PNG data, x, y, visible, opacity) back to front, and the size, with the standard library alone."""
    listing = json.loads((path / "layers.json").read_text(encoding="utf-8"))
    entries = [
        ((path / entry["file"]).read_bytes(), entry["x"], entry["y"], entry["visible"], entry["opacity"])
        for entry in listing["layers"]
    ]
    return tuple(listing["size"]), entries


def ora_layers(path):
    """The same of an OpenRaster file."""
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read("stack.xml"))
        entries = [
            (
                archive.read(item.get("src")),
                int(item.get("x")),
                int(item.get("y")),
                item.get("visibility") == "visible",
                float(item.get("opacity")),
            )
            for item in root.iter("layer")
        ]
    return (int(root.get("w")), int(root.get("h"))), entries[::-1]


def pillow_composite(size, entries):
    """What Pillow makes of layers on white paper, as uint8 [h, w, 3]."""
    paper = PIL.Image.new("RGBA", size, "white")
    for data, x, y, visible, opacity in entries:
        if visible:
            layer = PIL.Image.open(io.BytesIO(data)).convert("RGBA")
            layer.putalpha(layer.getchannel("A").point(lambda value, opacity=opacity: round(value * opacity)))
            sheet = PIL.Image.new("RGBA", size)
            sheet.paste(layer, (x, y))
            paper = PIL.Image.alpha_composite(paper, sheet)
    return rgb(paper)


def rgb(picture):
    """uint8 [h, w, 3] of a Pillow image."""
    data = bytearray(picture.convert("RGB").tobytes())
    return torch.frombuffer(data, dtype=torch.uint8).view(picture.height, picture.width, 3)


def largest_difference(one, other):
    """In grey levels."""
    return int((one.int() - other.int()).abs().max())
