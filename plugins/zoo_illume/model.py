"""ILLUME+: a language model that reads pictures as features and writes them as codes (arXiv 2504.01934).

A picture that is read goes through a vision transformer and a convolutional encoder; a small network of its
own takes the features of each to the width of the embeddings. They stand in the prompt in the order, and
between the same tokens, in which pictures are written: see `zoo_illume.processor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zoo.errors import InvalidInput
from zoo.nn.language_model import LanguageModel
from zoo.runtime import memory
from zoo.runtime.tokens.weights import decoding_bytes
from zoo_illume.model_config import PICTURE, IllumeConfig
from zoo_illume.pixel import ENCODING, PixelEncoder, widest_coding
from zoo_illume.preparing import MOST_CELLS
from zoo_illume.processor import MOST_APPENDED, Grid
from zoo_illume.together import count_of, most_pixels
from zoo_illume.vision import VisionTransformer, check_pictures, widest_looking

#: Pixels that are read together where no gradient is computed: more would take memory and gain no speed.
PIXELS_AT_ONCE = 2**20

#: Tokens of the text around a picture that working memory is estimated for.
TEXT_AROUND = 256


@dataclass(frozen=True)
class Features:
    """What n pictures of one size are read by, left to right, top to bottom.

    semantic: [n, rows * columns, channels] of the vision transformer.
    pixel: [n, rows * columns, channels] of the pixel encoder, before they are made ready for codes.
    """

    semantic: Tensor
    pixel: Tensor


class Vision(nn.Module):
    """The two networks that look at a picture."""

    def __init__(self, config: IllumeConfig) -> None:
        super().__init__()
        self.semantic = VisionTransformer(config.vit)
        self.pixel = PixelEncoder(config.encoder)

    def forward(self, images: Tensor) -> Features:
        """Images [n, 3, H, W] in [-1, 1] to their features."""
        return Features(self.semantic(images), self.pixel(images).flatten(2).transpose(1, 2))


def projector(inputs: int, width: int) -> nn.Sequential:
    """From the channels of features to the width of embeddings."""
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))


class IllumePlus(nn.Module):
    """Prompts with pictures to logits of tokens of text and pictures; offers `token-lm`.

    Pictures are [n, 3, H, W] in [-1, 1], sides multiples of the configuration's `factor`; what a method
    cannot take raises `InvalidInput`.
    """

    def __init__(self, config: IllumeConfig) -> None:
        super().__init__()
        self.config = config
        self.language_model = LanguageModel(config.language_model)
        self.vision = Vision(config)
        width = config.language_model.hidden_size
        self.semantic_projector = projector(config.vit.out_channels, width)
        self.pixel_projector = projector(config.encoder.latent, width)

    def grids(self, height: int, width: int) -> tuple[Grid, Grid]:
        """(rows, columns) of the semantic codes, then of the pixel codes, of pictures of a size in pixels."""
        return self.config.grids(height, width)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] to embeddings [..., width]."""
        return self.language_model.embed(ids)

    def features(self, images: Tensor) -> Features:
        """What pictures are read by, before it becomes embeddings."""
        self._check_images(images)
        parts = [self.vision(some) for some in _some_at_a_time(images)]
        return Features(torch.cat([p.semantic for p in parts]), torch.cat([p.pixel for p in parts]))

    def read(self, images: Tensor) -> Tensor:
        """Pictures to what stands for each in a prompt: embeddings [n, tokens, width].

        The start of a picture, then of each level its start, rows of embedded features each with an end of
        line, and its end; then the end of the picture.
        """
        self._check_images(images)
        return torch.cat([self._read(some) for some in _some_at_a_time(images)])

    def _read(self, images: Tensor) -> Tensor:
        features, tokens = self.vision(images), self.config.tokens
        levels = (self.semantic_projector(features.semantic), self.pixel_projector(features.pixel))
        n = len(images)
        parts = [self._tokens(n, tokens.start_of_image)]
        for level, (embedded, grid) in enumerate(zip(levels, self.grids(*images.shape[-2:]), strict=True)):
            ends = self._tokens(n, tokens.end_of_line)[:, None].expand(-1, grid[0], -1, -1)
            lines = torch.cat([embedded.unflatten(1, grid), ends], dim=2).flatten(1, 2)
            start = self._tokens(n, tokens.start_of_level[level])
            parts += [start, lines, self._tokens(n, tokens.end_of_level[level])]
        return torch.cat([*parts, self._tokens(n, tokens.end_of_image)], dim=1)

    def _tokens(self, n: int, token: int) -> Tensor:
        """One token for each of n pictures: [n, 1, width]."""
        device = self.language_model.head_weight.device
        return self.embed(torch.tensor([[token]], device=device)).expand(n, -1, -1)

    def embed_prompt(self, ids: Tensor, pictures: Sequence[Tensor] = ()) -> Tensor:
        """Ids int64 [t] to embeddings [T, width]; `PICTURE` stands where the next picture is read.

        pictures: of each mark in its order the embeddings [k, width], a row of what `read` returns.
        """
        self._check_ids(ids)
        marks = (ids == PICTURE).nonzero().flatten().tolist()
        if len(marks) != len(pictures):
            raise InvalidInput(
                f"the prompt has places for {len(marks)} pictures and {len(pictures)} were given, "
                "expected a picture for each place"
            )
        device = self.language_model.head_weight.device
        bounds = [-1, *marks, len(ids)]
        parts: list[Tensor] = []
        for index, (before, mark) in enumerate(pairwise(bounds)):
            parts.append(self.embed(ids[before + 1 : mark].to(device)))
            if index < len(pictures):
                parts.append(pictures[index].to(device, parts[0].dtype))
        return torch.cat(parts)

    def embed_batch(
        self,
        ids: Tensor,
        mask: Tensor | None,
        pictures: Sequence[Tensor],
        padding: str = "right",
        most_tokens: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Padded prompts to (embeddings [n, T, width], mask bool [n, T]), zeros where nothing stands.

        ids: int64 [n, t]; mask: bool [n, t], False for padding on either side; None is no padding.
        pictures: in reading order over all prompts. As in the authors' training, a prompt without a place for
            a picture takes one from the list too, and does not read it.
        padding: the side that the result is padded on, "right" or "left".
        most_tokens: what is longer is cut off at its end; None cuts nothing.
        """
        rows, left = [], iter(pictures)
        for index, row in enumerate(ids):
            kept = row if mask is None else row[mask[index].to(torch.bool)]
            places = int((kept == PICTURE).sum())
            given = list(islice(left, max(places, 1)))
            rows.append(self.embed_prompt(kept, given[:places])[:most_tokens])
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        counted = torch.arange(int(lengths.max()), device=rows[0].device)
        padded = pad_sequence(rows, batch_first=True, padding_side=padding)
        there = counted < lengths[:, None]
        return padded, there.flip(1) if padding == "left" else there

    def forward(
        self, sequence: Tensor, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Logits of the token behind each; arguments as those of `LanguageModel.forward`."""
        logits: Tensor = self.language_model(sequence, positions, mask)
        return logits

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of the heaviest that a batch may be asked for: pictures edited with guidance, or described.

        Beside the weights: the cache of keys and values, scores, and the networks that look at pictures.
        """
        config, language_model = self.config, self.config.language_model
        weights = memory.weight_bytes(self.language_model, dtype)
        drawn = max((config.picture_tokens(*size) for size in config.sizes), default=0)
        read = _tokens_read(config)
        needs = [
            decoding_bytes(language_model, rows, tokens, dtype, device, weights)
            for rows, tokens in (
                (2 * batch_size, 2 * drawn + TEXT_AROUND + MOST_APPENDED),
                (batch_size, read + TEXT_AROUND + config.longest_text),
            )
        ]
        prompts = 2 * batch_size * max(read, drawn) * language_model.hidden_size * dtype.itemsize
        return max(*needs, self._looking_bytes(batch_size, dtype)) + prompts

    def _looking_bytes(self, batch_size: int, dtype: torch.dtype) -> int:
        """Bytes of the vision networks at their widest places, for pictures that are read together."""
        vit, encoder = self.config.vit, self.config.encoder
        pixels = most_pixels(batch_size, _largest_read(self.config), PIXELS_AT_ONCE)
        needed = max(widest_looking(vit, pixels), widest_coding(encoder, pixels, ENCODING))
        return needed * dtype.itemsize + pixels * 3 * torch.float32.itemsize

    def _check_ids(self, ids: Tensor) -> None:
        known = (ids >= 0) & (ids < self.config.language_model.vocab_size)
        unknown = ids[~known & (ids != PICTURE)]
        if ids.dim() != 1 or len(unknown):
            what = f"the id {int(unknown[0])}" if len(unknown) else f"the shape {list(ids.shape)}"
            raise InvalidInput(
                f"a prompt's ids have {what}, expected [tokens] of ids below "
                f"{self.config.language_model.vocab_size}, and {PICTURE} for pictures"
            )

    def _check_images(self, images: Tensor) -> None:
        check_pictures(images)
        self.grids(*images.shape[-2:])


def _some_at_a_time(images: Tensor) -> Sequence[Tensor]:
    """Parts of a batch that are looked at together."""
    if torch.is_grad_enabled():
        return [images]
    return torch.split(images, count_of((images.shape[-2], images.shape[-1]), PIXELS_AT_ONCE))


def _largest_read(config: IllumeConfig) -> int:
    """Pixels of the largest picture that is read: one of those that are drawn, or one to be described."""
    drawn = [height * width for height, width in config.sizes]
    return max(drawn if len(drawn) == 1 else [*drawn, MOST_CELLS * config.factor**2])


def _tokens_read(config: IllumeConfig) -> int:
    """Tokens of the largest picture that is read, were it as wide as high."""
    if len(config.sizes) == 1:
        return config.picture_tokens(*config.sizes[0])
    side = round(_largest_read(config) ** 0.5)
    grids = [(side // cell, side // cell) for cell in (config.semantic_cell, config.factor)]
    return config.tokens.interleaved().in_picture(grids)
