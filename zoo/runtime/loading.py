"""Weights into modules: built on the meta device, mapped from their file, assigned. No copies.

Tensors under the authors' names go through the variant's converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from zoo.errors import PluginError, WeightsError, ZooError
from zoo.plugins import describe
from zoo.registry import Architecture, Converter, resolve
from zoo.runtime.shapes_only import shapes_only
from zoo.store.checkpoints.formats import check_safetensors, looks_like, wrong_format
from zoo.store.checkpoints.reading import read_checkpoint
from zoo.store.checkpoints.shard_index import is_index, shard_names


def build_meta(architecture: Architecture, config: Mapping[str, Any]) -> nn.Module:
    """The module without memory: every tensor on the meta device."""
    with shapes_only():
        return build(architecture, config)


def build(architecture: Architecture, config: Mapping[str, Any]) -> nn.Module:
    """The module on torch's current default device; raises `InvalidInput` or `PluginError`."""
    try:
        module: nn.Module = architecture.create(config)
    except ZooError:
        raise
    except Exception as error:
        raise PluginError(
            f"architecture '{architecture.name}' of plugin '{architecture.owner}' failed: {describe(error)}",
            "ZOO_DEBUG=1 shows the traceback.",
        ) from error
    return module


def read_tensors(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file or a PyTorch checkpoint, told apart by content: mapped, not copied.

    A file whose name ends in `.index.json` stands for the files that it names, which lie beside it. `entry`
    names the entry of a checkpoint that holds the tensors, where the choice is not plain. Raises
    `WeightsError` for a file that is neither, is damaged, or holds something else than tensors where they
    should be. Nothing that a file names is ever executed.
    """
    if is_index(path.name):
        return _read_shards(path, entry)
    kind = looks_like(path)
    if kind == "pytorch":
        return read_checkpoint(path, entry)
    if kind != "safetensors":
        expected = "a safetensors file" if path.suffix == ".safetensors" else "a weights file"
        raise wrong_format(path, kind, expected)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        # Our own check knows better what is wrong, and what to do.
        check_safetensors(path)
        raise WeightsError(f"{path}: is not a safetensors file: {error}") from error


def _read_shards(index: Path, entry: str | None) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in shard_names(index):
        read = read_tensors(index.with_name(name), entry)
        twice = sorted(set(read) & set(tensors))
        if twice:
            raise WeightsError(f"{index}: two of the files that it names hold the tensor {twice[0]}")
        tensors |= read
    return tensors


def needs_conversion(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file's names are foreign: some of ours are not there, and some of its are not ours."""
    ours = set(module.state_dict())
    return not ours <= set(tensors) and not set(tensors) <= ours


def convert_tensors(
    converter: Converter, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> dict[str, Tensor]:
    """Run a converter; a checkpoint that it refuses is a `WeightsError` that names the file."""
    try:
        converted: dict[str, Tensor] = resolve(converter.convert, converter.owner)(dict(tensors), config)
    except (KeyError, ValueError) as error:
        problem = f"has no tensor {error}" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"{source}: converter '{converter.name}' refuses it: {problem}") from error
    except ZooError:
        raise
    except Exception as error:
        name = f"converter '{converter.name}' of plugin '{converter.owner}'"
        raise PluginError(
            f"{name} failed on {source}: {describe(error)}", "ZOO_DEBUG=1 shows the traceback."
        ) from error
    return converted


def check_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Every tensor there, none too many, every shape right; raises `WeightsError` with the names."""
    expected = module.state_dict()
    missing = sorted(set(expected) - set(tensors))
    unexpected = sorted(set(tensors) - set(expected))
    shapes = [
        f"{name}: expected {list(expected[name].shape)}, got {list(tensors[name].shape)}"
        for name in expected
        if name in tensors and expected[name].shape != tensors[name].shape
    ]
    problems = _listed("missing tensor", missing) + _listed("unexpected tensor", unexpected)
    problems += _listed("wrong shape of", shapes)
    if problems:
        raise WeightsError(f"{source}: does not fit the architecture: {'; '.join(problems)}")


def _listed(what: str, names: list[str], most: int = 3) -> list[str]:
    more = f" (and {len(names) - most} more)" if len(names) > most else ""
    return [f"{what} {', '.join(names[:most])}{more}"] if names else []


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, source: str
) -> nn.Module:
    """Give a meta-device module its tensors; those that already fit device and dtype are used as they lie."""
    check_tensors(module, tensors, source)
    placed = {
        name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(placed, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def mapped_bytes(tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> int:
    """Bytes of tensors that `assign` uses as they lie in their file, so that they take memory when read."""
    if device.type != "cpu":
        return 0
    return sum(t.nbytes for t in tensors.values() if not t.is_floating_point() or t.dtype == dtype)


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
