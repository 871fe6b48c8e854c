"""What determines an ILLUME+ model: the language model, how it reads pictures, and what its tokens mean.

Defaults are those of the released models, as far as they share them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from zoo.errors import InvalidInput
from zoo.nn.language_model import LanguageModelConfig
from zoo_illume.config import CoderConfig, VisionConfig, check_positive, nested
from zoo_illume.formats import PromptFormats
from zoo_illume.processor import Grid, InterleavedTokens
from zoo_illume.sizes import semantic_size

#: Stands in a prompt's ids where a picture is read.
PICTURE = -200

#: (height, width) in pixels of what the released models were trained to draw, the usual one first.
SIZES = (
    (512, 512),
    (384, 512),
    (512, 384),
    (384, 768),
    (768, 384),
    (384, 576),
    (576, 384),
    (320, 960),
    (960, 320),
    (256, 1024),
    (1024, 256),
    (256, 256),
)


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """Ids of the tokens that stand for pictures. Level 0 is semantic, level 1 pixels.

    Size tokens and codes are numbered from the first one on: `size_step` is the first height or width in
    pixels and the step to the next. A model without size tokens or codes, which only reads, has none of them.
    """

    start_of_image: int = 151665
    end_of_image: int = 151666
    end_of_line: int = 151667
    start_of_level: tuple[int, int] = (151668, 151670)
    end_of_level: tuple[int, int] = (151669, 151671)
    first_height: int = 151672
    first_width: int = 151688
    size_step: int = 64
    sizes: int = 16  #: heights, and as many widths
    end_of_text: int = 151645
    first_code: tuple[int, int] = (151704, 184472)  #: of each level
    codes: tuple[int, int] = (32768, 98304)  #: of each level

    def __post_init__(self) -> None:
        for name in ("start_of_level", "end_of_level", "first_code", "codes"):
            values = tuple(getattr(self, name))
            if len(values) != 2:
                raise ValueError(f"{name} is {list(values)}, expected a number for each of the two levels")
            object.__setattr__(self, name, values)
        if self.size_step < 1:
            raise ValueError(f"size_step is {self.size_step}, expected at least 1")
        if min(self.sizes, *self.codes) < 0:
            raise ValueError(f"sizes is {self.sizes} and codes are {list(self.codes)}, expected no negatives")
        self._check_apart()

    def _check_apart(self) -> None:
        """Raise `ValueError` for an id that two tokens would have."""
        ranges = sorted((first, first + count, name) for name, first, count in self._ranges() if count)
        if ranges[0][0] < 0:
            raise ValueError(f"{ranges[0][2]} begins with the id {ranges[0][0]}, expected at least 0")
        for (_, end, name), (first, _, other) in pairwise(ranges):
            if first < end:
                raise ValueError(f"{name} and {other} both have the id {first}")

    def _ranges(self) -> list[tuple[str, int, int]]:
        """(name, first id, number) of all tokens."""
        single = ("start_of_image", "end_of_image", "end_of_line", "end_of_text")
        levels = [
            (f"{name}[{level}]", first, count)
            for name, firsts, counts in (
                ("start_of_level", self.start_of_level, (1, 1)),
                ("end_of_level", self.end_of_level, (1, 1)),
                ("codes", self.first_code, self.codes),
            )
            for level, (first, count) in enumerate(zip(firsts, counts, strict=True))
        ]
        sides = [("heights", self.first_height, self.sizes), ("widths", self.first_width, self.sizes)]
        return [*((name, getattr(self, name), 1) for name in single), *levels, *sides]

    @property
    def end(self) -> int:
        """The id behind the last."""
        return max(first + count for _, first, count in self._ranges() if count)

    def interleaved(self) -> InterleavedTokens:
        """What the rules of writing pictures need."""
        return InterleavedTokens(
            start_of_image=self.start_of_image,
            end_of_image=self.end_of_image,
            end_of_line=self.end_of_line,
            start_of_level=self.start_of_level,
            end_of_level=self.end_of_level,
            end_of_text=self.end_of_text,
            codes=tuple((a, a + n) for a, n in zip(self.first_code, self.codes, strict=True)),
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Ids of the height's and the width's token; raises `InvalidInput` for a side that has none."""
        indices = []
        for side in (height, width):
            index, rest = divmod(side, self.size_step)
            if rest or not 1 <= index <= self.sizes:
                raise InvalidInput(
                    f"there is no token for a side of {side} pixels, expected one of {self.sizes} multiples "
                    f"of {self.size_step}"
                )
            indices.append(index - 1)
        return self.first_height + indices[0], self.first_width + indices[1]


@dataclass(frozen=True, kw_only=True)
class IllumeConfig:
    """A language model with eyes: the same sizes as the dual tokenizer's, whose codes it writes.

    sizes: (height, width) in pixels of the pictures that can be drawn, the usual one first; () draws none.
    longest_text: tokens of the longest answer that memory is planned for.
    """

    language_model: LanguageModelConfig
    vit: VisionConfig = field(default_factory=VisionConfig)
    encoder: CoderConfig = field(default_factory=lambda: CoderConfig(channels=128, latent=32))
    tokens: TokenTable = field(default_factory=TokenTable)
    sizes: tuple[tuple[int, int], ...] = SIZES
    longest_text: int = 1024
    formats: PromptFormats = field(default_factory=PromptFormats)

    def __post_init__(self) -> None:
        nested(self, "language_model", LanguageModelConfig)
        nested(self, "vit", VisionConfig)
        nested(self, "encoder", CoderConfig)
        nested(self, "tokens", TokenTable)
        nested(self, "formats", PromptFormats)
        check_positive(self, "longest_text")
        object.__setattr__(self, "sizes", tuple((int(height), int(width)) for height, width in self.sizes))
        if self.tokens.end > self.language_model.vocab_size:
            raise ValueError(
                f"tokens go up to {self.tokens.end - 1}, expected ids below language_model.vocab_size, "
                f"{self.language_model.vocab_size}"
            )
        for height, width in self.sizes:
            self._check_size(height, width)

    def _check_size(self, height: int, width: int) -> None:
        if min(height, width) < self.factor or height % self.factor or width % self.factor:
            raise ValueError(f"sizes holds {height}x{width}, expected multiples of {self.factor}")
        if not all(self.tokens.codes):
            raise ValueError("sizes are given and a level has no codes, expected codes to draw with")
        if self.tokens.sizes:
            try:
                self.tokens.size(height, width)
            except InvalidInput as error:
                raise ValueError(f"sizes holds {height}x{width}: {error}") from None

    @property
    def semantic_cell(self) -> int:
        """Side of the pixels that become one semantic feature or code."""
        return self.vit.cell

    @property
    def factor(self) -> int:
        """Side of the pixels that become one feature or code of pixels."""
        return self.encoder.factor

    def grids(self, height: int, width: int) -> tuple[Grid, Grid]:
        """(rows, columns) of the semantic codes, then of the pixel codes, of a picture's size in pixels.

        Raises `InvalidInput` where the sides are no multiples of `factor`.
        """
        if min(height, width) < 1 or height % self.factor or width % self.factor:
            raise InvalidInput(
                f"a picture of {height}x{width} (height x width) does not fit the model, "
                f"expected multiples of {self.factor}"
            )
        rows, columns = (
            side // self.semantic_cell for side in semantic_size(height, width, self.semantic_cell)
        )
        return (rows, columns), (height // self.factor, width // self.factor)

    def picture_tokens(self, height: int, width: int) -> int:
        """Tokens of a picture that is read or written, its start and end among them."""
        return self.tokens.interleaved().in_picture(self.grids(height, width))
