"""The registered samplers, as users run them, on a denoiser that is never wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from exact_denoiser import CLASSES, MEANS, ExactDenoiser, loaded_exact
from torch import Tensor

from zoo.diffusion.schedules import (
    EDMSchedule,
    FlowSchedule,
    Schedule,
    VPSchedule,
    cosine_capped,
    linear_betas,
    table_of_betas,
)
from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.capabilities import CAPABILITIES, Denoiser
from zoo.runtime.noise import RecordedNoise
from zoo.runtime.sampling import Batch, Item, Unwatched
from zoo.session import Session

SAMPLERS = ("ddpm", "ddim", "euler", "heun", "dpm++", "dpm++3m")
TABLE = cosine_capped(1000)
NESTED: dict[str, Any] = {
    "schedules": [TABLE.shifted(4.0), TABLE],
    "shapes": [(3, 8, 8), (3, 2, 2)],
}


def pictures(model: ExactDenoiser, on_step: Any = None, **request: Any) -> Tensor:
    loaded = loaded_exact(model)
    return torch.stack([image.pixels for image in loaded.sample(Request(**request), on_step)])  # type: ignore[attr-defined]


def test_the_core_knows_the_capability() -> None:
    assert CAPABILITIES["denoiser"] is Denoiser
    assert isinstance(ExactDenoiser(), Denoiser)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_say_what_they_are_for(name: str) -> None:
    sampler = Session().sampler(name, "a test")
    assert sampler.owner == "diffusion" and sampler.needs == ("denoiser",)
    assert sampler.tasks == ("text-to-image", "class-to-image", "unconditional")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", ["table", "linear", "vp", "edm", "flow"])
def test_samples_come_from_the_class_that_was_asked_for(name: str, kind: str) -> None:
    schedules: dict[str, Schedule] = {
        "table": TABLE,
        "linear": linear_betas(1000),
        "vp": VPSchedule(),
        "edm": EDMSchedule(),
        "flow": FlowSchedule(),
    }
    model = ExactDenoiser([schedules[kind]], [(3, 8, 8)])
    found = pictures(model, classes=CLASSES, num=20, sampler=name, steps=40) * 2 - 1
    for index, mean in enumerate(MEANS[:3]):
        drawn = found[20 * index : 20 * index + 20]
        assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
        # Forty steps leave some of the deviation of 0.1 behind, the ancestral ones most.
        assert 0.05 < float(drawn.std()) < 0.125


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_table_may_end_without_any_signal(name: str) -> None:
    betas = torch.cat([torch.linspace(1e-4, 0.05, 199), torch.ones(1)])
    model = ExactDenoiser([table_of_betas(betas)], [(3, 8, 8)])
    request = {"classes": ["light"], "num": 20, "sampler": name, "steps": 25}
    found = pictures(model, **request, options={"spacing": "trailing"}) * 2 - 1
    assert float(model.calls[0][1][0]) == 199.0
    assert float(found.mean()) == pytest.approx(0.6, abs=0.02) and 0.05 < float(found.std()) < 0.125
    blind = ExactDenoiser([table_of_betas(betas)], [(3, 8, 8)], "epsilon")
    with pytest.raises(InvalidInput, match="starts without any signal"):
        pictures(blind, **request, options={"spacing": "trailing"})


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_is_the_same_in_any_batch(name: str) -> None:
    request = {"classes": CLASSES, "num": 3, "seed": 5, "steps": 6, "guidance": 1.2, "sampler": name}
    whole = pictures(ExactDenoiser(**NESTED), **request)
    for size in (1, 4):
        assert torch.equal(pictures(ExactDenoiser(**NESTED), **request, batch_size=size), whole)
    alone = pictures(ExactDenoiser(**NESTED), **{**request, "classes": CLASSES[1], "num": 1, "seed": 9})
    assert torch.equal(alone[0], whole[4])
    assert not torch.allclose(whole[0], whole[1], atol=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
def test_previews_never_change_the_result(name: str) -> None:
    seen: list[tuple[int, int, Tensor]] = []

    def spoil(step: int, total: int, preview: Tensor | None) -> None:
        assert preview is not None and not preview.requires_grad
        seen.append((step, total, preview.clone()))
        preview.fill_(7.0)

    request = {"classes": ["light"], "num": 2, "steps": 5, "sampler": name}
    watched = pictures(ExactDenoiser(), spoil, **request)
    assert torch.equal(watched, pictures(ExactDenoiser(), Unwatched(), **request))
    assert [(step, total) for step, total, _ in seen] == [(k, 5) for k in range(1, 6)]
    assert all(preview.shape == (2, 3, 8, 8) and preview.abs().max() <= 1 for _, _, preview in seen)
    torch.testing.assert_close((seen[-1][2] + 1) / 2, watched)


def test_previews_nobody_wants_are_not_made() -> None:
    class Counting(Unwatched):
        steps = 0

        def __call__(self, step: int, total: int, preview: Tensor | None) -> None:
            assert preview is None
            self.steps += 1

    watcher = Counting()
    pictures(ExactDenoiser(), watcher, classes=["light"], steps=4)
    assert watcher.steps == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_guidance_of_one_is_no_guidance(name: str) -> None:
    request = {"classes": ["dark"], "num": 2, "steps": 5, "sampler": name}
    model, plain = ExactDenoiser(), ExactDenoiser()
    off, none = pictures(model, **request, guidance=1.0), pictures(plain, **request)
    assert torch.equal(off, none)
    assert model.guided == [False] and {shapes[0][0] for shapes, _, _ in model.calls} == {2}
    # Almost one has both halves, and nearly the same pictures.
    near = ExactDenoiser()
    assert torch.allclose(pictures(near, **request, guidance=1.0 + 1e-6), off, atol=1e-4)
    assert near.guided == [True] and {shapes[0][0] for shapes, _, _ in near.calls} == {4}


def test_guidance_leads_away_from_no_class() -> None:
    request = {"classes": ["light"], "num": 8, "steps": 30, "options": {"threshold": "none"}}
    means = [
        float(pictures(ExactDenoiser(), **request, guidance=weight).mean() * 2 - 1)
        for weight in (0.0, 1.0, 1.5)
    ]
    assert means == pytest.approx([MEANS[3], MEANS[2], MEANS[3] + 1.5 * (MEANS[2] - MEANS[3])], abs=0.02)


@pytest.mark.parametrize(
    ("name", "calls"), [("ddpm", 6), ("ddim", 6), ("euler", 6), ("heun", 11), ("dpm++", 6)]
)
def test_the_network_runs_as_often_as_said(name: str, calls: int) -> None:
    model = ExactDenoiser()
    pictures(model, classes=["light"], steps=6, sampler=name, guidance=3.0)
    assert len(model.calls) == calls and len(model.guided) == 1
    assert len(model.buffers_seen) == 1


def test_the_network_is_told_the_index_before() -> None:
    model = ExactDenoiser()
    pictures(model, classes=["light"], steps=4)
    assert [float(time[0]) for _, time, _ in model.calls] == [800.0, 600.0, 399.0, 199.0]
    assert {shapes for shapes, _, _ in model.calls} == {((1, 3, 8, 8),)}


def test_spacing_is_an_option() -> None:
    model = ExactDenoiser()
    pictures(model, classes=["light"], steps=4, options={"spacing": "trailing"})
    assert [float(time[0]) for _, time, _ in model.calls] == [999.0, 749.0, 499.0, 249.0]


def test_ddim_with_eta_one_is_ddpm_up_to_thresholds() -> None:
    request = {"classes": ["grey"], "num": 2, "steps": 10}
    ancestral = pictures(ExactDenoiser(), **request, sampler="ddpm", options={"threshold": "none"})
    implicit = pictures(ExactDenoiser(), **request, options={"threshold": "none", "eta": 1.0})
    assert torch.allclose(ancestral, implicit, atol=1e-5)
    assert not torch.allclose(implicit, pictures(ExactDenoiser(), **request), atol=0.01)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++", "dpm++3m"])
def test_deterministic_samplers_agree_when_steps_are_many(name: str) -> None:
    request = {"classes": ["dark"], "num": 2, "seed": 3, "options": {"threshold": "none"}}
    reference = pictures(ExactDenoiser(), **request, sampler="heun", steps=800)
    found = pictures(ExactDenoiser(), **request, sampler=name, steps=400)
    assert float((found - reference).abs().max()) < 0.01


def test_all_levels_stand_beside_one_another_the_lowest_first() -> None:
    model = ExactDenoiser([TABLE.shifted(16.0), TABLE.shifted(4.0), TABLE], [(3, 8, 8), (3, 4, 4), (3, 2, 2)])
    request = {"classes": ["light", "dark"], "steps": 20}
    found = pictures(model, **request, options={"all_levels": True})
    assert found.shape == (2, 3, 8, 24)
    assert torch.equal(found[..., 16:], pictures(model, **request))
    for part in found.chunk(3, dim=-1):
        assert [float(row.mean() * 2 - 1) for row in part] == pytest.approx([0.6, -0.6], abs=0.06)
    # Two by two, enlarged to eight by eight: corners keep their colour.
    lowest = found[0, :, :, :8]
    assert torch.equal(lowest[:, 0, 0], lowest[:, 1, 1]) and not torch.equal(lowest[:, 0, 0], lowest[:, 0, 7])


def test_scaled_signals_end_at_their_own_size() -> None:
    model = ExactDenoiser([TABLE], [(3, 8, 8)], signal_scales=[4.0])
    seen: list[float] = []
    found = pictures(
        model,
        lambda step, total, preview: seen.append(float(preview.mean())),
        classes=["light"],
        num=4,
        steps=20,
    )
    assert float(found.mean() * 2 - 1) == pytest.approx(0.6, abs=0.03)
    assert seen[-1] == pytest.approx(0.6, abs=0.03)


def test_noise_has_a_name_for_every_step_and_level() -> None:
    loaded = loaded_exact(ExactDenoiser(**NESTED))
    draw = torch.Generator().manual_seed(0)
    names = ["start", "step0", "step1"]
    recorded = {
        f"{name}.level{level}": torch.randn(2, 3, side, side, generator=draw)
        for name in names
        for level, side in enumerate((8, 2))
    }
    batch = Batch((Item(0, 0, class_id=0), Item(1, 1, class_id=2)))
    options = loaded.options(Request(steps=3, options={"eta": 1.0}))
    replayed = loaded.draw(batch, options, RecordedNoise(recorded), Unwatched())
    assert len(replayed) == 2, "nothing but the recorded noise was asked for, and none for the last step"
    for name in recorded:
        changed = {**recorded, name: recorded[name] + 1.0}
        again = loaded.draw(batch, options, RecordedNoise(changed), Unwatched())
        same = torch.equal(again[0].pixels, replayed[0].pixels)  # type: ignore[attr-defined]
        # The exact denoiser's levels do not look at each other.
        assert same == name.endswith("level1")


def test_options_have_bounds_and_names() -> None:
    loaded = loaded_exact(ExactDenoiser(), guidance=2.0, steps=8)
    options = loaded.options(Request(options={"eta": "0.5", "threshold": "dynamic_if", "all_levels": "yes"}))
    assert dataclasses.asdict(options) == {
        "steps": 8,
        "guidance": 2.0,
        "threshold": "dynamic_if",
        "spacing": "auto",
        "all_levels": True,
        "eta": 0.5,
    }
    for given, message in (
        ({"eta": 1.5}, "eta is 1.5, expected 0 to 1"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"guidance": -1.0}, "guidance is -1.0, expected a number of at least 0"),
        (
            {"threshold": "soft"},
            "option threshold is 'soft', expected one of: none, clip, dynamic, dynamic_if",
        ),
        ({"spacing": "odd"}, "option spacing is 'odd', expected one of: auto, respaced"),
    ):
        with pytest.raises(InvalidInput, match=message):
            loaded.options(Request(options=given))


def test_mistakes_end_in_words() -> None:
    with pytest.raises(InvalidInput, match="steps is 2000, and this model has 1000 noise levels"):
        pictures(ExactDenoiser(), classes=["light"], steps=2000)
    with pytest.raises(InvalidInput, match="does not make"):
        pictures(ExactDenoiser(), classes=["light"], size=(16, 16))
    with pytest.raises(InvalidInput, match="sampler 'heun' needs denoiser"):
        loaded_exact(ExactDenoiser(), offers=()).sampler("heun")


def test_no_gradients_and_no_global_random_numbers() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = pictures(ExactDenoiser(), classes=["light"], sampler="ddpm", steps=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(pictures(ExactDenoiser(), classes=["light"], sampler="ddpm", steps=4), first)
    assert torch.is_grad_enabled() and not first.requires_grad
