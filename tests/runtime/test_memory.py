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


def free(monkeypatch, count):
    monkeypatch.setattr(memory, "available_memory", lambda device: count)


def test_bytes_of_weights_count_buffers_and_keep_integers():
    module = nn.Linear(3, 2)
    module.register_buffer("count", torch.zeros(5, dtype=torch.int64))
    assert memory.weight_bytes(module, torch.float32) == 8 * 4 + 5 * 8
    assert memory.weight_bytes(module, torch.float16) == 8 * 2 + 5 * 8


def test_what_torch_keeps_of_a_gpu_without_using_it_is_free(monkeypatch):
    free(monkeypatch, 1000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    for initialised, expected in [(False, 1000), (True, 1300)]:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda answer=initialised: answer)
        assert memory.free_bytes(torch.device("cuda")) == expected
        assert memory.free_bytes(CPU) == 1000


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
    # A sample takes a MiB, and of 11 MiB eight and a bit may be planned with.
    free(monkeypatch, 11 * 2**20)
    assert loaded.batch_size(Request(num=1000)) == 8


def test_many_samples_are_never_held_together(toy):
    loaded = load("toy:shapes", device="cpu")
    stream = loaded.sample(Request(num=10**7, batch_size=2))
    assert [next(stream).provenance.seed for _ in range(5)] == list(range(5))
