"""Texts to the token ids that the authors' models were trained on, which differ from those of T5's own
tokeniser: nothing is normalised, a space stands before every text, and unknown characters are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_mdm.pieces import PieceTable

END, PADDING = "</s>", "<pad>"


@dataclass(frozen=True)
class TokenBatch:
    """Token ids int64 [n, longest] padded at the end, validity float [n, longest], and lengths int64 [n].

    A token is valid unless its id is that of the padding, which a text that spells "<pad>" holds as well;
    `lengths` counts all tokens of a text.
    """

    ids: Tensor
    valid: Tensor
    lengths: Tensor


def tokenise(
    texts: Sequence[str], table: PieceTable, most_tokens: int = 128, most_characters: int = 0
) -> TokenBatch:
    """Ids of texts, each ended by `END`, padded to the longest of them.

    A text is cut to `most_characters` (0 is no limit) before, and to `most_tokens` after: then its `END` is
    lost. The empty text is a space and `END`. Raises `InvalidInput` for a table without `END` or `PADDING`.
    """
    end, padding = table.id_of(END), table.id_of(PADDING)
    rows = []
    for text in texts:
        kept = text[:most_characters] if most_characters else text
        rows.append([*table.segment(" " + kept), end][:most_tokens])
    lengths = [len(row) for row in rows]
    longest = max(lengths, default=0)
    ids = torch.tensor(
        [row + [padding] * (longest - len(row)) for row in rows], dtype=torch.int64, device="cpu"
    ).view(len(rows), longest)
    return TokenBatch(ids, (ids != padding).float(), torch.tensor(lengths, device="cpu"))
