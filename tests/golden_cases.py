"""What a golden case is, and how its weights are loaded: as users load theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo.cards import Variant
from zoo.runtime.loading import assign, build_meta, convert_tensors
from zoo.runtime.model import LoadedModel
from zoo.session import Session

Outputs = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class GoldenCase:
    """One folder with case.json, weights.safetensors and io.safetensors."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "case.json").read_text(encoding="utf-8"))

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return {
            name: tensor.float() for name, tensor in load_file(self.folder / "weights.safetensors").items()
        }

    @cached_property
    def io(self) -> dict[str, Tensor]:
        return load_file(self.folder / "io.safetensors")

    @property
    def variants(self) -> list[dict[str, Any]]:
        return self.facts["call"]["variants"]

    @cached_property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Every expected output by name, with its name in the file and its own tolerance if it has one."""
        if "output_shapes" in self.facts:
            return {name: {"name_in_file": f"out.{name}"} for name in self.facts["output_shapes"]}
        return self.facts["outputs"]

    def input(self, name: str | None) -> Tensor | None:
        if name is None:
            return None
        described = self.facts["call"]["inputs"].get(name)
        return self.io[described["name_in_file"] if isinstance(described, dict) else f"in.{name}"]

    def expected(self, name: str) -> tuple[Tensor, float, float]:
        """(tensor, atol, rtol) of an output."""
        output = self.outputs[name]
        return self.io[output["name_in_file"]], output.get("atol", self.facts["atol"]), self.facts["rtol"]


def loaded_case(
    case: GoldenCase,
    session: Session,
    method: str,
    architecture: str,
    converter: str,
    config: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """A golden case's weights as users load theirs: converted, checked, assigned to a meta-device module.

    `config` is ours where the authors' differs.
    """
    card = session.catalogue.cards[method]
    session.use(card)
    entry = session.registry.architectures.find(architecture)
    config = case.facts["config"] if config is None else config
    variant = Variant("golden", "", architecture, config, {"name": method})
    module = build_meta(entry, config)
    tensors = convert_tensors(
        session.converter(converter, str(case.folder)), case.weights, config, str(case.folder)
    )
    device, dtype = torch.device("cpu"), torch.float32
    assign(module, tensors, device, dtype, str(case.folder))
    return LoadedModel(card, variant, entry, {"model": module}, device, dtype, "", session)
