"""TarFlow's blocks as the sampling engine runs them, with guidance inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.nn.decoding import DecodingLayers, Position
from zoo.runtime.decoding.network import Affine
from zoo_tarflow.model import FlowBlock, TarFlow, TarFlowConfig

if TYPE_CHECKING:
    from zoo_tarflow.sampler import TarFlowOptions


@dataclass(frozen=True)
class Guidance:
    """Extrapolation from the unconditional branch: u + (1 + w) (c - u) on log-scales, shifts or both."""

    weight: float = 0.0
    guide: str = ""
    anneal: bool = False
    attention_temperature: float = 1.0

    @classmethod
    def of(cls, model: TarFlow, labels: Tensor | None, options: TarFlowOptions) -> Guidance:
        """What the options ask for; nothing where the unconditional branch cannot differ."""
        conditional = bool(model.config.num_classes) and labels is not None
        if not (conditional or options.attention_temperature != 1.0):
            return cls()
        return cls(options.guidance, options.guide, options.anneal, options.attention_temperature)

    @property
    def branches(self) -> int:
        """2 where the unconditional branch runs beside the conditional one, else 1."""
        return 2 if self.weight and self.guide else 1

    def query_scale(self, n: int, device: torch.device) -> Tensor | float:
        """[2 n]: the temperature touches the unconditional rows only."""
        if self.branches == 1 or self.attention_temperature == 1.0:
            return 1.0
        scale = torch.ones(2 * n, device=device)
        scale[n:] /= self.attention_temperature
        return scale

    def extrapolation(self, config: TarFlowConfig, device: torch.device) -> Tensor:
        """[tokens, outputs]: for each read token the weight of the conditional branch, 1 where not guided."""
        tokens, features = config.tokens, config.features
        weights = torch.full((tokens, 1), self.weight)
        if self.anneal:
            weights = weights * torch.arange(1, tokens + 1)[:, None] / (tokens - 1)
        parts = [weights * (part in self.guide) for part in ("ab" if config.nvp else "b")]
        return 1.0 + torch.cat([part.expand(-1, features) for part in parts], dim=1).to(device)


class TarFlowNetwork:
    """One block's network for a batch; see `zoo.runtime.decoding.network`.

    Conditional and unconditional rows run as one batch, and both read the guided tokens. The tensors around
    the transformer are float32 and keep their memory from block to block.
    """

    def __init__(
        self, config: TarFlowConfig, layers: DecodingLayers, guidance: Guidance, latents: Tensor
    ) -> None:
        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=latents.device)

        outputs = config.features * (2 if config.nvp else 1)
        self.config, self.layers = config, layers
        self.n, self.branches = len(latents), guidance.branches
        self.weight_in = empty(config.features, config.channels)
        self.weight_out, self.bias_out = empty(config.channels, outputs), empty(outputs)
        self.position = empty(config.tokens, config.channels)
        self.vector = empty(self.branches, self.n, config.channels)
        self.extrapolation = guidance.extrapolation(config, latents.device) if self.branches == 2 else None

    @torch.inference_mode()
    def load(self, block: FlowBlock, labels: Tensor | None) -> None:
        """Take a block's weights; labels [n] are those of the batch."""
        self.layers.load(block.layers)
        self.weight_in.copy_(block.project_in.weight.t())
        self.weight_out.copy_(block.project_out.weight.t())
        self.bias_out.copy_(block.project_out.bias)
        self.position.copy_(block.in_order(block.position, 0))
        self.vector.copy_(block.project_in.bias)
        for branch, chosen in zip(self.vector, (labels, None), strict=False):
            vector = block.class_vector(chosen)
            if vector is not None:
                branch += vector

    def step(self, token: Tensor, at: Position) -> Affine:
        """See `zoo.runtime.decoding.network.BlockNetwork`."""
        hidden = self.vector + torch.addmm(at.pick(self.position), token, self.weight_in)
        hidden = self.layers.step(hidden.view(self.branches * self.n, -1), at)
        projected = torch.addmm(self.bias_out, hidden, self.weight_out)
        if self.extrapolation is not None:
            conditional, unconditional = projected[: self.n], projected[self.n :]
            projected = torch.lerp(unconditional, conditional, at.pick(self.extrapolation))
        return self._split(projected)

    def span(self, tokens: Tensor, start: int) -> Affine:
        """See `zoo.runtime.decoding.network.BlockNetwork`."""
        end = start + len(tokens)
        embedded = (tokens @ self.weight_in + self.position[start:end, None]).transpose(0, 1)
        hidden = (self.vector[:, :, None] + embedded).flatten(0, 1)
        hidden = self.layers.span(hidden, start).transpose(0, 1)
        projected = hidden @ self.weight_out + self.bias_out
        if self.extrapolation is not None:
            conditional, unconditional = projected[:, : self.n], projected[:, self.n :]
            projected = torch.lerp(unconditional, conditional, self.extrapolation[start:end, None])
        return self._split(projected)

    def _split(self, projected: Tensor) -> Affine:
        if not self.config.nvp:
            return None, projected
        features = self.config.features
        return projected[..., :features].exp(), projected[..., features:]
