"""What of a weights file a CPU uses as it lies there, by the header alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from planned_parts import GIB, write_file
from safetensors.torch import save_file

from zoo.errors import WeightsError
from zoo.runtime.loading import mapped_bytes, read_tensors
from zoo.runtime.mapped_files import mapped_in

CPU = torch.device("cpu")
TENSORS = {
    "single": torch.ones(10),
    "half": torch.ones(7, dtype=torch.float16),
    "brain": torch.ones(5, dtype=torch.bfloat16),
    "double": torch.ones(3, dtype=torch.float64),
    "count": torch.ones(2, dtype=torch.int64),
    "mask": torch.ones(9, dtype=torch.bool),
}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("dtype", "floating"), [(torch.float32, 40), (torch.float16, 14), (torch.bfloat16, 10)]
)
def test_what_is_used_as_it_lies(tmp_path: Path, suffix: str, dtype: torch.dtype, floating: int) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(TENSORS, path, metadata={"format": "pt"})
    else:
        torch.save(TENSORS, path)
    assert mapped_in([(path, None)], CPU, dtype) == floating + 16 + 9
    assert mapped_in([(path, None)], CPU, dtype) == mapped_bytes(read_tensors(path), CPU, dtype)
    assert mapped_in([(path, None)] * 2, CPU, dtype) == 2 * (floating + 25)
    assert mapped_in([(path, None)], torch.device("cuda"), dtype) == 0


def test_a_file_may_be_larger_than_anything_that_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    write_file(path, 1024 * GIB, torch.float32)
    assert mapped_in([(path, None)], CPU, torch.float32) == 4096 * GIB
    assert mapped_in([(path, None)], CPU, torch.bfloat16) == 0


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("weights")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        mapped_in([(path, None)], CPU, torch.float32)
