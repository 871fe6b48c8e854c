"""DualViTok: pictures to codes of their meaning and of their pixels, and back (arXiv 2504.01934).

The semantic branch looks at a picture with the vision transformer of Qwen2-VL; each of its codes stands for
28 x 28 pixels. The pixel branch is convolutional, with a code for 16 x 16 pixels. The decoder draws a picture
from the codes of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from zoo.errors import InvalidInput
from zoo_illume.config import DualViTokConfig
from zoo_illume.pixel import DECODING, PixelBranch, PixelCodes, merged_codes, widest_coding
from zoo_illume.semantic import SemanticBranch, SemanticCodes
from zoo_illume.together import most_pixels
from zoo_illume.vision import check_pictures, widest_looking

Branch = TypeVar("Branch", SemanticBranch, PixelBranch)

#: Codes of pixels of the largest picture that working memory is estimated for: the released models draw none
#: with more.
MOST_CODES = 20 * 60

#: Pixels of pictures that samplers encode or decode together: fewer than the largest picture of the released
#: models has, so that a batch takes no more memory than that one.
PIXELS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Encoded:
    """What both branches make of n pictures."""

    semantic: SemanticCodes
    pixel: PixelCodes


@dataclass(frozen=True)
class Reconstruction:
    """A pass through the whole tokenizer, with all that a training loss compares.

    encoded: codes, with the commitment loss of each branch.
    images: [n, 3, H, W], to compare with the pictures that went in; nominally in [-1, 1], not clamped.
    features: [n, vit channels, h, w], to compare with `encoded.semantic.target`.
    """

    encoded: Encoded
    images: Tensor
    features: Tensor


class DualViTok(nn.Module):
    """The tokenizer; a configuration may have one branch alone.

    Pictures are [n, 3, H, W] in [-1, 1], all of one size. Both sides are multiples of `factor` for the pixel
    branch; the semantic branch resizes what it looks at. What a method cannot take raises `InvalidInput`.
    """

    def __init__(self, config: DualViTokConfig) -> None:
        super().__init__()
        self.config = config
        self.semantic = SemanticBranch(config.semantic) if config.semantic else None
        self.pixel = PixelBranch(config.pixel) if config.pixel else None

    @property
    def factor(self) -> int:
        """Side of the pixels that become one pixel code; 1 without a pixel branch."""
        return self.config.pixel.encoder.factor if self.config.pixel else 1

    def grids(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(rows, columns) of the semantic codes, then of the pixel codes, of pictures of a size in pixels."""
        self._check_size(height, width)
        semantic = _present(self.semantic, "semantic").encoder.vit.grid(height, width)
        _present(self.pixel, "pixel")
        return semantic, (height // self.factor, width // self.factor)

    def encode(self, images: Tensor) -> Encoded:
        """Pictures to features, codes and indices of both branches."""
        return Encoded(self.encode_semantic(images), self.encode_pixel(images))

    def encode_semantic(self, images: Tensor) -> SemanticCodes:
        """Pictures of any size to features, codes and indices of their meaning."""
        branch = _present(self.semantic, "semantic")
        check_pictures(images)
        return branch.encode(images)

    def encode_pixel(self, images: Tensor) -> PixelCodes:
        """Pictures to features, codes and indices of their pixels."""
        branch = _present(self.pixel, "pixel")
        check_pictures(images)
        self._check_size(*images.shape[-2:])
        return branch.encode(images)

    def indices(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures to the indices of their codes, [n, h1, w1] and [n, h2, w2], as `decode` takes them."""
        encoded = self.encode(images)
        return encoded.semantic.quantised.indices, encoded.pixel.quantised.indices

    def semantic_codes(self, indices: Tensor) -> Tensor:
        """Indices [n, h, w] of the semantic codebook to codes, float32 [n, dim, h, w]."""
        return _looked_up(_present(self.semantic, "semantic"), indices)

    def pixel_codes(self, indices: Tensor) -> Tensor:
        """Indices [n, h, w] of the pixel codebook to codes, float32 [n, dim, h, w]."""
        return _looked_up(_present(self.pixel, "pixel"), indices)

    def merge(self, semantic_codes: Tensor, pixel_codes: Tensor) -> Tensor:
        """Codes [n, a, h1, w1] and [n, b, h2, w2] to what is decoded: float32 [n, a + b, h2, w2].

        A diffusion decoder is conditioned on the same.
        """
        branch = _present(self.pixel, "pixel")
        if semantic_codes.dim() != 4 or pixel_codes.dim() != 4 or len(semantic_codes) != len(pixel_codes):
            raise InvalidInput(
                f"semantic and pixel codes have shapes {list(semantic_codes.shape)} and "
                f"{list(pixel_codes.shape)}, expected [n, channels, rows, columns] with the same n"
            )
        merged, expected = merged_codes(semantic_codes, pixel_codes), branch.from_codes.in_channels
        if merged.shape[1] != expected:
            raise InvalidInput(
                f"semantic and pixel codes have {semantic_codes.shape[1]} and {pixel_codes.shape[1]} "
                f"channels, expected {expected} together"
            )
        return merged

    def decode_codes(self, semantic_codes: Tensor, pixel_codes: Tensor) -> Tensor:
        """Codes of both branches to pictures [n, 3, h2 * factor, w2 * factor], not clamped."""
        return _present(self.pixel, "pixel").decode(self.merge(semantic_codes, pixel_codes))

    def decode(self, semantic_indices: Tensor, pixel_indices: Tensor) -> Tensor:
        """Indices [n, h1, w1] and [n, h2, w2] to pictures [n, 3, h2 * factor, w2 * factor], not clamped."""
        return self.decode_codes(self.semantic_codes(semantic_indices), self.pixel_codes(pixel_indices))

    def decode_features(self, semantic_codes: Tensor) -> Tensor:
        """Semantic codes [n, dim, h, w] to the vision transformer's features [n, vit channels, h, w]."""
        if semantic_codes.dim() != 4:
            raise InvalidInput(
                f"semantic codes have shape {list(semantic_codes.shape)}, expected [n, dim, rows, columns]"
            )
        return _present(self.semantic, "semantic").decoder.decode(semantic_codes)

    def forward(self, images: Tensor) -> Reconstruction:
        """Pictures through codes back to pictures; gradients pass the quantisers unchanged."""
        encoded = self.encode(images)
        semantic, pixel = encoded.semantic.quantised.values, encoded.pixel.quantised.values
        return Reconstruction(encoded, self.decode_codes(semantic, pixel), self.decode_features(semantic))

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of the decoder at its widest place, or of the vision transformer where that takes more.

        Pictures have `MOST_CODES` codes, and those of `PIXELS_AT_ONCE` go through it together. The codes
        themselves are float32 whatever the rest is.
        """
        semantic, pixel = self.config.semantic, self.config.pixel
        side = self.factor if pixel or not semantic else semantic.vit.cell
        pixels = most_pixels(batch_size, MOST_CODES * side**2, PIXELS_AT_ONCE)
        needs, codebooks = [], 0
        if semantic:
            needs.append(widest_looking(semantic.vit, pixels))
            codebooks += semantic.quantiser.codes * (semantic.quantiser.dim + 1)
        if pixel:
            needs.append(widest_coding(pixel.decoder, pixels, DECODING))
            codebooks += pixel.quantiser.codes * (pixel.quantiser.dim + 1)
        return max(needs) * dtype.itemsize + codebooks * torch.float32.itemsize

    def _check_size(self, height: int, width: int) -> None:
        if height < 1 or width < 1 or height % self.factor or width % self.factor:
            raise InvalidInput(
                f"pictures of {height}x{width} (height x width) do not fit the tokenizer, "
                f"expected multiples of {self.factor}",
                "Resize or pad them first.",
            )


def _present(branch: Branch | None, name: str) -> Branch:
    if branch is None:
        raise InvalidInput(f"the tokenizer has no {name} branch", "Its configuration leaves it out.")
    return branch


def _looked_up(branch: SemanticBranch | PixelBranch, indices: Tensor) -> Tensor:
    if indices.dim() != 3:
        raise InvalidInput(f"indices have shape {list(indices.shape)}, expected [n, rows, columns]")
    return branch.quantiser.indices_to_codes(indices)
