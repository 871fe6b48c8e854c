"""LayerDiff: a UNet that denoises the layers of a picture and their masks together (arXiv 2403.11929).

Published by the paper, whose code and weights are not: the task (a global prompt and one for each layer give
a background, up to three foreground layers and their masks at once), the layer-collaborative attention block
with inter-layer and text-guided intra-layer attention, the layer-specific prompt enhancer, and self-mask
guidance (`zoo_layerdiff.guidance`).

Ours, since nothing is published of it: everything else. The backbone is Stable Diffusion 1.5's UNet, with
which the paper compares itself. Layers are rows of a batch for all that is the backbone's; they share the
time, and have noise of their own. A layer is its picture over a neutral colour and, in further channels, its
mask. Inter-layer attention looks at equal positions ("column") or all positions ("joint") of the other
layers; a vector for each layer says which it is. The enhancer is attention from a layer's prompt to the
global one behind a gate. All that is new starts at zero: a fresh network is the backbone, layer by layer.

A small network without a backbone to start from learns what relates its layers only with three changes, each
off by default: positions told to attention (`positions`), an open gate (`enhancer_gate`), and more noise
(`noise_shift`), since where flat layers stand is else decided in the first steps of twenty.

What holds, and is tested, in the place of numbers of the authors: zero-initialised collaboration leaves the
backbone's output for each layer exactly; without layer embeddings a permutation of the foreground layers
permutes the output; pictures of 2, 3 and 4 layers in one batch are what they are alone; the backbone is
Stable Diffusion's to rounding (tests/layerdiff).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.diffusion.levels import State
from zoo.nn.embeddings import EmbeddingMLP, sinusoids
from zoo.nn.residual import Downsample, Upsample, activated
from zoo_layerdiff.blocks import Attention, ResidualBlock, TextMasks
from zoo_layerdiff.config import LayerDiffConfig
from zoo_layerdiff.denoiser import LayerDenoiser
from zoo_layerdiff.exchange import Stack
from zoo_layerdiff.prompts import Condition, PromptFeatures, PromptPathway, attended, for_layers


class Stage(nn.Module):
    """Residual blocks of one resolution, with attention behind each or none, and a change of resolution."""

    def __init__(
        self, config: LayerDiffConfig, index: int, inputs: list[int], resample: nn.Module | None = None
    ) -> None:
        """`inputs` are the widths that the blocks read."""
        super().__init__()
        width = config.channels[index]
        self.blocks = nn.ModuleList(
            ResidualBlock(read, width, config.embedding, config.norm_groups) for read in inputs
        )
        count = len(inputs) if config.attention[index] else 0
        self.attention = nn.ModuleList(Attention(config, index) for _ in range(count))
        self.resample = resample

    def run(self, x: Tensor, index: int, embedding: Tensor, condition: Condition) -> Tensor:
        """A residual block and what is behind it."""
        x = self.blocks[index](x, embedding)
        if self.attention:
            x = self.attention[index](x, condition)
        return x

    def descend(self, x: Tensor, embedding: Tensor, condition: Condition, skips: list[Tensor]) -> Tensor:
        """The way down: appends every block's result, and the resampled one, to `skips`."""
        for index in range(len(self.blocks)):
            x = self.run(x, index, embedding, condition)
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x)
            skips.append(x)
        return x

    def ascend(self, x: Tensor, embedding: Tensor, condition: Condition, skips: list[Tensor]) -> Tensor:
        """The way up: every block reads x beside the last of `skips`, which is taken off."""
        for index in range(len(self.blocks)):
            x = self.run(torch.cat([x, skips.pop()], dim=1), index, embedding, condition)
        return x if self.resample is None else self.resample(x)


class LayerDiff(LayerDenoiser, nn.Module):
    """The network. It predicts for every layer of every picture at once."""

    def __init__(self, config: LayerDiffConfig) -> None:
        super().__init__()
        self.config = config
        widths, last = config.channels, len(config.channels) - 1
        folded = config.state_channels * config.patch**2
        self.text = PromptPathway(config)
        self.time = EmbeddingMLP(widths[0], config.embedding)
        self.layer = nn.Embedding(config.most_layers, config.embedding) if config.layer_embeddings else None
        self.conv_in = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        current, skips = widths[0], [widths[0]]
        for index, width in enumerate(widths):
            inputs = [current, *itertools.repeat(width, config.residual_blocks - 1)]
            resample = None if index == last else Downsample(width)
            self.down.append(Stage(config, index, inputs, resample))
            skips += [width] * (config.residual_blocks + (resample is not None))
            current = width
        self.middle = Middle(config)
        for index in range(last, -1, -1):
            inputs = []
            for _ in range(config.residual_blocks + 1):
                inputs.append(current + skips.pop())
                current = widths[index]
            self.up.append(Stage(config, index, inputs, Upsample(current) if index else None))
        self.norm_out = nn.GroupNorm(config.norm_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], folded, 3, padding=1)
        if self.layer is not None:
            nn.init.zeros_(self.layer.weight)
        for index, attention in enumerate(self._attention()):
            attention.index = index

    def read_prompts(self, prompts: PromptFeatures, exchange: bool = True) -> Condition:
        """What the network needs of the prompts of some pictures for all steps."""
        layers = prompts.own.shape[1]
        own, shared, vector = self.text(prompts)
        own_valid = None if prompts.own_valid is None else prompts.own_valid.flatten(0, 1)
        shared_valid = prompts.shared_valid
        masks = TextMasks(
            attended(own_valid), None if shared_valid is None else attended(for_layers(shared_valid, layers))
        )
        of_layers = for_layers(shared, layers)
        blocks = tuple(attention.block.texts(own, of_layers) for attention in self._attention())
        return Condition(Stack(layers, prompts.present, exchange), vector, blocks, masks)

    def _attention(self) -> list[Attention]:
        """Every attention of the network, in the order in which they run."""
        stages = [*self.down, self.middle, *self.up]
        return [attention for stage in stages for attention in stage.attention]

    def predict(self, x: State, time: Tensor, condition: Condition) -> State:
        """See `zoo.runtime.capabilities.LayeredDenoiser`: x is one tensor [pictures, layers, c, h, w]."""
        (state,) = x
        pictures, layers, *shape = state.shape
        embedding = self._embedding(time, layers, condition)
        rows = F.pixel_unshuffle(state.reshape(pictures * layers, *shape), self.config.patch)
        hidden = self.conv_in(rows)
        skips = [hidden]
        for stage in self.down:
            hidden = stage.descend(hidden, embedding, condition, skips)
        hidden = self.middle(hidden, embedding, condition)
        for stage in self.up:
            hidden = stage.ascend(hidden, embedding, condition, skips)
        out = self.conv_out(activated(self.norm_out(hidden)))
        return (F.pixel_shuffle(out, self.config.patch).reshape(state.shape),)

    def forward(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """x [pictures, layers, c, h, w] at training times [pictures] -> the prediction of the same shape."""
        return self.predict((x,), time, condition)[0]

    def _embedding(self, time: Tensor, layers: int, condition: Condition) -> Tensor:
        """Time, which layer, and the pooled prompt, added up and activated: [rows, embedding]."""
        embedding = self.time(sinusoids(for_layers(time, layers), self.config.channels[0]))
        if self.layer is not None:
            embedding = embedding + self.layer.weight[:layers].repeat(len(time), 1)
        if condition.vector is not None:
            embedding = embedding + condition.vector
        return F.silu(embedding)


class Middle(nn.Module):
    """The coarsest resolution: residual block, attention, residual block."""

    def __init__(self, config: LayerDiffConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.blocks = nn.ModuleList(
            ResidualBlock(width, width, config.embedding, config.norm_groups) for _ in range(2)
        )
        self.attention = nn.ModuleList([Attention(config, len(config.channels) - 1)])

    def forward(self, x: Tensor, embedding: Tensor, condition: Condition) -> Tensor:
        x = self.blocks[0](x, embedding)
        x = self.attention[0](x, condition)
        through: Tensor = self.blocks[1](x, embedding)
        return through
