"""CUDA graphs of the one-token step: a token costs one launch instead of hundreds.

One graph for each bucket of attention length serves all tokens of the bucket in all blocks, because blocks
take turns in the same memory for weights.
"""

from __future__ import annotations

import torch

from zoo.runtime.decoding.network import BlockNetwork
from zoo.runtime.decoding.sequential import DeviceSteps

#: Runs before a capture: libraries choose kernels and allocate workspaces in them.
WARM_UP = 2


class GraphedSteps(DeviceSteps):
    """`DeviceSteps`, each bucket's step captured when it is first needed and replayed from then on."""

    def __init__(self, network: BlockNetwork, shape: tuple[int, int, int], device: torch.device) -> None:
        super().__init__(network, shape, device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, length: int) -> None:
        """Replay the bucket's step."""
        if length not in self._graphs:
            self._graphs[length] = self._capture(length)
        self._graphs[length].replay()

    def _capture(self, length: int) -> torch.cuda.CUDAGraph:
        x, index = self.x.clone(), self.index.clone()
        stream = torch.cuda.Stream(self.x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.x.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step(length)
                # Caches need no care: the step that counts writes the same entry again.
                self.x.copy_(x)
                self.index.copy_(index)
        torch.cuda.current_stream(self.x.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(length)
        return graph
