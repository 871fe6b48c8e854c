"""Building for shapes: the same as torch's meta device, without importing its compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from zoo.runtime.shapes_only import shapes_only

ROOT = Path(__file__).resolve().parents[2]

CASES = {
    "scaled": lambda: nn.Parameter(torch.randn(4, 3) * 0.01),
    "scaled left": lambda: 0.5 * torch.ones(3, dtype=torch.float16),
    "random": lambda: torch.rand((2, 3), dtype=torch.float64),
    "random sizes": lambda: torch.randn(2, 3),
    "random, wanted elsewhere": lambda: torch.randn(2, device="meta", generator=None),
    "broadcast": lambda: torch.ones(4, 1) * torch.ones(5, dtype=torch.float64),
    "empty": lambda: torch.ones(0, 3) * torch.ones(1, 3),
    "scalars": lambda: torch.tensor(2) * torch.ones(2, 1, 3),
    "sum": lambda: torch.zeros(2) + 1,
    "difference": lambda: 1 - torch.arange(3),
    "quotient": lambda: torch.arange(6) / 2,
    "reciprocal": lambda: 1.0 / torch.arange(3),
    "int times float": lambda: torch.arange(3) * 0.5,
    "exponential": lambda: torch.arange(3).exp(),
    "power": lambda: 10000.0 ** (torch.arange(0, 8, 2) / 8),
    "cat": lambda: torch.cat([torch.ones(2, 3), torch.zeros(1, 3)]),
    "rounded": lambda: torch.div(torch.arange(3), 2, rounding_mode="floor"),
    "linear": lambda: nn.Linear(3, 5).weight,
    "embedding": lambda: nn.Embedding(7, 2).weight,
    "normal": lambda: nn.init.normal_(torch.empty(2, 2), std=0.02),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(2, 2)),
    "constant": lambda: nn.init.constant_(torch.empty(2), 3.0),
    "in place": lambda: torch.empty(3).normal_().mul_(2.0).clamp_(min=0.0),
    "mask": lambda: torch.ones(3, 3, dtype=torch.bool).triu(1),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_dtypes_are_torch_s(name):
    with torch.device("meta"):
        expected = CASES[name]()
    with shapes_only():
        found = CASES[name]()
    assert found.is_meta and type(found) is type(expected)
    assert (found.shape, found.dtype, found.requires_grad) == (
        expected.shape,
        expected.dtype,
        expected.requires_grad,
    )


def test_what_does_not_broadcast_is_an_error():
    with shapes_only(), pytest.raises(RuntimeError):
        torch.ones(3) * torch.ones(4)


def test_outside_of_it_everything_is_computed():
    with shapes_only():
        pass
    assert (torch.ones(2) * 3).tolist() == [3.0, 3.0]


def test_building_does_not_import_the_compiler():
    program = (
        "import sys, torch; from torch import nn; from zoo.runtime.shapes_only import shapes_only\n"
        "with shapes_only():\n"
        "    nn.Embedding(3, 3), nn.Linear(2, 2), nn.Conv2d(1, 1, 3), nn.Parameter(torch.randn(3) * 0.01)\n"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "set()\n"
