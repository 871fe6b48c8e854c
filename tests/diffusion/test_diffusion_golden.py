"""The authors' tables for MDM's schedules, to the last bits: closer than their golden case has to agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_cases import GoldenCase
from golden_mdm_numbers import MDMNumbers
from torch import Tensor

CASE = GoldenCase(Path(__file__).parents[1] / "golden" / "mdm" / "schedule_and_targets")
TABLES = sorted(name for name in CASE.outputs if "gammas" in name)


@pytest.fixture(scope="module")
def computed() -> dict[str, Tensor]:
    runs = [run for run in CASE.facts["call"]["runs"] if run["op"] == "gammas"]
    return {f"{run['name']}.{name}": tensor for run in runs for name, tensor in MDMNumbers(CASE, run)()}


@pytest.mark.parametrize("name", TABLES)
def test_tables_agree_to_the_last_bits(name: str, computed: dict[str, Tensor]) -> None:
    expected, _, _ = CASE.expected(name)
    torch.testing.assert_close(computed[name], expected, atol=0, rtol=3e-7)
