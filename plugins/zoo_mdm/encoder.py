"""The text encoder of the released models: that of flan-T5, run by `transformers` (extra `zoo[mdm]`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.errors import PluginError, WeightsError
from zoo.registry import missing_package
from zoo_mdm.pieces import PieceTable
from zoo_mdm.tokens import tokenise


@dataclass(frozen=True)
class EncodedTexts:
    """What a network reads of n texts that were padded to the longest of them.

    features: [n, tokens, width], exactly zero where `valid` is.
    valid: float [n, tokens], 1 for tokens and 0 for padding.
    lengths: int64 [n] on the CPU, the tokens of each text before padding.
    """

    features: Tensor
    valid: Tensor
    lengths: Tensor


class TextEncoder(nn.Module):
    """The component of role "text_encoder": texts to features.

    `encoder(input_ids=..., attention_mask=...)` returns something with `last_hidden_state`
    [n, tokens, width], as the encoders of `transformers` do. With T5 a token's features
    do not depend on how far its text is padded.
    """

    def __init__(self, table: PieceTable, encoder: nn.Module) -> None:
        super().__init__()
        self.table = table
        self.encoder = encoder

    @torch.no_grad()
    def encode(self, texts: Sequence[str], most_tokens: int = 128, most_characters: int = 0) -> EncodedTexts:
        """Features of texts, cut as `tokenise` says. A text that is there several times is computed once."""
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens = tokenise(list(distinct), self.table, most_tokens, most_characters)
        device = next(self.encoder.parameters()).device
        ids, valid = tokens.ids.to(device), tokens.valid.to(device)
        features = self.encoder(input_ids=ids, attention_mask=valid).last_hidden_state
        features = features * valid[:, :, None].to(features.dtype)
        rows = torch.tensor([distinct[text] for text in texts], device="cpu")
        return EncodedTexts(features[rows.to(device)], valid[rows.to(device)], tokens.lengths[rows])


def load_text_encoder(
    folder: Path, pieces: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """The encoder of a T5 model in a local folder of the hub's form, with the table of its pieces.

    folder: holds config.json and safetensors files; files that need pickle are not read.
    pieces: a file that `PieceTable.read` reads.

    Raises `PluginError` where `transformers` is not installed, `WeightsError` for a folder that it cannot
    load, `InvalidInput` for a damaged table. Nothing is downloaded.
    """
    table = PieceTable.read(pieces)
    try:
        from transformers import T5EncoderModel
    except ModuleNotFoundError as error:
        raise PluginError(*missing_package("mdm", error)) from error
    try:
        encoder = T5EncoderModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder}: is not a T5 model that can be loaded: {error}",
            "Expected config.json and safetensors files.",
        ) from error
    return TextEncoder(table, encoder.to(device, dtype)).eval().requires_grad_(False)
