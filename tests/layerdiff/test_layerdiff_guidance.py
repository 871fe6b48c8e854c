"""Self-mask guidance and layers in numbers: blur inside masks, guided noise, colours at the edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.diffusion.denoising import Denoising
from zoo.diffusion.levels import Level
from zoo.diffusion.paths import path
from zoo.diffusion.schedules import cosine_capped
from zoo.runtime.noise import Noise
from zoo_layerdiff.guidance import LayerNoise, SelfMaskGuidance, blurred, degraded
from zoo_layerdiff.pictures import composite, over_neutral, straight

LEVEL = Level((4, 8, 8), cosine_capped(100))


class LinearNetwork:
    """Predicts a multiple of the noisy state, another one in unconditional rows."""

    picture_channels = 3
    picture_size = 8

    def __init__(self, prediction: str) -> None:
        self.prediction = prediction

    def predict(self, x: tuple[Tensor, ...], time: Tensor, condition: Any) -> tuple[Tensor, ...]:
        return (x[0] * condition.reshape(-1, 1, 1, 1, 1),)

    def masks(self, clean: Tensor) -> Tensor:
        return clean[:, :, 3:].add(1.0).mul(0.5).clamp(0.0, 1.0)


def test_only_what_a_mask_covers_is_blurred() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, 4, 8, 8, generator=generator) * 2.0 - 1.0
    clean[:, :, 3] = -1.0
    clean[:, 1, 3, :, :4] = 1.0
    clean[:, 2, 3, :2] = 1.0
    soft, network = degraded(LinearNetwork("v"), clean, [3]), blurred(clean[:, :, :3])  # type: ignore[arg-type]
    assert torch.equal(soft[:, :, 3], clean[:, :, 3])
    torch.testing.assert_close(soft[:, 1, :3, :, :4], network[:, 1, :, :, :4])
    assert torch.equal(soft[:, 1, :3, :, 4:], clean[:, 1, :3, :, 4:])
    # The background is blurred where no other layer hides it.
    hidden = (clean[:, 1:, 3].amax(1) > 0)[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(soft[:, 0, :3][hidden], clean[:, 0, :3][hidden])
    torch.testing.assert_close(soft[:, 0, :3][~hidden], network[:, 0][~hidden])


def test_a_blur_keeps_what_is_even_and_spreads_a_point() -> None:
    even = torch.full((2, 3, 8, 8), 0.7)
    torch.testing.assert_close(blurred(even), even)
    point = torch.zeros(1, 17, 17)
    point[0, 8, 8] = 1.0
    spread = blurred(point)
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    # A Gaussian of deviation 1 in two dimensions is 1 / (2 pi) at its peak.
    torch.testing.assert_close(spread.max(), torch.tensor(0.15915), atol=1e-3, rtol=0)


def test_guided_noise_is_the_sum_that_the_formula_says() -> None:
    for prediction in ("epsilon", "v"):
        network: Any = LinearNetwork(prediction)
        route = path([LEVEL.schedule], (60.0, 30.0, 0.0))
        x = torch.randn(1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        level = Level((2, *LEVEL.shape), LEVEL.schedule)
        both = torch.tensor([0.2, 0.5])
        denoising = Denoising(network, [level], route, both, 1, 3.0, doubled=True)
        guidance = SelfMaskGuidance(network, denoising, route, both[:1], 3.0, 0.6, 0, (2,), torch.float32)
        (clean,) = guidance((x,), 0)
        alpha, sigma = route.levels[0].alphas[0], route.levels[0].sigmas[0]

        def noise_of(
            state: Tensor, raw: Tensor, kind: str = prediction, a: float = alpha, s: float = sigma
        ) -> Tensor:
            return raw if kind == "epsilon" else a * raw + s * state

        eps_u, eps_c = noise_of(x, 0.2 * x), noise_of(x, 0.5 * x)
        estimate = (x - sigma * eps_u) / alpha
        noisy = alpha * degraded(network, estimate, [2]) + sigma * eps_u
        eps = eps_u + 3.0 * (eps_c - eps_u) + 0.6 * (eps_u - noise_of(noisy, 0.2 * noisy))
        torch.testing.assert_close(clean, (x - sigma * eps) / alpha, atol=1e-5, rtol=1e-4)
        later = SelfMaskGuidance(network, denoising, route, both[:1], 3.0, 0.6, 1, (2,), torch.float32)
        torch.testing.assert_close(later((x,), 0)[0], denoising((x,), 0)[0])


def test_a_layers_noise_depends_on_nothing_but_its_seed_and_number() -> None:
    cpu = torch.device("cpu")
    two = LayerNoise(Noise([3, 4]), LEVEL, 2, 2, cpu)
    four = LayerNoise(Noise([4]), LEVEL, 4, 1, cpu)
    assert torch.equal(two.start()[1], four.start()[0, :2])
    assert torch.equal(two(7)[0][1], four(7)[0][0, :2])
    assert not torch.equal(two.start()[1, 0], two.start()[1, 1])
    assert not torch.equal(two(7)[0], two(8)[0])


def test_straight_colours_compose_to_the_same_picture_without_a_neutral_edge() -> None:
    generator = torch.Generator().manual_seed(2)
    masks = torch.rand(1, 3, 8, 8, generator=generator) * 0.9 + 0.1
    masks[:, 0] = 1.0
    colours = torch.rand(1, 3, 3, 8, 8, generator=generator) * 2.0 - 1.0
    pictures = colours * masks[:, :, None]
    layers = straight(pictures, masks)
    torch.testing.assert_close(layers[:, :, :3], colours.add(1.0).mul(0.5), atol=1e-5, rtol=0)
    whole = layers[:, 0, :3]
    for index in (1, 2):
        alpha = layers[:, index, 3:]
        whole = alpha * layers[:, index, :3] + (1.0 - alpha) * whole
    torch.testing.assert_close(composite(pictures, masks), whole * 2.0 - 1.0, atol=1e-5, rtol=0)
    again, their_masks = over_neutral(layers)
    torch.testing.assert_close(again, pictures, atol=1e-5, rtol=0)
    assert torch.equal(their_masks, masks)
