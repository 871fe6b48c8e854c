"""Memory: what is refused before loading, what batch fits, and halving when an estimate was wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.errors import DoesNotFit, ExitCode
from zoo.io.request import Request
from zoo.quantities import human_bytes
from zoo.runtime import memory
from zoo.runtime.model import load

CPU = torch.device("cpu")


class Estimated(nn.Module):
    def sampling_memory(self, batch_size, dtype):
        return batch_size * 100


def free(monkeypatch, count):
    monkeypatch.setattr(memory, "available_memory", lambda device: count)


def test_bytes_of_weights_count_buffers_and_keep_integers():
    module = nn.Linear(3, 2)
    module.register_buffer("count", torch.zeros(5, dtype=torch.int64))
    assert memory.weight_bytes(module, torch.float32) == 8 * 4 + 5 * 8
    assert memory.weight_bytes(module, torch.float16) == 8 * 2 + 5 * 8


def test_weights_that_do_not_fit_say_by_how_much_and_what_helps(monkeypatch):
    free(monkeypatch, 100)
    with pytest.raises(DoesNotFit) as caught:
        memory.check_weights_fit(nn.Linear(9, 9), "toy:shapes", CPU, torch.float32)
    assert caught.value.message == (
        f"toy:shapes needs 360 B on cpu in float32, {human_bytes(360 - 80)} more than is free"
    )
    assert "--dtype bfloat16" in caught.value.hint
    assert caught.value.exit_code is ExitCode.DOES_NOT_FIT
    memory.check_weights_fit(nn.Linear(3, 2), "toy:shapes", CPU, torch.float32)


@pytest.mark.parametrize(("wanted", "there", "batch"), [(16, 10**6, 16), (16, 1000, 8), (3, 130, 1)])
def test_the_largest_batch_that_fits(monkeypatch, wanted, there, batch):
    free(monkeypatch, there)
    assert memory.fitting_batch(Estimated(), wanted, CPU, torch.float32) == batch


def test_not_even_one_sample_fits(monkeypatch):
    free(monkeypatch, 100)
    with pytest.raises(DoesNotFit, match="one at a time needs 100 B on cpu, 20 B more than is free"):
        memory.fitting_batch(Estimated(), 4, CPU, torch.float32)


def test_models_without_an_estimate_are_tried():
    assert memory.fitting_batch(nn.Linear(1, 1), 500, CPU, torch.float32) == 500


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated ...)"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert memory.is_out_of_memory(error) is expected


def test_a_batch_that_runs_out_of_memory_is_halved_and_the_pictures_stay(toy):
    loaded = load("toy:shapes", device="cpu")
    whole = list(loaded.sample(Request(num=7)))
    halved = list(loaded.sample(Request(num=7, options={"limit": 2})))
    assert [image.provenance.seed for image in halved] == list(range(7))
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(whole, halved, strict=True))


def test_running_out_of_memory_with_one_sample_is_said(toy):
    loaded = load("toy:shapes", device="cpu")
    with pytest.raises(DoesNotFit, match="toy:shapes: memory ran out on cpu with a single sample"):
        list(loaded.sample(Request(num=3, options={"limit": 0})))


def test_the_batch_size_of_a_request(toy, monkeypatch):
    loaded = load("toy:shapes", device="cpu")
    assert loaded.batch_size(Request(num=1000)) == memory.MAX_BATCH
    assert loaded.batch_size(Request(num=1000, batch_size=200)) == 200
    assert loaded.batch_size(Request(num=3, batch_size=200)) == 3
    free(monkeypatch, 10 * 2**20)
    assert loaded.batch_size(Request(num=1000)) == 8


def test_many_samples_are_never_held_together(toy):
    loaded = load("toy:shapes", device="cpu")
    stream = loaded.sample(Request(num=10**7, batch_size=2))
    assert [next(stream).provenance.seed for _ in range(5)] == list(range(5))
