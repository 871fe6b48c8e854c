"""Photoshop files (.psd), through psd-tools, which the extra "psd" installs.

The provenance is a property of the file's XMP metadata, which Photoshop keeps when it saves the file again.
"""

from __future__ import annotations

import dataclasses
import io
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from zoo.errors import InvalidInput, ZooError
from zoo.io.artifacts import PROVENANCE_KEY
from zoo.io.files import write_file
from zoo.io.kinds import check_extra
from zoo.io.layer_groups import Group, only_normal_blending
from zoo.io.layer_png import LayerDecoder
from zoo.io.layers import Layer, LayeredImage
from zoo.io.plain_xml import parse_xml, printable

if TYPE_CHECKING:
    from psd_tools import PSDImage
    from psd_tools.psd.image_resources import ImageResources
    from psd_tools.psd.layer_and_mask import ChannelDataList, LayerRecord

_LONGEST_SIDE = 30_000
_LONGEST_NAME = 255
_FARTHEST = 2**31 - 1

#: Kinds of layers whose pixels lie in the file as they are shown.
_DRAWN_KINDS = ("pixel", "type", "smartobject")

# XMP names of properties are looked up with their namespace, which ends with "#" or "/".
_NAMESPACE = "urn:zoo:metadata#"
_PROPERTY = f"{{{_NAMESPACE}}}provenance"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"


def write_photoshop(image: LayeredImage, path: Path, overwrite: bool) -> Path:
    """Write `image`; the names of layers are cut to 255 characters, and opacities rounded to steps of 1/255.

    Raises PluginError without psd-tools, InvalidInput for more than 30000 pixels a side or a layer too far
    off, and what `write_file` raises.
    """
    check_extra(LayeredImage, "psd")
    from psd_tools.constants import ColorMode, Compression
    from psd_tools.psd import PSD
    from psd_tools.psd.header import FileHeader
    from psd_tools.psd.image_data import ImageData
    from psd_tools.psd.image_resources import ImageResources

    _check_size(image)
    layers = tuple(
        dataclasses.replace(layer, opacity=_opacity8(layer.opacity) / 255) for layer in image.layers
    )
    composite = dataclasses.replace(image, layers=layers).composite()
    height, width = image.size
    header = FileHeader(channels=3, height=height, width=width, depth=8, color_mode=ColorMode.RGB)
    resources = ImageResources.new()
    if image.provenance is not None:
        _add_xmp(resources, _xmp(json.dumps(image.provenance.to_dict())))
    merged = ImageData(compression=Compression.RLE)
    merged.set_data(_planes(composite.to_bytes8()), header)
    data = io.BytesIO()
    PSD(
        header=header,
        image_resources=resources,
        layer_and_mask_information=_layer_section(layers),
        image_data=merged,
    ).write(data)
    return write_file(path, data.getvalue(), overwrite=overwrite)


def read_photoshop(path: Path) -> LayeredImage:
    """Read the layers of the file, without its provenance.

    Groups are taken apart; texts and smart objects become the pixels that the file shows them with. Raises
    PluginError without psd-tools, and InvalidInput for a damaged file, for one that is not RGB or grey with 8
    or 16 bits, for one without layers or with more than MOST_PIXELS, and for what plain layers cannot
    represent: other blending, masks, effects, clipping, adjustments, fills and shapes.
    """
    check_extra(LayeredImage, "psd")
    with _parsed(path) as psd:
        if psd.color_mode.name not in ("RGB", "GRAYSCALE") or psd.depth not in (8, 16):
            raise InvalidInput(
                f"{path} is {psd.color_mode.name.lower()} with {psd.depth} bits a channel, "
                "expected RGB or grey with 8 or 16",
                hint="Convert it in the program that made it.",
            )
        LayerDecoder().take(psd.height, psd.width, f"the canvas of {path}")
        layers = tuple(_layers(psd, Group(), LayerDecoder(), path))
        size = (psd.height, psd.width)
    if not layers:
        raise InvalidInput(f"{path} has no layers, expected at least one")
    return LayeredImage(size, layers)


def photoshop_document(path: Path) -> dict[str, Any]:
    """Return the metadata document in the file, empty when it has none; ValueError when it is no JSON."""
    check_extra(LayeredImage, "psd")
    from psd_tools.constants import Resource

    with _parsed(path) as psd:
        xmp = psd.image_resources.get_data(Resource.XMP_METADATA)
    if not xmp:
        return {}
    for element in parse_xml(bytes(xmp).strip(b"\0"), f"the XMP metadata of {path}").iter():
        # Programs that write XMP again may turn the property into an attribute.
        text = element.text if element.tag == _PROPERTY else element.get(_PROPERTY)
        if text is not None:
            return {PROVENANCE_KEY: json.loads(text)}
    return {}


def _check_size(image: LayeredImage) -> None:
    if max(image.size) > _LONGEST_SIDE:
        raise InvalidInput(
            f"the picture is {image.size[1]}x{image.size[0]}, "
            f"and psd holds at most {_LONGEST_SIDE} pixels a side",
            hint="Write OpenRaster (.ora).",
        )
    for layer in image.layers:
        if max(abs(layer.x) + layer.pixels.shape[2], abs(layer.y) + layer.pixels.shape[1]) > _FARTHEST:
            raise InvalidInput(
                f"layer '{layer.name}' stands at ({layer.x}, {layer.y}), farther off than psd can tell",
                hint="Move it nearer to the canvas.",
            )


def _opacity8(opacity: float) -> int:
    return int(opacity * 255 + 0.5)


def _planes(pixels: Tensor) -> list[bytes]:
    """The bytes of each channel of uint8 [h, w, c]."""
    return [plane.contiguous().numpy().tobytes() for plane in pixels.permute(2, 0, 1)]


def _layer_section(layers: Iterable[Layer]) -> Any:
    from psd_tools.psd.layer_and_mask import (
        ChannelImageData,
        GlobalLayerMaskInfo,
        LayerAndMaskInformation,
        LayerInfo,
        LayerRecords,
    )
    from psd_tools.psd.tagged_blocks import TaggedBlocks

    records, channels = LayerRecords(), ChannelImageData()
    for layer in layers:
        record, data = _record(layer)
        records.append(record)
        channels.append(data)
    return LayerAndMaskInformation(
        LayerInfo(layer_count=len(records), layer_records=records, channel_image_data=channels),
        GlobalLayerMaskInfo(),
        TaggedBlocks(),
    )


def _record(layer: Layer) -> tuple[LayerRecord, ChannelDataList]:
    """The entry of a layer in the file, and its channels: alpha first, then red, green and blue."""
    from psd_tools.constants import ChannelID, Compression, Tag
    from psd_tools.psd.layer_and_mask import (
        ChannelData,
        ChannelDataList,
        ChannelInfo,
        LayerFlags,
        LayerRecord,
    )

    _, height, width = layer.pixels.shape
    name = printable(layer.name)[:_LONGEST_NAME]
    record = LayerRecord(
        top=layer.y,
        left=layer.x,
        bottom=layer.y + height,
        right=layer.x + width,
        opacity=_opacity8(layer.opacity),
        flags=LayerFlags(visible=layer.visible),
        # For programs that do not know of the Unicode name below.
        name=name.encode("mac_roman", errors="replace").decode("mac_roman"),
    )
    record.tagged_blocks.set_data(Tag.UNICODE_LAYER_NAME, name)
    red, green, blue, alpha = _planes(layer.to_bytes8())
    channels = ChannelDataList()
    for kind, plane in zip((-1, 0, 1, 2), (alpha, red, green, blue), strict=True):
        channel = ChannelData(Compression.RLE)
        channel.set_data(plane, width, height, depth=8)
        record.channel_info.append(ChannelInfo(ChannelID(kind), len(channel.data) + 2))
        channels.append(channel)
    return record, channels


def _add_xmp(resources: ImageResources, xmp: bytes) -> None:
    from psd_tools.constants import Resource
    from psd_tools.psd.image_resources import ImageResource

    resources[Resource.XMP_METADATA] = ImageResource(key=Resource.XMP_METADATA, data=xmp)


def _xmp(text: str) -> bytes:
    """An XMP packet with one property; the lines around it are how programs find it in a file."""
    for prefix, name in (("x", _META), ("rdf", _RDF), ("zoo", _NAMESPACE)):
        ElementTree.register_namespace(prefix, name)
    root = ElementTree.Element(f"{{{_META}}}xmpmeta")
    description = ElementTree.SubElement(
        ElementTree.SubElement(root, f"{{{_RDF}}}RDF"), f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""}
    )
    ElementTree.SubElement(description, _PROPERTY).text = text
    body: bytes = ElementTree.tostring(root, encoding="utf-8")
    begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return begin.encode() + b"\n" + body + b'\n<?xpacket end="w"?>'


@contextmanager
def _parsed(path: Path) -> Iterator[PSDImage]:
    """The parsed file; whatever psd-tools raises within the block means that it is damaged."""
    from psd_tools import PSDDecompressionWarning, PSDImage

    try:
        with warnings.catch_warnings():
            # Else channels that cannot be unpacked would be black.
            warnings.simplefilter("error", PSDDecompressionWarning)
            yield PSDImage.open(path)
    except ZooError:
        raise
    except Exception as error:
        # psd-tools has no errors of its own: anything from AssertionError to ValueError may come.
        # Those of its checks have the sentence first and then objects.
        reason = next(iter(error.args), "") or type(error).__name__
        raise InvalidInput(
            f"{path} is damaged: {reason}",
            hint="It may be cut short; copy or download it again.",
        ) from error


def _layers(items: Iterable[Any], group: Group, decoder: LayerDecoder, path: Path) -> Iterator[Layer]:
    """The layers of the file or of a group in it, back to front."""
    for item in items:
        _check_plain(item)
        if item.is_group():
            count = sum(not inner.is_group() for inner in item.descendants())
            inner_group = group.inner(item.name, count, item.visible, item.opacity / 255)
            yield from _layers(item, inner_group, decoder, path)
        elif item.kind in _DRAWN_KINDS:
            decoder.take(max(item.height, 1), max(item.width, 1), f"layer '{item.name}' of {path}")
            yield Layer(
                _pixels(item),
                item.name.rstrip("\0"),
                item.left,
                item.top,
                group.visible and item.visible,
                group.opacity * item.opacity / 255 * item.fill_opacity / 255,
            )
        else:
            raise _not_plain(item.name, f"is of the kind '{item.kind}'")


def _check_plain(item: Any) -> None:
    mode = item.blend_mode.name
    normal = mode == "NORMAL" or (item.is_group() and mode == "PASS_THROUGH")
    only_normal_blending(item.name, mode.lower().replace("_", " "), normal)
    if item.has_mask() and not item.mask.disabled:
        raise _not_plain(item.name, "has a mask")
    if item.has_vector_mask():
        raise _not_plain(item.name, "has a vector mask")
    if item.has_effects():
        raise _not_plain(item.name, "has effects")
    if item.clipping:
        raise _not_plain(item.name, "is clipped to the layer behind it")


def _not_plain(name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"layer '{name}' {what}, expected a layer of plain pixels",
        hint="Rasterise or merge it in the program that made it.",
    )


def _pixels(item: Any) -> Tensor:
    """float32 [4, h, w] of a layer; one without pixels becomes a single transparent one."""
    if item.width < 1 or item.height < 1 or not item.has_pixels():
        return torch.zeros(4, 1, 1)
    colours = _channels(item, "color").expand(3, -1, -1)
    alpha = _channels(item, "shape")
    return torch.cat([colours, alpha if len(alpha) else torch.ones_like(colours[:1])])


def _channels(item: Any, which: str) -> Tensor:
    """float32 [c, h, w], c = 3 or 1 for "color", and 1 or 0 for "shape", which is alpha."""
    values = item.numpy(which)
    if values is None:
        return torch.zeros(0, item.height, item.width)
    return torch.from_numpy(values.copy()).permute(2, 0, 1).to(torch.float32).contiguous()
