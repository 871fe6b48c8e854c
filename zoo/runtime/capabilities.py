"""What architectures can offer and samplers can need, by name.

The core compares the names before it loads anything, so that any sampler that fits may run any architecture
that offers what it needs, from whichever plugin. Names that are not in `CAPABILITIES` are allowed between
plugins that agree on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import Prediction
from zoo.runtime.texts import TextEncoder

if TYPE_CHECKING:
    from zoo.nn.language_model import LanguageModel
    from zoo.runtime.sampling import Batch


@runtime_checkable
class Likelihood(Protocol):
    """`likelihood`: exact densities."""

    def log_prob(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p of images [n, c, h, w] in [-1, 1] under class labels [n]: [n], in nats for a whole image."""
        ...

    def bits_per_dim(self, images: Tensor, uniform: Tensor) -> Tensor:
        """[n] for 8-bit images [n, c, h, w] (0..255) dequantised with `uniform` in [0, 1) of that shape."""
        ...


@runtime_checkable
class AutoregressiveFlow(Protocol):
    """`autoregressive-flow`: an invertible map whose inverse runs token by token, block after block.

    Samplers invert it with `zoo.runtime.decoding.engine.Engine`.
    """

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in the order of the forward map, all of one shape."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(tokens, features) of one sample's noise."""
        ...

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images to (latents [n, tokens, features], log-determinant per dimension [n])."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """`denoiser`: predicts clean data, or what amounts to it, from noisy data x = alpha x0 + sigma eps.

    A model works on one or several resolutions at once, its levels. A state is a tuple of tensors, one for
    each level, highest resolution first; a plain model has a tuple of one. Levels are denoised together at
    one time, which each level's own schedule turns into an amount of noise.

    The model knows neither solver nor guidance nor threshold: those are made of `zoo.diffusion`.
    """

    @property
    def prediction(self) -> Prediction:
        """What `predict` returns: "epsilon", "v", "x0" or "flow", as `zoo.diffusion.parameterisations` has
        them. A network with EDM's preconditioning applies it in `predict` and returns "x0".
        """
        ...

    def levels(self, size: tuple[int, int] | None = None) -> tuple[Level, ...]:
        """Shape, noise schedule and signal scale of every level, highest resolution first.

        `size` is the (height, width) asked for, None for the model's own. Raises `InvalidInput` for a size
        that the model does not make. A schedule is no module and no buffer, so a model built on the meta
        device has it whole.
        """
        ...

    def condition(self, batch: Batch, components: Mapping[str, Any], guided: bool) -> Any:
        """What `predict` needs to know of a batch beside x and time, on the model's device; made once.

        batch: the n samples with their prompts, negative prompts, labels and images.
        components: the modules by role ("model", "vae", ...); one that offers `text-encoder` has its method
            `encode`, which computes every text once and whose module may be gone when it returns.
        guided: False for the n conditions alone. True for one doubled batch of 2n rows: the n unconditional
            (or negative) ones first, then the n conditions, both halves in the order of the samples.

        Samplers hand the result on without looking inside. Whatever the model does with text (encoder,
        padding to the longest of negative and prompt, masks) happens here, and such that a sample's rows do
        not depend on the other samples of the batch. Raises `InvalidInput` for what it cannot take.
        """
        ...

    def predict(self, x: State, time: Tensor, condition: Any) -> State:
        """The network's raw output for every level, each of the shape of its x.

        x: [rows, c, h, w] per level in the model's number format. The tensors are the caller's buffers and
            are overwritten before the next call: neither change nor keep them.
        time: float32 [rows], the network's time (`Schedule.network_time`): for a table of n steps the
            training index 0 .. n-1, not always whole; for EDM sigma; for flow matching t in [0, 1].
        condition: what `condition` returned, with as many rows.

        Rows are independent: a row's output does not change with what else is in the batch.
        """
        ...


@runtime_checkable
class LayeredDenoiser(Protocol):
    """`layered-denoiser`: predicts the clean layers of pictures, all of a picture's layers together.

    The state is one tensor [pictures, layers, c, h, w], background first; a layer's channels are its picture,
    then its mask. Layers share the time. Pictures of different numbers of layers stand in one state, where
    layers that a picture does not have are ignored.
    """

    @property
    def prediction(self) -> Prediction:
        """What `predict` returns; see `Denoiser`."""
        ...

    @property
    def picture_channels(self) -> int:
        """How many of a layer's channels are its picture."""
        ...

    @property
    def picture_size(self) -> int:
        """Side of the finished layers in pixels."""
        ...

    def level(self, size: tuple[int, int] | None = None) -> Level:
        """Shape, noise schedule and signal scale of one layer; see `Denoiser.levels`."""
        ...

    def condition(
        self, batch: Batch, components: Mapping[str, Any], guided: bool, exchange: bool = True
    ) -> Any:
        """What `predict` needs to know of a batch, whose part prompts are the layers'; see `Denoiser`.

        exchange: False computes every layer as if there were no others.
        """
        ...

    def predict(self, x: State, time: Tensor, condition: Any) -> State:
        """The raw output for all layers; see `Denoiser`."""
        ...

    def masks(self, clean: Tensor) -> Tensor:
        """The masks of clean layers, [pictures, layers, 1, h, w] in [0, 1]."""
        ...

    def decode(self, clean: Tensor, components: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Clean layers as pictures [pictures, layers, 3, H, W] in [-1, 1] over the neutral colour 0, and
        masks [pictures, layers, H, W] in [0, 1].
        """
        ...

    def encode(self, pictures: Tensor, masks: Tensor, components: Mapping[str, Any]) -> Tensor:
        """The inverse of `decode`, as far as it has one."""
        ...


@runtime_checkable
class TokenLM(Protocol):
    """`token-lm`: a causal language model over tokens, whatever they stand for: text, pictures, sizes.

    Samplers generate with `zoo.runtime.tokens.engine.TokenEngine`. What else a model reads, such as a picture
    given to it, comes in as embeddings of the prompt, which the model makes by methods of its own.
    """

    @property
    def language_model(self) -> LanguageModel:
        """The network, from embeddings to logits of the next token."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """What the network reads for token ids int64 [...]: embeddings [..., width], each id by itself."""
        ...


@runtime_checkable
class TextTokenizer(Protocol):
    """`text-tokenizer`: texts as the ids of tokens, and back; a component of language models."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text alone, without anything around it; [] for the empty text.

        What looks like a control token in it is plain text: no user's text becomes a control token. Raises
        `InvalidInput` for what the tokenizer cannot write, such as a word outside a closed vocabulary.
        """
        ...

    def control(self, name: str) -> int:
        """The id of a control token, such as "<|im_start|>"; raises `InvalidInput` for an unknown one."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are left out."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """`reads-files`: a component that needs files without tensors, such as the table of a tokenizer."""

    def read_files(self, files: Mapping[str, Path]) -> None:
        """Take what is needed from the component's raw files, by role; called once, behind its tensors.

        Raises `WeightsError` for a file that it cannot read.
        """
        ...


@runtime_checkable
class MemoryEstimate(Protocol):
    """`memory-estimate`: tells what sampling, or a component's work, takes beside the weights."""

    def sampling_memory(self, batch_size: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes of working memory for a batch, with weights of a number format on a device.

        Asked before anything is loaded, of a module that is on the meta device.
        """
        ...


CAPABILITIES: dict[str, type] = {
    "likelihood": Likelihood,
    "autoregressive-flow": AutoregressiveFlow,
    "denoiser": Denoiser,
    "layered-denoiser": LayeredDenoiser,
    "token-lm": TokenLM,
    "memory-estimate": MemoryEstimate,
    "text-encoder": TextEncoder,
    "text-tokenizer": TextTokenizer,
    "reads-files": ReadsFiles,
}
