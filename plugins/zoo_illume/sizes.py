"""At which size the semantic branch sees a picture, and so how many codes it makes of it."""

from __future__ import annotations

#: (height, width) in pixels.
Size = tuple[int, int]

#: Side of the pixels that become one semantic feature in the released tokenizer, which the table is for.
CELL = 28

#: (height, width) of a picture: of what is looked at. Not every entry is what rounding down would give.
RESIZED = {
    (256, 256): (252, 252),
    (512, 512): (504, 504),
    (512, 384): (448, 336),
    (384, 512): (336, 448),
    (768, 384): (728, 364),
    (384, 768): (364, 728),
    (1024, 256): (1008, 252),
    (256, 1024): (252, 1008),
    (384, 576): (336, 504),
    (576, 384): (504, 336),
    (960, 320): (924, 308),
    (320, 960): (308, 924),
}


def semantic_size(height: int, width: int, cell: int = CELL) -> tuple[int, int]:
    """(height, width) that a picture is resized to: by the table, else down to multiples of `cell`.

    No side becomes smaller than one cell.
    """
    if cell == CELL and (height, width) in RESIZED:
        return RESIZED[height, width]
    return max(cell, height // cell * cell), max(cell, width // cell * cell)
