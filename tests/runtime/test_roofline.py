"""What a machine could do: which measurements are made, how often, and what they say about work."""

from __future__ import annotations

import pytest
import torch

from zoo.runtime import roofline
from zoo.runtime.reports import Work
from zoo.runtime.roofline import Machine

CPU = torch.device("cpu")


class Clocked(Machine):
    """A machine on which every call takes a millisecond, and the first of a measurement ten."""

    def __init__(self):
        super().__init__(CPU)
        self.calls = []

    def _seconds(self, run, count):
        run()
        self.calls.append((count, torch.get_num_threads()))
        return 0.01 if count == 1 and len(self.calls) == 1 else count * 0.001


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    monkeypatch.setattr(roofline, "SIDES", (8, 16))


def test_a_read_is_timed_by_its_best_round():
    measured = Clocked().bandwidth(3 * 2**20, threads=1)
    assert (measured.threads, measured.buffer) == (1, 4 * 2**20)
    assert measured.bytes_per_second == pytest.approx(4 * 2**20 / 0.001)


def test_a_product_of_matrices_counts_additions_too():
    measured = Clocked().matmul_rate(torch.float32, threads=1)
    assert (measured.threads, measured.dtype) == (1, "float32")
    assert measured.flops_per_second == pytest.approx(2 * max(roofline.SIDES) ** 3 / 0.001)


def test_no_larger_matrices_once_a_product_is_slow(monkeypatch):
    monkeypatch.setattr(roofline, "SLOW_PRODUCT", 0.0005)
    measured = Clocked().matmul_rate(torch.float32, threads=1)
    assert measured.flops_per_second == pytest.approx(2 * 8**3 / 0.001)


def test_every_figure_is_measured_once():
    machine = Clocked()
    first = machine.bandwidth(2**21, 1), machine.matmul_rate(torch.bfloat16, 1)
    made = len(machine.calls)
    # Sizes of one class share a measurement.
    assert (machine.bandwidth(2**21 + 5000, 1), machine.matmul_rate(torch.bfloat16, 1)) == first
    assert len(machine.calls) == made
    machine.bandwidth(2**23, 1)
    machine.bandwidth(2**21, 2)
    machine.matmul_rate(torch.float32, 1)
    assert [(b.threads, b.buffer) for b in machine.bandwidths] == [(1, 2**21), (1, 2**23), (2, 2**21)]
    assert [(r.threads, r.dtype) for r in machine.rates] == [(1, "bfloat16"), (1, "float32")]


def test_measurements_run_with_the_threads_of_the_run():
    before, machine = torch.get_num_threads(), Clocked()
    machine.bandwidth(2**20, before + 1)
    machine.matmul_rate(torch.float32, before + 1)
    assert {threads for _, threads in machine.calls} == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("device", "working_set", "buffer"),
    [
        ("cpu", 0, 2**20),
        ("cpu", 1000, 2**20),
        ("cpu", 2**22 + 1, 2**22),
        ("cpu", 3 * 2**24, 2**26),
        ("cpu", 2**40, 2**29),
        ("cuda", 1000, 2**28),
        ("cuda", 2**40, 2**29),
    ],
)
def test_buffers_have_the_size_of_the_working_set(device, working_set, buffer):
    assert Machine(torch.device(device)).buffer_size(working_set) == buffer


def test_a_buffer_leaves_memory_to_others(monkeypatch):
    monkeypatch.setattr(roofline, "available_memory", lambda device: 2**23)
    # 2 MiB are read in a millisecond, where 64 MiB were wanted.
    assert Clocked().bandwidth(2**26, 1).bytes_per_second == pytest.approx(2**21 / 0.001)


def test_the_floor_adds_what_limits_each_stage():
    machine = Clocked()
    reading = Work("decoding", bytes=2**24, flops=10, working_set=2**22)
    computing = Work("denoising", bytes=10, flops=10**9, working_set=2**22)
    bandwidth = machine.bandwidth(2**22, 1).bytes_per_second
    rate = machine.matmul_rate(torch.float32, 1).flops_per_second
    floor = machine.floor([reading, computing], torch.float32, 1)
    assert floor == pytest.approx(2**24 / bandwidth + 10**9 / rate)


def test_without_work_nothing_is_measured():
    machine = Clocked()
    assert machine.floor([], torch.float32, 1) is None
    assert machine.floor([Work("nothing", 0, 0, 0)], torch.float32, 1) is None
    assert machine.calls == []


def test_this_machine_has_a_bandwidth_and_a_rate():
    machine = Machine(CPU)
    assert machine.bandwidth(2**20, 1).bytes_per_second > 0
    assert machine.matmul_rate(torch.float32, 1).flops_per_second > 0


def test_a_gpu_is_waited_for(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(str(device)))
    seconds = Machine(torch.device("cuda:1"))._seconds(lambda: done.append("run"), 2)
    assert done == ["cuda:1", "run", "run", "cuda:1"] and seconds > 0
