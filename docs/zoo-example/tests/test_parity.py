"""Parity: the plugin, run as users run it, against the definition written out in double precision."""

import math

import torch
from torch import Tensor
from zoo_spectral.field import SpectralOptions, convert, export

import zoo
from zoo.runtime.sampling import Batch, Item

HEIGHT, WIDTH = 5, 8


def filter_matrix(height: int, width: int, slope: float, level: float) -> Tensor:
    """The filter as a matrix [pixels, pixels]: the mean over k of a(k) cos(2 pi k.(p - q)) at (p, q)."""
    side = min(height, width)
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    matrix = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)
    for u in range(-(height // 2), (height + 1) // 2):
        for v in range(-(width // 2), (width + 1) // 2):
            distance = math.hypot(u * side / height, v * side / width)
            amplitude = side * (distance ** (-slope / 2) if distance else level)
            phase = 2 * math.pi * (pixels @ torch.tensor([u / height, v / width], dtype=torch.float64))
            matrix += amplitude * torch.cos(phase[:, None] - phase)
    return matrix / len(pixels)


def definition(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(mean, matrix) of pictures as vectors [channels * pixels]: x = mean + matrix w."""
    filtered = filter_matrix(HEIGHT, WIDTH, tensors["slope"].item(), tensors["level"].item())
    mean = tensors["mean"].double().repeat_interleave(HEIGHT * WIDTH)
    return mean, torch.kron(tensors["mixing"].double(), filtered)


def test_sampler_draws_what_the_definition_says() -> None:
    loaded = zoo.load("spectral", device="cpu")
    white = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    batch = Batch((Item(0, 0), Item(1, 1)), size=(HEIGHT, WIDTH))
    drawn = loaded.draw(batch, SpectralOptions(0.2), zoo.RecordedNoise({"white": white}), lambda *_: None)
    mean, matrix = definition(loaded.model.state_dict())
    expected = mean + 0.2 * white.double().flatten(1) @ matrix.T
    assert expected.min() > 0 and expected.max() < 1, "nothing is clipped"
    actual = torch.stack([image.pixels for image in drawn]).flatten(1)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=0)


def test_likelihood_is_that_of_the_multivariate_normal() -> None:
    model = zoo.load("spectral", device="cpu").model
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    mean, matrix = definition(model.state_dict())
    normal = torch.distributions.MultivariateNormal(mean, matrix @ matrix.T)
    expected = normal.log_prob(images.double().flatten(1))
    torch.testing.assert_close(model.log_prob(images).double(), expected, atol=0, rtol=1e-4)


def test_converter_keeps_the_field() -> None:
    tensors = zoo.load("spectral", device="cpu").model.state_dict()
    published = export(tensors, {})
    again = export(convert(published, {}), {})
    for name, tensor in published.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=0)
