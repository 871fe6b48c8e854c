"""Loading maps files: the tensors of a loaded model lie in the file's own pages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo.runtime.loading import assign, read_tensors

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")


def mapped_from(pointer: int) -> str:
    """The file that a memory address is mapped from, or an empty text."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *rest = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= pointer < end:
            return rest[4] if len(rest) > 4 else ""
    return ""


def meta_linear() -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(300, 200)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_are_used_as_they_lie_in_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    state = nn.Linear(300, 200).state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    module = assign(meta_linear(), read_tensors(path), torch.device("cpu"), torch.float32, str(path))
    for parameter in module.parameters():
        assert mapped_from(parameter.data_ptr()) == str(path)
    assert torch.equal(module.weight, state["weight"])


def test_another_number_format_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = {name: tensor.half() for name, tensor in nn.Linear(300, 200).state_dict().items()}
    save_file(state, path)
    module = assign(meta_linear(), read_tensors(path), torch.device("cpu"), torch.float32, str(path))
    assert module.weight.dtype == torch.float32 and mapped_from(module.weight.data_ptr()) != str(path)
    assert torch.equal(module.weight, state["weight"].float())


def test_writing_to_a_loaded_model_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(nn.Linear(300, 200).state_dict(), path)
    before = path.read_bytes()
    module = assign(meta_linear(), read_tensors(path), torch.device("cpu"), torch.float32, str(path))
    module.weight.zero_()
    del module
    assert path.read_bytes() == before
