"""How many CPU threads a batch runs with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.runtime.threads import SINGLE_THREAD_WORK, TWO_THREAD_WORK, cpu_threads, suitable_threads


@pytest.fixture(autouse=True)
def three_threads():
    with cpu_threads(3):
        yield


def test_small_work_gets_few_threads_and_large_work_all():
    module, cpu = nn.Linear(1000, 1000, bias=False), torch.device("cpu")
    one, two = SINGLE_THREAD_WORK // 1_000_000, TWO_THREAD_WORK // 1_000_000
    assert suitable_threads(module, one - 1, cpu) == 1
    assert suitable_threads(module, one, cpu) == suitable_threads(module, two - 1, cpu) == 2
    assert suitable_threads(module, two, cpu) == 3


def test_never_more_threads_than_torch_is_set_to():
    with cpu_threads(1):
        assert suitable_threads(nn.Linear(1000, 1000), 100, torch.device("cpu")) == 1


def test_other_devices_are_left_alone():
    assert suitable_threads(nn.Linear(2, 2), 1, torch.device("cuda")) == 3


def test_threads_are_set_back():
    with pytest.raises(KeyError), cpu_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 3
