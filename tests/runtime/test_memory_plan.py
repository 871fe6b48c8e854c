"""Memory plans before anything is loaded: stages, number formats, batches, what stays, what would fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from planned_parts import DECODER, GIB, MODEL, TOKENIZER, Options, machine, session_of

from zoo.errors import DoesNotFit, ExitCode, NotPulled, PluginError
from zoo.io.request import Request
from zoo.quantities import human_bytes
from zoo.runtime import memory_plan, model
from zoo.runtime.components import Components, check_components
from zoo.runtime.memory import MemoryNeed, PartNeed, StageNeed
from zoo.runtime.memory_plan import Wish, model_dtype, place, plan_memory
from zoo.runtime.model import load
from zoo.store.locate import locate

ONE = Request()


def plan(session, request=ONE, **where) -> MemoryNeed:
    return plan_memory(session, "planned:one", [request], **where)


def asked(decoder="pixel", **more) -> Request:
    return Request(options={"decoder": decoder}, **more)


def test_every_part_has_its_stage_and_number_format(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=24)
    need = plan(session_of(tmp_path))
    assert (str(need.device), need.dtype, need.weights, need.mapped) == ("cuda", "bfloat16", 2 * MODEL, 0)
    words, tokenizer = need.parts
    assert (words.role, words.stage, words.weights) == ("words", "with", 0)
    assert (tokenizer.stage, tokenizer.dtype, tokenizer.weights) == ("after", "float32", 4 * TOKENIZER)
    drawing, behind = need.stages
    assert (drawing.stage, drawing.needed) == ("with", 2 * MODEL + GIB)
    assert behind.held == {"model": 2 * MODEL, "words": 0, "tokenizer": 4 * TOKENIZER}
    assert behind.needed == need.peak == 2 * MODEL + 4 * TOKENIZER + GIB // 4
    assert need.fits and need.fullest == behind


def test_a_component_that_a_request_does_not_use_is_not_counted(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=24)
    session = session_of(tmp_path)
    assert [part.role for part in plan(session, asked("none")).parts] == ["words"]
    assert plan(session, asked("none")).peak == 2 * MODEL + GIB
    with_both = plan(session, asked("diffusion"))
    assert [part.role for part in with_both.parts] == ["words", "tokenizer", "decoder"]
    # The decoder is in the device's format; of the work behind the model the larger counts.
    assert with_both.peak == 2 * MODEL + 4 * TOKENIZER + 2 * DECODER + GIB // 2


def test_where_options_say_nothing_all_but_optional_components_are_with_the_model(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=24)
    need = plan(session_of(tmp_path), Request(sampler="plain"))
    assert [(part.role, part.stage) for part in need.parts] == [("words", "with"), ("tokenizer", "with")]
    assert need.peak == 2 * MODEL + 4 * TOKENIZER + GIB


def test_what_does_not_fit_says_by_how_much_and_what_would(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=20, cpu=48)
    with pytest.raises(DoesNotFit) as caught:
        plan(session_of(tmp_path), asked("diffusion"))
    weights = 2 * MODEL + 4 * TOKENIZER + 2 * DECODER
    assert caught.value.exit_code is ExitCode.DOES_NOT_FIT
    assert caught.value.message == (
        f"planned:one needs {human_bytes(weights + GIB // 2)} on cuda behind its model (model 7.6 GiB, "
        "tokenizer 5.0 GiB, decoder 4.9 GiB, working memory 512.0 MiB), "
        f"{human_bytes(weights - 16 * GIB)} more than is free"
    )
    assert caught.value.hint == (
        "What fits: --dtype bfloat16 (also of tokenizer, against the card) (15.5 GiB); "
        "--option decoder=pixel (12.8 GiB); --option decoder=none (8.6 GiB); --device cpu (30.5 GiB).\n"
        "Or close other programs, or use a machine with more memory."
    )


def test_a_change_that_is_told_does_fit(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=20, cpu=48)
    session = session_of(tmp_path)
    for request, where in [
        (asked("diffusion"), {"dtype": "bfloat16"}),
        (asked("pixel"), {}),
        (asked("diffusion"), {"device": "cpu"}),
    ]:
        assert plan(session, request, **where).fits


def test_two_changes_together_where_neither_is_enough(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=14, cpu=8)
    with pytest.raises(DoesNotFit) as caught:
        plan(session_of(tmp_path), asked("diffusion"), dtype="float32")
    # The message of what does not even fit alone.
    assert caught.value.message.startswith("planned:one needs 15.2 GiB on cuda in float32, ")
    dtype = "--dtype bfloat16 (also of tokenizer, against the card)"
    assert caught.value.hint.splitlines()[0] == (
        f"What fits: {dtype} --option decoder=pixel (10.3 GiB); {dtype} --option decoder=none (8.6 GiB)."
    )


def test_where_nothing_fits_the_nearest_is_told(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=8, cuda1=8, cpu=4)
    session = session_of(tmp_path)
    with pytest.raises(DoesNotFit) as caught:
        plan(session, asked("none", batch_size=1))
    # Of 8 GiB, 6.4 may be weights, which are 7.58; what is left of 8 is too little work for one sample.
    assert "1.2 GiB more than is free" in caught.value.message
    assert caught.value.hint.startswith("Nearest is --device cuda:1, which lacks 1.2 GiB: close other")


def test_with_nothing_to_change_only_the_machine_is_left(tmp_path, monkeypatch):
    machine(monkeypatch, cpu=4)
    with pytest.raises(DoesNotFit) as caught:
        plan(session_of(tmp_path), asked("none"), dtype="bfloat16")
    assert caught.value.hint == "Close other programs, or use a machine with more memory."


def test_a_component_that_does_not_fit_alone_is_named(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=20)
    with pytest.raises(DoesNotFit, match=r"tokenizer of planned:one needs 20.1 GiB on cuda in float32"):
        plan(session_of(tmp_path, tokenizer={"config": {"numbers": 4 * TOKENIZER}}))
    # One that the request does not use may be of any size.
    assert plan(session_of(tmp_path, decoder={"config": {"numbers": 100 * GIB}})).fits


def test_the_cards_number_format_of_a_component_is_never_given_up_silently(tmp_path, monkeypatch):
    session = session_of(tmp_path, model={"numbers": 10}, tokenizer={"config": {"numbers": 10}})
    for free, dtype in [(20, "float32"), (12, "bfloat16")]:
        machine(monkeypatch, cpu=free)
        tokenizer, decoder = plan(session, asked("diffusion")).parts[1:]
        # The decoder takes 9.9 GiB in float32, and of 12 GiB 9.6 may be weights.
        assert (tokenizer.dtype, decoder.dtype) == ("float32", dtype)
    machine(monkeypatch, cpu=6)
    with pytest.raises(DoesNotFit, match=r"tokenizer of planned:one needs 5.0 GiB on cpu in float32"):
        plan(session_of(tmp_path, model={"numbers": 10}))


@pytest.mark.parametrize(("free", "batch", "several"), [(40, 16, False), (24, 8, True), (16.5, 2, True)])
def test_batches_are_as_large_as_every_stage_allows(tmp_path, monkeypatch, free, batch, several):
    machine(monkeypatch, cuda0=free)
    session = session_of(tmp_path, tokenizer={"config": {"numbers": TOKENIZER, "working": GIB}})
    need = plan(session, Request(num=16))
    assert (need.batch_size, need.several) == (batch, several)
    drawing, behind = need.stages
    assert (drawing.working, behind.working) == (batch * GIB, batch * GIB)
    assert plan(session, Request(num=16, batch_size=1)).batch_size == 1


def test_what_is_used_behind_the_model_stays_only_where_there_is_room(tmp_path, monkeypatch):
    session = session_of(tmp_path, model={"working": 8 * GIB})
    machine(monkeypatch, cuda0=32)
    kept = plan(session, Request(num=4, batch_size=1))
    assert kept.parts[1].stays
    assert [stage.needed for stage in kept.stages] == [
        2 * MODEL + 4 * TOKENIZER + 8 * GIB,
        2 * MODEL + 4 * TOKENIZER + GIB // 4,
    ]
    machine(monkeypatch, cuda0=20)
    passing = plan(session, Request(num=4, batch_size=1))
    assert not passing.parts[1].stays and passing.fits
    assert [stage.needed for stage in passing.stages] == [
        2 * MODEL + 8 * GIB,
        2 * MODEL + 4 * TOKENIZER + GIB // 4,
    ]
    # In a single batch it is not there before it is made.
    assert plan(session, ONE).at("with").needed == 2 * MODEL + 8 * GIB


def test_what_stays_never_makes_a_request_not_fit(tmp_path, monkeypatch):
    session = session_of(tmp_path, model={"working": GIB // 8})
    fitting = 0
    for free in range(10, 40):
        machine(monkeypatch, cuda0=free)
        for decoder in ("pixel", "diffusion"):
            try:
                alone = plan(session, asked(decoder))
            except DoesNotFit:
                continue
            fitting += 1
            assert alone.fits and plan(session, asked(decoder, num=3, batch_size=1)).batch_size == 1
    assert fitting > 20


def test_previews_need_beside_the_model_what_else_comes_behind_it(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=40)
    session = session_of(tmp_path)
    for previews, stages in [(False, ["after", "after"]), (True, ["with", "after"])]:
        need = plan(session, asked("diffusion"), previews=previews)
        assert [part.stage for part in need.parts[1:]] == stages
        tokenizer = 4 * TOKENIZER if previews else 0
        assert need.at("with").needed == 2 * MODEL + tokenizer + GIB


def test_readers_of_texts_come_before_the_model_and_one_after_the_other(tmp_path, monkeypatch):
    readers = {"architecture": "reader", "config": {"numbers": GIB, "working": 10}}
    session = session_of(
        tmp_path, reader={**readers}, second={**readers, "config": {"numbers": GIB // 2, "working": 5}}
    )
    machine(monkeypatch, cpu=64)
    need = plan(session, asked("none"), dtype="float32")
    assert [(part.role, part.stage, part.stays) for part in need.parts[1:]] == [
        ("reader", "before", False),
        ("second", "before", False),
    ]
    reading, drawing = need.stages
    assert reading.held == {"model": 4 * MODEL, "words": 0, "reader": 4 * GIB} and reading.working == 10
    assert drawing.needed == 4 * MODEL + GIB
    machine(monkeypatch, cuda0=40)
    kept = plan(session, asked("none"))
    assert all(part.stays for part in kept.parts)
    assert [stage.needed for stage in kept.stages] == [2 * MODEL + 3 * GIB + 10, 2 * MODEL + 4 * GIB]


def test_the_heaviest_of_several_requests_counts_and_each_has_to_fit(tmp_path, monkeypatch):
    session = session_of(tmp_path)
    machine(monkeypatch, cuda0=24)
    need = plan_memory(session, "planned:one", [asked("none"), asked("diffusion"), asked("pixel")])
    assert [part.role for part in need.parts] == ["words", "tokenizer", "decoder"]
    machine(monkeypatch, cuda0=20)
    with pytest.raises(DoesNotFit, match=r"decoder 4.9 GiB"):
        plan_memory(session, "planned:one", [asked("none"), asked("diffusion")])


def test_what_is_not_here_is_told_before_what_does_not_fit(tmp_path, monkeypatch):
    machine(monkeypatch, cpu=1)
    session = session_of(tmp_path)
    variant = session.catalogue.cards["planned"].variants["one"]
    object.__setattr__(variant, "files", ())
    with pytest.raises(NotPulled, match="nobody has published"):
        plan(session)


def test_room_to_stay_in_is_what_there_was_before_anything_was_loaded(tmp_path, monkeypatch):
    session = session_of(tmp_path)
    machine(monkeypatch, cuda0=24)
    card, variant = session.resolve("planned:one")
    placed = place(Wish(session, card, variant, ONE, Options(), locate(card, variant)))
    room = int(0.8 * (24 * GIB - 2 * MODEL)) - GIB
    machine(monkeypatch, cuda0=16)
    assert placed.room == min(room, int(0.8 * 24 * GIB) - 2 * MODEL)


SMALL = {
    "model": {"numbers": 1000, "working": 100},
    "tokenizer": {"config": {"numbers": 500, "working": 40}},
    "decoder": {"config": {"numbers": 300, "working": 60}},
}


def small(folder: Path, **formats: torch.dtype):
    """The session with small modules, whose files are float32 where nothing else is given."""
    files = dict.fromkeys(SMALL, torch.float32) | formats
    return session_of(folder, files, **{role: dict(entry) for role, entry in SMALL.items()})


def test_on_a_cpu_weights_that_lie_in_their_file_count_when_they_are_read(tmp_path):
    need = plan(small(tmp_path), asked("diffusion"), device="cpu")
    assert (need.weights, need.mapped) == (4000, 4000)
    assert [(part.role, part.mapped, part.stays) for part in need.parts[1:]] == [
        ("tokenizer", 2000, True),
        ("decoder", 1200, True),
    ]
    drawing, behind = need.stages
    assert (drawing.needed, behind.resting) == (4100, 4000)
    # Behind the model nothing of it is needed; the most at any time counts what may still be there.
    assert behind.needed == 2000 + 1200 + 60
    assert need.peak == need.process + 4000 + 3200 + 60


def test_on_a_cpu_converted_weights_are_there_from_the_beginning(tmp_path):
    half = {role: torch.bfloat16 for role in SMALL}
    need = plan(small(tmp_path, **half), asked("diffusion"), device="cpu", dtype="float32")
    assert (need.weights, need.mapped) == (4000, 0)
    assert [part.mapped for part in need.parts] == [0, 0, 0]
    assert need.at("after").resting == 0 and need.at("after").needed == 4000 + 3200 + 60
    as_it_lies = plan(small(tmp_path, **half), asked("none"), device="cpu", dtype="bfloat16")
    assert (as_it_lies.weights, as_it_lies.mapped) == (2000, 2000)


def test_loading_and_sampling_keep_to_the_plan(tmp_path):
    session = small(tmp_path)
    planned = plan(session, asked("diffusion", num=2), device="cpu")
    loaded = load("planned:one", device="cpu", session=session)
    assert not loaded.components.is_loaded("tokenizer")
    (first, _) = loaded.sample(asked("diffusion", num=2))
    assert first.pixels.flatten().tolist() == [0.5] * 3
    assert all(loaded.components.is_loaded(role) for role in ("tokenizer", "decoder"))
    after = loaded.memory_need(asked("diffusion", num=2))
    same = ("weights", "mapped", "working", "batch_size", "dtype", "parts")
    assert [getattr(after, name) for name in same] == [getattr(planned, name) for name in same]
    assert [stage.needed for stage in after.stages] == [stage.needed for stage in planned.stages]


def test_a_loaded_model_refuses_what_does_not_fit_beside_it(tmp_path, monkeypatch):
    half = {role: torch.bfloat16 for role in SMALL}
    loaded = load("planned:one", device="cpu", dtype="float32", session=small(tmp_path, **half))
    # 4000 bytes are taken already: of 4600 that were free, 3680 may be weights, and 6000 are.
    monkeypatch.setattr("zoo.runtime.memory.available_memory", lambda device: 600)
    with pytest.raises(DoesNotFit, match=r"needs 5.9 KiB on cpu behind its model .*, 2.3 KiB more"):
        loaded.batch_size(asked("pixel"))


def test_a_component_that_does_not_stay_lives_as_long_as_it_is_held(tmp_path):
    session = small(tmp_path, tokenizer=torch.bfloat16)
    loaded = load("planned:one", device="cpu", dtype="float32", session=session)
    card, variant = session.resolve("planned:one")
    wish = Wish(session, card, variant, ONE, Options(), locate(card, variant), "cpu", "float32")
    parts = place(wish).parts
    crowded = Components(loaded.model, parts, room=1999)
    kept = {role for role in crowded.parts if crowded.staying.keeps(role)}
    assert kept == {"words", "decoder"}, "what is converted takes room, what is mapped takes none"
    assert "tokenizer" in crowded and "absent" not in crowded
    assert not crowded.is_loaded("tokenizer")
    tokenizer = crowded["tokenizer"]
    assert crowded["tokenizer"] is tokenizer and crowded.is_loaded("tokenizer")
    del tokenizer
    assert not crowded.is_loaded("tokenizer")
    assert crowded["tokenizer"].weight.shape == (500,)
    roomy = Components(loaded.model, parts, room=2000)
    roomy["tokenizer"]
    assert roomy.is_loaded("tokenizer")
    with pytest.raises(KeyError):
        roomy["absent"]


def test_an_optional_component_may_lack_its_package_until_it_is_used(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=40)
    session = session_of(tmp_path, decoder={"architecture": "lacking"})
    card, variant = session.resolve("planned:one")
    assert plan(session, asked("pixel")).peak > 2 * MODEL
    with pytest.raises(PluginError, match="absent_package:Decoder cannot be loaded"):
        plan(session, asked("diffusion"))
    check_components(session, card, variant)
    check_components(session, card, variant, Options("pixel"))
    with pytest.raises(PluginError, match="absent_package:Decoder cannot be loaded"):
        check_components(session, card, variant, Options("diffusion"))


def test_a_component_that_is_not_here_is_missed_by_those_who_ask_for_it(tmp_path, monkeypatch):
    machine(monkeypatch, cuda0=40)
    session = session_of(tmp_path)
    card, variant = session.resolve("planned:one")
    paths = {role: path for role, path in locate(card, variant).items() if role != "decoder"}
    for module in (memory_plan, model):
        monkeypatch.setattr(module, "locate", lambda *given: paths)
    assert plan(session, asked("pixel")).peak > 2 * MODEL
    absent = "the decoder of planned:one is not on this machine"
    with pytest.raises(NotPulled, match=absent):
        plan(session, asked("diffusion"))
    with pytest.raises(NotPulled, match=absent):
        load("planned:one", session=session, request=asked("diffusion"))


class Tokens(torch.nn.Module):
    """Looks like a language model with one block of so many numbers."""

    def __init__(self, numbers):
        super().__init__()
        self.layers = [torch.nn.Linear(numbers, 1, bias=False, device="meta")]

    @property
    def language_model(self):
        return self

    def embed(self, ids):
        return ids


@pytest.mark.parametrize(
    ("native", "numbers", "expected"),
    [
        (True, 12_500_000, torch.bfloat16),
        (True, 12_499_999, torch.float32),
        (False, 12_500_000, torch.float32),
    ],
)
def test_large_language_models_run_in_bfloat16_on_cpus_that_have_it(
    tmp_path, monkeypatch, native, numbers, expected
):
    monkeypatch.setattr("zoo.runtime.devices.native_bfloat16", lambda: native)
    variant = session_of(tmp_path).resolve("planned:one")[1]
    assert model_dtype(Tokens(numbers), variant, torch.device("cpu")) == expected
    fixed = dataclasses.replace(variant, dtype="float16")
    assert model_dtype(Tokens(numbers), fixed, torch.device("cpu")) == torch.float16


@pytest.mark.parametrize(
    ("weights", "working", "free", "missing"),
    [
        (80, 0, 100, 0),
        (81, 0, 100, 1),
        (80, 16, 100, 0),
        (80, 20, 100, 4),
        (50, 50, 100, 10),
        (120, 0, 100, 40),
    ],
)
def test_how_much_of_a_stage_is_too_much(weights, working, free, missing):
    assert StageNeed("with", {"model": weights}, 0, working).missing(free) == missing
    assert StageNeed("with", {"model": weights, "other": 7}, 7, working).missing(free) == missing


def test_the_plan_as_a_document():
    part = PartNeed("tokenizer", 30, 4, False, "after", 0, "float32")
    need = MemoryNeed(torch.device("cuda"), 7, 100, 0, 50, (part,), "bfloat16", 1000, 2, True)
    assert need.to_dict() == {
        "device": "cuda",
        "free": 1000,
        "peak": 150,
        "weights": 100,
        "working": 50,
        "batch_size": 2,
        "stages": [
            {"stage": "with", "needed": 150, "working": 50, "weights": {"model": 100}},
            {"stage": "after", "needed": 134, "working": 4, "weights": {"model": 100, "tokenizer": 30}},
        ],
        "components": [
            {
                "role": "tokenizer",
                "weights": 30,
                "working": 4,
                "stays": False,
                "stage": "after",
                "mapped": 0,
                "dtype": "float32",
            }
        ],
    }
