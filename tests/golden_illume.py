"""How the golden cases of ILLUME+ run: which part a case is of, the dual tokenizer, and its quantiser."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pytest
import torch
from golden_cases import GoldenCase, Outputs, loaded_case
from golden_illume_model import ModelCase, processor_outputs
from golden_illume_sdxl import is_decoder, sdxl_decoder_wiring
from torch import Tensor

from zoo.runtime.loading import assign, convert_tensors
from zoo.runtime.shapes_only import shapes_only
from zoo.session import Session
from zoo_illume.authors import config_from_authors, model_config, quantiser_config
from zoo_illume.config import QuantiserConfig
from zoo_illume.simvq import SimVQ

METHOD, CONVERTER = "illume", "illume-dualvitok"


class IllumeCase(GoldenCase):
    """A case whose inputs and outputs stand in its file under their own names."""

    @cached_property
    def outputs(self) -> dict[str, dict[str, Any]]:
        return {name: {"name_in_file": name} for name in self.facts["outputs"]}

    def input(self, name: str | None) -> Tensor | None:
        return None if name is None else self.io.get(name)


class IllumeAdapter:
    """Every kind of case; those of the tokenizer, whole or one branch of it, and of a quantiser are here."""

    def __init__(self, case: IllumeCase, session: Session, **options: Any) -> None:
        self.case, self.session, self.options = case, session, options

    def __call__(self) -> Outputs:
        config = self.case.facts["config"]
        with torch.no_grad():
            if config.get("type") == "SimVQ":
                yield from self.quantiser(config)
            elif is_tokenizer(config):
                yield from self.tokenizer(config)
            elif "llm" in config:
                model = ModelCase(self.case, self.session)
                yield from model.generation() if "processor" in config else model.forward()
            elif "special_tokens" in config:
                yield from processor_outputs(self.case)
            elif is_decoder(self.case):
                yield from sdxl_decoder_wiring(self.case, self.session)
            else:
                pytest.fail(
                    f"{self.case.folder}: {self.case.facts['component']} is no kind of case known here"
                )

    def tokenizer(self, authors: Mapping[str, Any]) -> Outputs:
        config = config_from_authors(authors)
        model = loaded_case(self.case, self.session, METHOD, "dualvitok", CONVERTER, config).model
        images = self.case.input("image_u8") / 127.5 - 1.0
        meaning = self.case.input("quant_semantic")
        if "semantic" in config:
            semantic = model.encode_semantic(images)
            yield "vit_patches_head", model.semantic.encoder.vit.patches(images).flatten(0, 1)[:5]
            yield "h_semantic", semantic.features
            yield "target_semantic", semantic.target
            yield "quant_semantic", semantic.quantised.values
            yield "semantic_indices", semantic.quantised.indices
            yield "commit_loss_semantic", semantic.quantised.commitment
            yield "semantic_recon", model.decode_features(semantic.quantised.values)
            meaning = model.semantic_codes(semantic.quantised.indices)
        if "pixel" in config:
            pixel = model.encode_pixel(images)
            yield "pixel_encoder_out", pixel.encoded
            for name, made in (("h_pixel", pixel.features), ("quant_pixel", pixel.quantised.values)):
                yield name, made
                yield f"{name}_corner", made[:, :, :6, :8]
            yield "pixel_indices", pixel.quantised.indices
            yield "commit_loss_pixel", pixel.quantised.commitment
            yield "image_out", model.decode_codes(meaning, model.pixel_codes(pixel.quantised.indices))

    def quantiser(self, authors: Mapping[str, Any]) -> Outputs:
        place, source = "pixel_quantizer.", str(self.case.folder)
        self.session.use(self.session.catalogue.cards[METHOD])
        config = quantiser_config(authors)
        converter = self.session.converter(CONVERTER, source)
        tensors = {f"{place}{name}": tensor for name, tensor in self.case.weights.items()}
        converted = convert_tensors(converter, tensors, {"pixel": {}}, source)
        with shapes_only():
            module = SimVQ(QuantiserConfig(**config))
        ours = {name.removeprefix("pixel.quantiser."): tensor for name, tensor in converted.items()}
        assign(module, ours, torch.device("cpu"), torch.float32, source)
        x, channel = self.case.input("x"), 1 if authors.get("channel_first", True) else -1
        quantised = module(x.movedim(channel, 1))
        yield "quantized", quantised.values.movedim(1, channel)
        yield "indices", quantised.indices
        yield "commit_loss", quantised.commitment
        yield "codes", module.indices_to_codes(quantised.indices).movedim(1, channel)
        yield "implicit_codebook", module.implicit_codebook()


def is_tokenizer(config: Mapping[str, Any]) -> bool:
    return str(config.get("model", "")).startswith("DualViTok")


def illume_manifest(manifest: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    config = manifest["config"]
    if is_tokenizer(config):
        return "dualvitok", config_from_authors(config)
    return "illume-plus", model_config(config)
