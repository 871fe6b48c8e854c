"""Thresholds: keep predicted clean data in the range of pictures, [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

#: What `threshold` can do.
Threshold = Literal["none", "clip", "dynamic", "dynamic_if"]


def threshold(x0: Tensor, rule: Threshold, signal_scale: float = 1.0) -> Tensor:
    """Predicted clean data [n, ...] under a rule.

    none: as it is. clip: clamped to [-1, 1]. dynamic: as `dynamic` with a share of 0.995 and a limit of 100
    (arXiv 2205.11487). dynamic_if: with 0.95 and 1.5, DeepFloyd's numbers. Data that was divided by
    `signal_scale` before noise was added is judged at its own size.
    """
    rule_function = _RULES[rule]
    if signal_scale == 1.0 or rule == "none":
        return rule_function(x0)
    return rule_function(x0 * signal_scale) / signal_scale


def dynamic(x0: Tensor, share: float, limit: float) -> Tensor:
    """Clamp each sample to [-s, s] and divide by s, its quantile `share` of |x0|, held in [1, limit]."""
    size = magnitude_quantile(x0, share).clamp(1.0, limit)
    bound = size.reshape(-1, *[1] * (x0.dim() - 1))
    return torch.maximum(torch.minimum(x0, bound), -bound) / bound


def magnitude_quantile(x: Tensor, share: float) -> Tensor:
    """The quantile of |x| over all but the first dimension, linear between neighbours: [n].

    torch.quantile refuses tensors of more than 16 million numbers, a batch of five pictures of 1024x1024.
    """
    magnitudes = x.abs().flatten(1)
    count = magnitudes.shape[1]
    position = share * (count - 1)
    below = math.floor(position)
    # Shares lie near 1: selecting the few largest takes a tenth of the time of sorting all.
    largest = magnitudes.topk(count - below, dim=1).values
    above = largest[:, -2] if below + 1 < count else largest[:, -1]
    return torch.lerp(largest[:, -1], above, position - below)


_RULES: dict[Threshold, Callable[[Tensor], Tensor]] = {
    "none": lambda x0: x0,
    "clip": lambda x0: x0.clamp(-1.0, 1.0),
    "dynamic": lambda x0: dynamic(x0, 0.995, 100.0),
    "dynamic_if": lambda x0: dynamic(x0, 0.95, 1.5),
}
