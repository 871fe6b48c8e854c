"""SimVQ: codes are a learned linear map of a codebook that is never trained (arXiv 2411.02038)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InvalidInput
from zoo_illume.config import QuantiserConfig

#: Distances that are held at a time while codes are searched: what a CPU's cache holds, and elsewhere 128 MB.
_DISTANCES_CPU, _DISTANCES = 1 << 20, 1 << 25
#: However many features there are, so many codes are compared at a time.
_FEWEST_CODES = 1024


@dataclass(frozen=True)
class Quantised:
    """Features and their nearest codes.

    values: float32 of the features' shape: the codes, through which gradients pass to the features as if
        nothing had happened.
    indices: int64, the features' shape without channels.
    commitment: the loss that draws codes to features and, weaker, features to codes; a scalar.
    """

    values: Tensor
    indices: Tensor
    commitment: Tensor


@dataclass(frozen=True)
class _Known:
    """Codes and half of their squared norms, in `made`, and what they were made of.

    `sources` keeps that alive: other tensors cannot take the places in memory by which it is known again.
    """

    states: tuple[Any, ...]
    sources: tuple[Tensor, ...]
    made: tuple[Tensor, Tensor]


class SimVQ(nn.Module):
    """Replaces features by their nearest code. All arithmetic is in float32, whatever surrounds it."""

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook: Tensor
        self.register_buffer(
            "codebook", torch.randn(config.codes, config.frozen_dim) * config.frozen_dim**-0.5
        )
        self.transform = nn.Linear(config.frozen_dim, config.dim, bias=False)
        self._known: _Known | None = None

    def implicit_codebook(self) -> Tensor:
        """The codes themselves, float32 [codes, dim]; computed once for a transform that is not trained."""
        codes, _ = self._codes()
        return codes

    def nearest(self, features: Tensor) -> Tensor:
        """The index of the code at the least Euclidean distance, int64 [n], of features [n, dim].

        Of codes at equal distance it is the lowest.
        """
        with torch.no_grad(), _without_autocast(features.device):
            return _nearest(features.float(), *self._codes())

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Whole numbers [n, *positions] to codes, float32 [n, dim, *positions].

        Raises `InvalidInput` for an index that no code has.
        """
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise InvalidInput(f"indices are {indices.dtype}, expected whole numbers")
        if indices.numel():
            lowest, highest = (int(value) for value in torch.aminmax(indices))
            if lowest < 0 or highest >= self.config.codes:
                wrong = lowest if lowest < 0 else highest
                raise InvalidInput(f"there is no code {wrong}, expected 0 .. {self.config.codes - 1}")
        return F.embedding(indices.long(), self.implicit_codebook()).movedim(-1, 1)

    def forward(self, features: Tensor) -> Quantised:
        """Features [n, dim, *positions] -> their codes."""
        if features.dim() < 2 or features.shape[1] != self.config.dim:
            raise InvalidInput(
                f"features have shape {list(features.shape)}, expected [n, {self.config.dim}, ...]"
            )
        with _without_autocast(features.device):
            features = features.float()
            book, half_norms = self._codes()
            last = features.movedim(1, -1)
            with torch.no_grad():
                found = _nearest(last.reshape(-1, self.config.dim), book, half_norms)
            indices = found.view(last.shape[:-1])
            codes = F.embedding(indices, book).movedim(-1, 1)
            to_features = F.mse_loss(codes, features.detach())
            to_codes = F.mse_loss(features, codes.detach())
            loss = self.config.commitment * (to_features + self.config.features_share * to_codes)
            return Quantised(features + (codes - features).detach(), indices, loss)

    def _codes(self) -> tuple[Tensor, Tensor]:
        """The codes and half of their squared norms."""
        if self.transform.weight.requires_grad:
            # Training may change it without a trace: fused optimisers do not raise a tensor's version.
            self._known = None
            return self._transformed()
        sources = (self.codebook, self.transform.weight)
        states = tuple(_state(tensor) for tensor in sources)
        if self._known is None or self._known.states != states:
            with torch.no_grad():
                made = self._transformed()
            self._known = _Known(states, tuple(tensor.detach() for tensor in sources), made)
        return self._known.made

    def _transformed(self) -> tuple[Tensor, Tensor]:
        with _without_autocast(self.codebook.device):
            codes = F.linear(self.codebook.float(), self.transform.weight.float())
            return codes, codes.square().sum(dim=1) * 0.5


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    # Not every device has autocast to switch off.
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _state(tensor: Tensor) -> tuple[Any, ...]:
    """What changes when a tensor's content, place or number format does."""
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.dtype, tensor.device


def _nearest(features: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    # |x - c|^2 = |x|^2 - 2 x c + |c|^2, of which |x|^2 and a factor do not change which code is nearest.
    held = _DISTANCES_CPU if features.device.type == "cpu" else _DISTANCES
    size = max(_FEWEST_CODES, held // max(1, len(features)))
    least = features.new_full((len(features),), float("inf"))
    found = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    for start in range(0, len(codes), size):
        block = slice(start, start + size)
        distances = torch.addmm(half_norms[block], features, codes[block].T, alpha=-1.0)
        here, index = distances.min(dim=1)
        # Only a smaller distance wins, so that equal ones keep the lower index.
        closer = here < least
        least, found = torch.where(closer, here, least), torch.where(closer, index + start, found)
    return found
