"""Inverts an autoregressive flow block by block: the exact loop, CUDA graphs, or parallel decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from zoo.nn.decoding import DecodingLayers
from zoo.runtime import memory, reports
from zoo.runtime.decoding import jacobi, sequential
from zoo.runtime.decoding.graphs import GraphedSteps
from zoo.runtime.decoding.network import BlockNetwork
from zoo.runtime.decoding.options import DecodingOptions
from zoo.runtime.decoding.plan import choose
from zoo.runtime.decoding.sequential import DeviceSteps, OnToken
from zoo.runtime.devices import dtype_name

#: The least tolerance of parallel decoding for a number format of the weights.
ROUNDING = {dtype: torch.finfo(dtype).eps for dtype in (torch.bfloat16, torch.float16)}


class AutoregressiveBlock(Protocol):
    """A block of an autoregressive flow, as far as the engine knows it; blocks of a flow have one shape."""

    layers: Any  #: `TransformerLayer`s

    def parameters(self) -> Any:
        """As of `nn.Module`."""
        ...

    def in_order(self, sequence: Tensor, dim: int) -> Tensor:
        """A sequence in the block's own reading direction, and back."""
        ...


class Engine:
    """The inversion of one batch; `rows` is its size, twice where both branches of guidance run.

    `blocks` are those of the flow in the order of sampling, `layers` what its networks run on. `query_scale`
    multiplies the attention logits of all rows, or of each ([rows]).
    """

    def __init__(
        self,
        blocks: Sequence[AutoregressiveBlock],
        rows: int,
        tokens: int,
        options: DecodingOptions,
        query_scale: Tensor | float = 1.0,
    ) -> None:
        self._blocks, self._options, self._tokens = blocks, options, tokens
        weight = next(iter(blocks[0].parameters()))
        heaviest = memory.heaviest(cast(Sequence[nn.Module], blocks), weight.dtype)
        self.device = weight.device
        parallel = options.decode == "jacobi"
        # A pass of parallel decoding reads half of its window on average, since what has settled is left out.
        span = max(1, min(options.window or tokens, tokens) // 2) if parallel else 1
        whole = heaviest * len(blocks)
        self.plan = choose(self.device, rows * span, weight.dtype, heaviest, whole, options.layout, parallel)
        self.layers = DecodingLayers(
            blocks[0].layers, rows, tokens, self.plan.make, self.plan.cache_dtype, query_scale
        )
        self._steps: DeviceSteps | None = None
        self._done: list[reports.BlockDecoding] = []
        self._reads = 0

    @torch.inference_mode()
    def invert(self, network: BlockNetwork, x: Tensor, on_token: OnToken) -> Tensor:
        """Undo the next block: latents x [tokens, n, features] to tokens of the same shape.

        The network has the block's weights; x keeps its content.
        """
        number = len(self._done)
        block = self._blocks[number]
        ordered = block.in_order(x, 0)
        ordered = ordered.clone() if ordered is x else ordered
        decoded = self._decode(network, ordered, number, on_token)
        return block.in_order(decoded, 0)

    def _decode(self, network: BlockNetwork, x: Tensor, number: int, on_token: OnToken) -> Tensor:
        count = len(x) - 1
        outcome, parallel = jacobi.Outcome(count, count), self._options.decode == "jacobi"
        if parallel:
            outcome = jacobi.decode(network, x, self._settings(number), on_token)
        elif self.plan.graphs:
            x = self._device_steps(network, x).decode(x, on_token)
        else:
            sequential.decode(network, x, 0, on_token)
        self._reads += outcome.reads
        self._done.append(
            reports.BlockDecoding(
                block=number,
                decode=self._options.decode,
                tokens=count,
                passes=outcome.passes,
                sequential_from=outcome.sequential_from,
                residual=outcome.residual if parallel else None,
            )
        )
        return x

    def _settings(self, number: int) -> jacobi.Settings:
        limits = self._options.limit
        limit = limits[min(number, len(limits) - 1)] if limits else None
        # Products in a half format do not repeat more exactly than they are rounded.
        tolerance = max(self._options.tolerance, ROUNDING.get(self.plan.dtype, 0.0))
        return jacobi.Settings(tolerance, self._options.window, limit)

    def _device_steps(self, network: BlockNetwork, x: Tensor) -> DeviceSteps:
        if self._steps is None:
            n, features = x.shape[1:]
            self._steps = GraphedSteps(network, (len(x), n, features), x.device)
        return self._steps

    def report(self) -> None:
        """Tell `zoo.runtime.reports` how the blocks were inverted and what that took at least."""
        linears, plan = list(self._linears()), self.plan
        reports.report(
            reports.Decoding(
                decode=self._options.decode,
                rows=self.layers.rows,
                layout="+".join(sorted({plan.layout_of(linear) for linear in linears})),
                dtype="+".join(sorted({dtype_name(plan.dtype_of(linear)) for linear in linears})),
                graphs=plan.graphs,
                blocks=tuple(self._done),
            )
        )
        reports.report(self._work(linears))

    def _linears(self) -> Iterator[nn.Linear]:
        for layer in self._blocks[0].layers:
            yield from (module for module in layer.modules() if isinstance(module, nn.Linear))

    def _work(self, linears: Sequence[nn.Linear]) -> reports.Work:
        weights = sum(linear.weight.numel() for linear in linears)
        weight_bytes = sum(self.plan.dtype_of(linear).itemsize * linear.weight.numel() for linear in linears)
        passes, rows = sum(block.passes for block in self._done), self.layers.rows
        # A token attends to half of the sequence on average; its keys and values are read once.
        depth = len(self._blocks[0].layers)
        entries = self._reads * rows * self.layers.width * depth * (self._tokens + 1) // 2
        return reports.Work(
            stage="decoding",
            bytes=passes * weight_bytes + 2 * entries * self.plan.cache_dtype.itemsize,
            flops=2 * self._reads * rows * weights + 4 * entries,
            working_set=weight_bytes,
        )
