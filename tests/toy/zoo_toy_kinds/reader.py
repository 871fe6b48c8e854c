"""A text encoder that tells which texts it has read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from zoo.runtime.texts import EncodedTexts

#: Every text that was read, in order.
read: list[str] = []


@dataclass(frozen=True)
class ReaderConfig:
    width: int = 1


class Reader(nn.Module):
    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.width = config.width

    def encode(self, texts, most_tokens, most_characters=0):
        read.extend(texts)
        count = len(texts)
        lengths = torch.ones(count, dtype=torch.int64)
        return EncodedTexts(torch.zeros(count, 1, self.width), torch.ones(count, 1), lengths)
