"""A causal language model of the Llama family as Qwen2.5 has it (arXiv 2412.15115, arXiv 2302.13971).

RMS norms, rotary positions, grouped-query attention with biases on queries, keys and values, a gated
feed-forward, and a head that may share the table of embeddings. Tensors have the names of `Qwen2ForCausalLM`
in the package transformers, so public checkpoints load without renaming; one with a shared head has no
`lm_head.weight`.

Whole sequences run here, for training and to read prompts; `zoo.nn.cached_language_model` runs the same
weights token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InvalidInput
from zoo.nn.rotary import rotary_angles, rotate
from zoo.nn.transformer import SHORT_SEQUENCE

#: Standard deviation of fresh weights, that of the public models of this family.
FRESH_WEIGHTS = 0.02

#: Told of each layer's keys and values [n, key-value heads, tokens, head_dim], by the layer's number.
OnKeys = Callable[[int, Tensor, Tensor], None]

#: Settings of transformers' configurations that change the network, with the values that this one computes.
_COMPUTED = {"hidden_act": ("silu",), "use_sliding_window": (False, None), "rope_scaling": (None,)}


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes, under the names of transformers' configuration files."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = True  #: biases on queries, keys and values; Llama has none

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "int" and getattr(self, field.name) < 1:
                raise InvalidInput(f"{field.name} is {getattr(self, field.name)}, expected at least 1")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise InvalidInput(
                f"hidden_size is {self.hidden_size}, expected an even number for each of "
                f"{self.num_attention_heads} attention heads"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise InvalidInput(
                f"num_attention_heads is {self.num_attention_heads}, expected a multiple of "
                f"num_key_value_heads, {self.num_key_value_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Features of one head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_transformers(cls, settings: Mapping[str, Any]) -> LanguageModelConfig:
        """The sizes of a config.json; settings that do not change the network are passed over.

        Raises `InvalidInput` for a network of another kind, or where a size is missing.
        """
        for name, computed in _COMPUTED.items():
            if settings.get(name, computed[0]) not in computed:
                raise InvalidInput(f"{name} is {settings[name]!r}, expected {computed[0]!r}")
        known = {field.name: settings[field.name] for field in fields(cls) if field.name in settings}
        try:
            config = cls(**known)
        except TypeError as error:
            raise InvalidInput(f"the configuration of the language model is not complete: {error}") from None
        if settings.get("head_dim") not in (None, config.head_dim):
            raise InvalidInput(f"head_dim is {settings['head_dim']}, expected {config.head_dim}")
        return config


def _explicit_attention(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    # Queries that share keys stand one below the other: keys are read once, and not copied for each.
    groups, (n, shared, tokens, head_dim) = queries.shape[1] // keys.shape[1], keys.shape
    stacked = queries.reshape(n, shared, groups * tokens, head_dim) * head_dim**-0.5
    logits = (stacked @ keys.transpose(-1, -2)).view(n, shared, groups, tokens, tokens)
    weights = logits.masked_fill(~seen.unsqueeze(2), float("-inf")).softmax(-1)
    attended: Tensor = weights.to(values.dtype).flatten(2, 3) @ values
    return attended.reshape(queries.shape)


def grouped_attention(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """Causal attention of queries [n, heads, t, d] to keys and values [n, shared heads, t, d].

    seen: bool [n or 1, 1, t, t], where query i (row) sees key j (column); None is all up to its own.
    """
    tokens = queries.shape[2]
    if torch.is_grad_enabled() and queries.device.type == "cpu" and tokens <= SHORT_SEQUENCE:
        if seen is None:
            seen = torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril()
        return _explicit_attention(queries, keys, values, seen)
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=seen is None)


class _Attention(nn.Module):
    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, shared = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width, bias=config.attention_bias)
        self.k_proj = nn.Linear(width, shared, bias=config.attention_bias)
        self.v_proj = nn.Linear(width, shared, bias=config.attention_bias)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (
            linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(queries, *angles), rotate(keys, *angles)
        attended = grouped_attention(queries, keys, values, seen)
        return self.o_proj(attended.transpose(1, 2).flatten(2)), keys, values


class _GatedFeedForward(nn.Module):
    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return contracted


class LanguageModelLayer(nn.Module):
    """Attention and feed-forward, each behind an RMS norm and added to the residual stream."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _GatedFeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[n, tokens, width] to (the same shape, keys and values as `OnKeys` has them)."""
        attended, keys, values = self.self_attn(self.input_layernorm(x), angles, seen)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), keys, values


class _Trunk(nn.Module):
    """What transformers' checkpoints hold under `model`."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LanguageModelLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """Tokens, or embeddings in their place, to logits of what follows each; offers `token-lm`."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Trunk(config)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )
        self.apply(_fresh)

    @property
    def language_model(self) -> LanguageModel:
        """Itself: see `zoo.runtime.capabilities.TokenLM`."""
        return self

    @property
    def layers(self) -> list[LanguageModelLayer]:
        """From the first to the last."""
        return list(self.model.layers)  # type: ignore[arg-type]

    @property
    def final_norm(self) -> nn.RMSNorm:
        """The norm between the last layer and the head."""
        return self.model.norm

    @property
    def head_weight(self) -> Tensor:
        """[vocab_size, width], that of the embeddings where the two are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] to embeddings [..., width]."""
        embedded: Tensor = self.model.embed_tokens(ids)
        return embedded

    def hidden(
        self,
        sequence: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        on_keys: OnKeys | None = None,
    ) -> Tensor:
        """What the head reads, [n, tokens, width]; arguments as those of `forward`."""
        x = sequence if sequence.is_floating_point() else self.embed(sequence)
        if positions is None:
            positions = _counted(x, mask)
        cosines, sines = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        angles = cosines.unsqueeze(1).to(x.dtype), sines.unsqueeze(1).to(x.dtype)
        seen = None if mask is None else _seen(mask)
        for number, layer in enumerate(self.model.layers):
            x, keys, values = layer(x, angles, seen)
            if on_keys is not None:
                on_keys(number, keys, values)
        normed: Tensor = self.model.norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] from `hidden` to [..., vocab_size]."""
        return F.linear(hidden, self.head_weight)

    def forward(
        self, sequence: Tensor, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Logits [n, tokens, vocab_size] of the token behind each.

        sequence: ids int64 [n, tokens], or embeddings [n, tokens, width].
        positions: int64 [n or 1, tokens]; by default the tokens of `mask` are counted from 0.
        mask: bool [n, tokens], True for tokens and False for padding on either side, where the result has
            no meaning; None is no padding.
        """
        return self.logits(self.hidden(sequence, positions, mask))


def _counted(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.arange(x.shape[1], device=x.device)[None]
    return (mask.to(torch.int64).cumsum(1) - 1).clamp_min(0)


def _seen(mask: Tensor) -> Tensor:
    tokens = mask.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    # Padding sees itself: a softmax over nothing would be NaN, and spread from there.
    itself = torch.eye(tokens, dtype=torch.bool, device=mask.device)
    return (causal & mask.to(torch.bool)[:, None, None]) | itself


def _fresh(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=FRESH_WEIGHTS)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
