"""The encoder of T5 v1.1 and flan-T5 (arXiv 2210.11416), run by `transformers` (extra `zoo[mdm]`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from zoo_mdm.encoder import TextEncoder

#: What the encoder's table of embeddings is called in files that hold the decoder too.
_SHARED, _EMBEDDINGS = "shared.weight", "encoder.embed_tokens.weight"

#: Tokens of the longest text that the memory of a run is estimated for.
_LONGEST = 128


@dataclass(frozen=True, kw_only=True)
class T5EncoderConfig:
    """The sizes of an encoder, under the names that T5 has for them."""

    d_model: int  #: width of a token's features
    d_ff: int  #: width inside the gated feed-forward
    d_kv: int  #: width of a head
    num_heads: int
    num_layers: int
    vocab_size: int = 32128


class T5Encoder(TextEncoder):
    """A T5 encoder as a component: its tensors are those of the files without the decoder's."""

    def __init__(self, config: T5EncoderConfig) -> None:
        sizes = {name: getattr(config, name) for name in config.__dataclass_fields__}
        made = transformers.T5Config(**sizes, feed_forward_proj="gated-gelu", dropout_rate=0.0)
        super().__init__(transformers.T5EncoderModel(made).encoder)
        self.config = config

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes that reading so many texts takes: the widest layer, for texts of 128 tokens."""
        config, tokens = self.config, batch_size * _LONGEST
        feedforward = tokens * (3 * config.d_ff + 4 * config.d_model)
        attention = tokens * (4 * config.d_kv * config.num_heads + 3 * _LONGEST * config.num_heads)
        return max(feedforward, attention) * dtype.itemsize


def encoder_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A converter: what belongs to the encoder in the tensors of a whole T5, or of an encoder alone."""
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    if _SHARED in tensors:
        kept[_EMBEDDINGS] = tensors[_SHARED]
    return kept
