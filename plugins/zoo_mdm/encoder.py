"""The text encoder of the released models: pieces of the authors' tokens, read by a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from zoo.errors import WeightsError
from zoo.runtime.texts import EncodedTexts
from zoo_mdm.pieces import PieceTable
from zoo_mdm.tokens import tokenise


class TextEncoder(nn.Module):
    """The component of role "text_encoder": texts to features.

    `encoder(input_ids=..., attention_mask=...)` returns something with `last_hidden_state`
    [n, tokens, width], as the encoders of `transformers` do. With T5 a token's features
    do not depend on how far its text is padded.
    """

    def __init__(self, encoder: nn.Module, table: PieceTable | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.table = table

    def read_files(self, files: Mapping[str, Path]) -> None:
        """Take the table of pieces from the one file of the tokenizer: see `PieceTable.read`."""
        if len(files) != 1:
            raise WeightsError(f"expected one tokenizer file, got {len(files)}: {', '.join(files)}")
        self.table = PieceTable.read(next(iter(files.values())))

    @torch.no_grad()
    def encode(self, texts: Sequence[str], most_tokens: int = 128, most_characters: int = 0) -> EncodedTexts:
        """Features of texts, cut as `tokenise` says. A text that is there several times is computed once."""
        if self.table is None:
            raise WeightsError("the text encoder has no table of pieces, expected a tokenizer file")
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens = tokenise(list(distinct), self.table, most_tokens, most_characters)
        device = next(self.encoder.parameters()).device
        ids, valid = tokens.ids.to(device), tokens.valid.to(device)
        features = self.encoder(input_ids=ids, attention_mask=valid).last_hidden_state
        features = features * valid[:, :, None].to(features.dtype)
        rows = torch.tensor([distinct[text] for text in texts], device="cpu")
        return EncodedTexts(features[rows.to(device)], valid[rows.to(device)], tokens.lengths[rows])
