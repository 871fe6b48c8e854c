"""Drawing with the diffusion decoder: noise, codes, guidance and steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.diffusion.denoising import Denoising
from zoo.diffusion.levels import Level, State
from zoo.diffusion.parameterisations import Prediction
from zoo.diffusion.paths import Path
from zoo.diffusion.sampling import NamedNoise
from zoo.diffusion.solvers import Preview, Progress, unreported
from zoo.errors import InvalidInput
from zoo.runtime.noise import NoiseSource, SomeRows
from zoo.runtime.sampling import OnStep, Unwatched
from zoo_illume.sdxl import SdxlDecoder

#: What stands before the names of the random numbers drawn here.
PREFIX = "decoder."


def decode(
    decoder: SdxlDecoder,
    codes: Tensor,
    size: tuple[int, int],
    noise: NoiseSource,
    steps: int = 50,
    guidance: float = 2.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Pictures [n, 3, height, width], float32 in [-1, 1], of codes [n, channels, rows, columns].

    codes: of both branches, as `DualViTok.merge` makes them.
    size: (height, width) of the pictures, one of the decoder's; see `SdxlConfig.drawn_size`.
    noise: the random numbers of the n samples; draws are called "decoder.start.level0" and, for a scheduler
        that adds noise on its way, "decoder.step<k>.level0".
    guidance: weight of the codes against none. At most 1 leaves them alone, and the network runs once a step
        instead of twice.
    on_step: told of every step of every group of pictures that is drawn together; without previews.

    Raises `InvalidInput` for a size that the decoder does not draw, codes that do not fit it, and steps or
    guidance out of range.
    """
    watcher = on_step or Unwatched()

    def report(step: int, total: int, preview: Preview) -> None:
        watcher(step, total, None)

    with torch.no_grad():
        return decoder.pictures(latents(decoder, codes, size, noise, steps, guidance, report))


def latents(
    decoder: SdxlDecoder,
    codes: Tensor,
    size: tuple[int, int],
    noise: NoiseSource,
    steps: int = 50,
    guidance: float = 2.0,
    on_step: Progress = unreported,
) -> Tensor:
    """What `decode` makes pictures of, [n, channels, h, w] in float32; `on_step` sees the solver's states.

    A state is alpha x0 + sigma eps with alpha^2 + sigma^2 = 1, which is what the network reads.
    """
    _check(decoder, codes, size, guidance)
    route = decoder.scheduling.path(steps)
    together = decoder.at_once(size)
    groups = range(0, len(codes), together)
    drawn = []
    for number, first in enumerate(groups):
        part = codes[first : first + together]
        rows = SomeRows(noise, tuple(range(first, first + len(part))), len(codes), PREFIX)
        watch = _Counted(on_step, number * route.steps, len(groups) * route.steps)
        drawn.append(_denoised(decoder, part, size, rows, route, guidance, watch))
    return torch.cat(drawn)


@dataclass(frozen=True)
class _Conditioned:
    """The network with the codes that it reads, as `Denoising` calls it.

    inputs: [rows, channels, h, w]; the channels behind those of the latents hold the codes.
    """

    decoder: SdxlDecoder
    inputs: Tensor

    @property
    def prediction(self) -> Prediction:
        return self.decoder.scheduling.prediction

    def predict(self, x: State, time: Tensor, condition: Mapping[str, Any]) -> State:
        (state,) = x
        self.inputs[:, : state.shape[1]].copy_(state)
        return (self.decoder.predict(self.inputs, time, condition),)


@dataclass(frozen=True)
class _Counted:
    """Tells of one group's steps as steps of all groups."""

    on_step: Progress
    done: int
    total: int

    def __call__(self, step: int, total: int, preview: Preview) -> None:
        self.on_step(self.done + step, self.total, preview)


def _denoised(
    decoder: SdxlDecoder,
    codes: Tensor,
    size: tuple[int, int],
    noise: NoiseSource,
    route: Path,
    guidance: float,
    on_step: Progress,
) -> Tensor:
    level, scheduling, device = _level(decoder, size), decoder.scheduling, decoder.device
    doubled = guidance > 1.0
    inputs = _with_codes(decoder, codes, level, doubled)
    denoise = Denoising(
        _Conditioned(decoder, inputs),
        [level],
        route,
        decoder.condition(len(inputs), size),
        len(codes),
        guidance if doubled else 1.0,
        dtype=decoder.dtype,
        device=device,
    )
    named = NamedNoise(noise, [level], len(codes), device)
    scale = scheduling.start_scale(route)
    start = tuple(scale * state for state in named.start(route))
    with torch.no_grad():
        (clean,) = scheduling.solver(denoise, start, route, named, on_step)
    return clean


def _level(decoder: SdxlDecoder, size: tuple[int, int]) -> Level:
    config = decoder.config
    shape = (config.latent_channels, size[0] // config.factor, size[1] // config.factor)
    return Level(shape, decoder.scheduling.table)


def _with_codes(decoder: SdxlDecoder, codes: Tensor, level: Level, doubled: bool) -> Tensor:
    """The network's input without the latents; the first half of a doubled batch is without codes too."""
    channels, height, width = level.shape
    rows = 2 * len(codes) if doubled else len(codes)
    inputs = torch.zeros(
        rows, channels + codes.shape[1], height, width, dtype=decoder.dtype, device=decoder.device
    )
    # Enlarged as they are: an interpolated code would be none.
    inputs[-len(codes) :, channels:] = interpolate(codes.to(inputs), (height, width), mode="nearest")
    return inputs


def _check(decoder: SdxlDecoder, codes: Tensor, size: tuple[int, int], guidance: float) -> None:
    config = decoder.config
    config.size_number(size)
    if codes.dim() != 4 or codes.shape[1] != config.code_channels or 0 in codes.shape:
        raise InvalidInput(
            f"codes have shape {list(codes.shape)}, expected [n, {config.code_channels}, rows, columns]"
        )
    rows, columns = codes.shape[2:]
    if rows * size[1] != columns * size[0]:
        raise InvalidInput(
            f"codes of {rows}x{columns} (rows x columns) have another shape than pictures of "
            f"{size[0]}x{size[1]} (height x width)"
        )
    if not 0 <= guidance < float("inf"):
        raise InvalidInput(f"the diffusion decoder's guidance is {guidance}, expected a number of at least 0")
