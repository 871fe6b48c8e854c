"""The PNG file of a layer: written from its pixels or kept as it was, and read whatever sort of PNG it is."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import PIL.Image
import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.layers import PNG_SIGNATURE, Layer
from zoo.io.opening import BROKEN
from zoo.io.pixels import from_raw
from zoo.io.writers import encode, to_pillow

MOST_PIXELS = 2**28
"""So many pixels all layers of a file may have together, and its canvas: 4 GiB as float32 RGBA."""

#: Every chunk that decides about how a picture looks; the others hold texts, dates and programs' own data.
_VISIBLE_CHUNKS = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD pHYs cICP mDCV cLLI".split()
)


def layer_png(layer: Layer) -> bytes:
    """Return the PNG file of a layer: the one it was read from, or else 8-bit RGBA with straight alpha.

    Raises ZooError when a value is not finite.
    """
    return layer.encoded if layer.encoded is not None else encode(to_pillow(layer.to_bytes8()), "png")


def without_texts(png: bytes) -> bytes:
    """Return a PNG file with the same picture and without texts, dates and other programs' data."""
    return PNG_SIGNATURE + b"".join(data for kind, data in _chunks(png) if kind in _VISIBLE_CHUNKS)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind of each chunk and the whole of it; what follows the last one is no part of the picture."""
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND" and start + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, start)
        yield kind, png[start : start + length + 12]
        start += length + 12


class LayerDecoder:
    """Decodes the layers of one file, which may have MOST_PIXELS together."""

    def __init__(self) -> None:
        self._left = MOST_PIXELS

    def take(self, height: int, width: int, where: str) -> None:
        """Count pixels that are about to be held in memory; InvalidInput when they become too many."""
        self._left -= height * width
        if self._left < 0:
            raise InvalidInput(
                f"{where} has more pixels than can be read: {width}x{height}, and all layers together "
                f"may have {MOST_PIXELS}",
                hint="Use a smaller picture.",
            )

    def decode(self, png: bytes, where: str) -> Tensor:
        """Return float32 [4, h, w] in [0, 1] of a PNG file; `where` names it in errors.

        Grey, RGB and palette pictures become RGBA. Colour profiles are not applied, and of 16 bits a channel
        those of grey pictures are all kept. Raises InvalidInput for what is no PNG picture, or damaged.
        """
        try:
            with PIL.Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
                self.take(picture.height, picture.width, where)
                picture.load()
                return _rgba(picture)
        except PIL.Image.DecompressionBombError as error:
            raise InvalidInput(f"{where} is too large: {error}", hint="Use a smaller picture.") from error
        except PIL.UnidentifiedImageError as error:
            raise InvalidInput(
                f"{where} is not a PNG picture", hint="Every layer is expected to be one."
            ) from error
        except BROKEN as error:
            raise InvalidInput(
                f"{where} is damaged: {error}", hint="It may be cut short; copy or download it again."
            ) from error


def _rgba(picture: PIL.Image.Image) -> Tensor:
    if picture.mode.startswith("I"):
        # Converting 16-bit grey to RGBA directly clips every value above 255.
        grey = from_raw(picture.convert("I").tobytes(), picture.height, picture.width, 1, torch.int32)
        transparent = picture.info.get("transparency")
        alpha = torch.ones_like(grey) if transparent is None else (grey != transparent).to(torch.float32)
        return torch.cat([grey.div(65535.0).expand(3, -1, -1), alpha])
    rgba = picture.convert("RGBA")
    return from_raw(rgba.tobytes(), rgba.height, rgba.width, 4).div(255.0)
