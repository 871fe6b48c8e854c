"""The authors' settings, as their configuration files hold them, to a card's `config` table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.nn.language_model import LanguageModelConfig
from zoo_illume.config import VisionConfig
from zoo_illume.model_config import TokenTable

#: What everything released has, and nothing else exists here.
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "tokenizer": {"pixel_drop_rate": None},
    "vit": {"hidden_act": "quick_gelu", "in_channels": 3},
    "semantic_encoder": {"target_mlp": "norm"},
    "language_model": {"arch": "Qwen2"},
    "projector": {"type": "MixedProjector", "mlp_depth": 2},
    "quantizer": {"type": "SimVQ", "rotation_trick": False},
    "coder": {
        "double_z": False,
        "dropout": 0.0,
        "in_channels": 3,
        "out_channels": 3,
        "use_dc_up_down_blocks": True,
    },
}


def config_from_authors(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config table for `dualvitok`, of the branches that the settings describe.

    settings: their tokenizer's keyword arguments, with those of the vision transformer under `vit`.

    Raises `ValueError` for settings that no released tokenizer uses and this implementation does not have.
    """
    _check_fixed("tokenizer", settings)
    config: dict[str, Any] = {}
    if "semantic_encoder" in settings:
        config["semantic"] = _semantic(settings)
    if "pixel_encoder" in settings:
        config["pixel"] = {
            "encoder": coder_config(settings["pixel_encoder"]),
            "quantiser": quantiser_config(settings["pixel_quantizer"]),
            "decoder": coder_config(settings["pixel_decoder"]),
        }
    return config


def vision_config(vit: Mapping[str, Any]) -> dict[str, int]:
    """Their vision transformer's settings, where absent those of Qwen2-VL, to ours."""
    _check_fixed("vit", vit)
    names = {
        "depth": "depth",
        "embed_dim": "width",
        "num_heads": "heads",
        "mlp_ratio": "expansion",
        "hidden_size": "out_channels",
        "patch_size": "patch",
        "spatial_merge_size": "merge",
        "temporal_patch_size": "frames",
    }
    return {ours: vit[theirs] for theirs, ours in names.items() if theirs in vit}


def quantiser_config(quantizer: Mapping[str, Any]) -> dict[str, Any]:
    """A SimVQ's settings to ours."""
    _check_fixed("quantizer", quantizer)
    return {
        "codes": quantizer["codebook_size"],
        "dim": quantizer["dim"],
        "frozen_dim": quantizer.get("frozen_codebook_dim") or quantizer["dim"],
        "commitment": quantizer.get("commitment_weight", 1.0),
        "features_share": quantizer.get("input_to_quantize_commit_loss_weight", 0.25),
    }


def coder_config(coder: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the pixel encoder or decoder to ours."""
    _check_fixed("coder", coder)
    if coder["embed_dim"] != coder["z_channels"]:
        raise ValueError(f"embed_dim is {coder['embed_dim']}, expected z_channels: {coder['z_channels']}")
    return {
        "channels": coder["ch"],
        "latent": coder["z_channels"],
        "multipliers": list(coder["ch_mult"]),
        "residual_blocks": coder["num_res_blocks"],
        # Their code passes over the numbers of levels that are not there.
        "attention_levels": [index for index in coder["attn_resolutions"] if index < len(coder["ch_mult"])],
    }


def model_config(settings: Mapping[str, Any], codes: Sequence[Sequence[int]] = ()) -> dict[str, Any]:
    """A config table for `illume-plus` from the settings of the authors' whole model.

    settings: those of the language model under `llm`, of the vision tower under `vit` and `pixel_encoder`, of
        what joins them under `projector`, and the ids of seven tokens under `special_tokens_ids`.
    codes: first id, and the one behind the last, of each level's codes, where they are not the released ones.

    Raises `ValueError` for settings that no released model uses and this implementation does not have.
    """
    for part in ("projector", "language_model"):
        _check_fixed(part, settings["llm" if part == "language_model" else part])
    vit, encoder = vision_config(settings["vit"]), coder_config(settings["pixel_encoder"])
    channels = [VisionConfig(**vit).out_channels, encoder["latent"]]
    if list(settings["projector"]["mm_hidden_size"]) != channels:
        raise ValueError(f"mm_hidden_size is {settings['projector']['mm_hidden_size']}, expected {channels}")
    language_model = dataclasses.asdict(LanguageModelConfig.from_transformers(settings["llm"]))
    tokens = _tokens(settings["special_tokens_ids"], settings["llm"], codes)
    drawn = {} if tokens.get("sizes", 1) else {"sizes": []}
    return {"language_model": language_model, "vit": vit, "encoder": encoder, "tokens": tokens, **drawn}


def _semantic(settings: Mapping[str, Any]) -> dict[str, Any]:
    encoder, decoder = settings["semantic_encoder"], settings["semantic_decoder"]
    _check_fixed("semantic_encoder", encoder)
    vit, quantiser = vision_config(settings["vit"]), quantiser_config(settings["semantic_quantizer"])
    seen = VisionConfig(**vit).out_channels
    for name, value, expected in (
        ("semantic_encoder.z_channels", encoder["z_channels"], quantiser["dim"]),
        ("semantic_decoder.z_channels", decoder["z_channels"], quantiser["dim"]),
        ("semantic_decoder.output_channels", decoder["output_channels"], seen),
    ):
        if value != expected:
            raise ValueError(f"{name} is {value}, expected {expected}")
    return {
        "vit": vit,
        "quantiser": quantiser,
        "width": encoder["embed_dim"],
        "blocks": encoder["num_blocks"],
        "projection": encoder["proj_layer"].replace("_", "-"),
        "decoder_width": decoder["embed_dim"],
        "decoder_blocks": decoder["num_blocks"],
        "decoder_projection": decoder["proj_layer"].replace("_", "-"),
    }


def _check_fixed(part: str, settings: Mapping[str, Any]) -> None:
    for name, expected in _FIXED[part].items():
        if settings.get(name, expected) != expected:
            raise ValueError(f"{name} is {settings[name]!r}, expected {expected!r}: no release uses it")


def _tokens(special: Sequence[int], llm: Mapping[str, Any], codes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The table of tokens; a vocabulary without room for the released sizes and codes has none of them."""
    image_start, image_end, line_end, start0, end0, start1, end1 = special
    table: dict[str, Any] = {
        "start_of_image": image_start,
        "end_of_image": image_end,
        "end_of_line": line_end,
        "start_of_level": [start0, start1],
        "end_of_level": [end0, end1],
        "end_of_text": llm.get("eos_token_id", TokenTable.end_of_text),
    }
    if codes or llm["vocab_size"] < TokenTable().end:
        ranges = codes or [(0, 0), (0, 0)]
        table |= {"sizes": 0, "first_code": [first for first, _ in ranges]}
        table["codes"] = [end - first for first, end in ranges]
    return table
