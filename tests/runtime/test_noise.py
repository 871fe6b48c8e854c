"""Random numbers: what a sample sees depends on its seed and the draw's name alone."""

from __future__ import annotations

import pytest
import torch

from zoo.runtime.noise import BatchNoise, Noise, RecordedNoise, SomeRows, generator


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_rows_do_not_depend_on_the_batch(kind):
    together = getattr(Noise(range(5, 9)), kind)("latents", (4, 3, 2))
    alone = [getattr(Noise([seed]), kind)("latents", (1, 3, 2))[0] for seed in range(5, 9)]
    assert torch.equal(together, torch.stack(alone))


def test_draws_do_not_depend_on_their_order():
    first, second = Noise([1]), Noise([1])
    a, b = first.normal("a", (1, 4)), first.normal("b", (1, 4))
    assert torch.equal(second.normal("b", (1, 4)), b)
    assert torch.equal(second.normal("a", (1, 4)), a)
    assert not torch.equal(a, b)


def test_draws_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    Noise([0]).normal("x", (1, 9))
    BatchNoise("train", 0).uniform("x", (9,))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_are_pinned():
    # Pictures are named by their seeds: these numbers may never change.
    assert generator(0, "latents").initial_seed() == 1259596937768068718
    assert Noise([0]).normal("latents", (1, 2))[0].tolist() == pytest.approx(
        [1.0279824, -0.2581975], abs=1e-6
    )


def test_distributions():
    normal = Noise(range(200)).normal("x", (200, 100))
    uniform = Noise(range(200)).uniform("x", (200, 100))
    assert normal.mean().abs() < 0.03 and (normal.std() - 1).abs() < 0.03
    assert (uniform.mean() - 0.5).abs() < 0.01 and uniform.min() >= 0 and uniform.max() < 1
    assert normal.dtype == uniform.dtype == torch.float32


def test_a_wrong_number_of_rows_is_an_error():
    with pytest.raises(ValueError, match="asked for 3 rows, but this batch has 2"):
        Noise([0, 1]).normal("latents", (3, 4))


def test_some_rows_have_the_numbers_that_they_have_in_the_batch():
    whole = Noise([5, 6, 7])
    some = SomeRows(whole, (2, 0), 3, prefix="part.")
    assert torch.equal(some.normal("x", (2, 4)), whole.normal("part.x", (3, 4))[[2, 0]])
    assert torch.equal(some.uniform("x", (2, 4)), whole.uniform("part.x", (3, 4))[[2, 0]])
    with pytest.raises(ValueError, match="asked for 3 rows, but these are 2 samples"):
        some.normal("x", (3, 4))


def test_batch_noise_depends_on_its_key():
    assert torch.equal(BatchNoise("t", 1).normal("x", (4,)), BatchNoise("t", 1).normal("x", (4,)))
    assert not torch.equal(BatchNoise("t", 1).normal("x", (4,)), BatchNoise("t", 2).normal("x", (4,)))


def test_recorded_noise_replays_and_checks():
    noise = RecordedNoise({"latents": torch.arange(4.0).view(1, 4)})
    assert noise.normal("latents", (1, 4)).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(KeyError, match="no recorded noise 'steps'; recorded: latents"):
        noise.uniform("steps", (1, 4))
    with pytest.raises(ValueError, match=r"shape \(1, 4\), the sampler asked for \(2, 4\)"):
        noise.normal("latents", (2, 4))
