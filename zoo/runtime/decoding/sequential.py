"""The exact loop: one token after another."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.nn.decoding import Here, OnDevice
from zoo.runtime.decoding.network import BlockNetwork, applied

#: Called with the number of tokens of a block that are done.
OnToken = Callable[[int], None]


def decode(network: BlockNetwork, x: Tensor, start: int, on_token: OnToken) -> None:
    """Latents to tokens in place, x [tokens, n, f]; tokens up to `start` are done, those before it read."""
    for index in range(start, len(x) - 1):
        scale, shift = network.step(x[index], Here(index))
        following = x[index + 1]
        if scale is None:
            following.add_(shift)
        else:
            torch.addcmul(shift, following, scale, out=following)
        on_token(index + 1)


#: Buckets of attention length that a sequence is cut into: each is a graph of its own, and each token reads
#: up to one bucket more of the cache than it needs.
BUCKETS = 8


class DeviceSteps:
    """The loop for devices that run behind the host: the position lies on the device.

    Every step is the same sequence of kernels on the same memory. The host passes nothing and waits for
    nothing.
    """

    def __init__(self, network: BlockNetwork, shape: tuple[int, int, int], device: torch.device) -> None:
        self.network = network
        self.x = torch.zeros(shape, device=device)
        self.index = torch.zeros(1, dtype=torch.int64, device=device)

    def decode(self, x: Tensor, on_token: OnToken) -> Tensor:
        """As `decode` from the first token on; returns a buffer that the next call writes to."""
        self.x.copy_(x)
        self.index.zero_()
        for index in range(len(x) - 1):
            self.run(bucket_length(index + 1, len(x)))
            on_token(index + 1)
        return self.x

    def run(self, length: int) -> None:
        """One token, at a position below `length`."""
        self.step(length)

    def step(self, length: int) -> None:
        """The kernels of one token."""
        at = OnDevice(self.index, length)
        affine = self.network.step(at.pick(self.x), at)
        self.index.add_(1)
        following = self.x.index_select(0, self.index)
        self.x.index_copy_(0, self.index, applied(affine, following[0])[None])


def bucket_length(reach: int, tokens: int) -> int:
    """The attention length of the bucket that holds `reach` tokens, at most `tokens`."""
    # A multiple of 16: fused attention kernels want masks so aligned.
    size = math.ceil(tokens / BUCKETS / 16) * 16
    return min(math.ceil(reach / size) * size, tokens)
