"""The authors' settings, as their YAML files hold them, to a card's `config` table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Settings that no released model uses and that do not exist here, by the value that means off.
_UNUSED = {
    "temporal_mode": False,
    "temporal_spatial_ds": False,
    "temporal_positional_encoding": False,
    "num_temporal_attention_layers": None,
    "interp_conditioning": False,
    "skip_inner_unet_input": False,
}
_PREDICTIONS = {"V_PREDICTION": "v", "DDPM": "epsilon", "DDIM": "epsilon"}
_SCHEDULES = {"DEEPFLOYD": "cosine-capped", "DDPM": "linear-betas", "COSINE": "cosine-log-ratio"}


def config_from_authors(
    unet: Mapping[str, Any],
    text_dim: int,
    image_size: int,
    sampler: Mapping[str, Any] | None = None,
    reader: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A config table for `mdm-unet` or, where `unet` has an `inner_config`, `mdm-nested-unet`.

    unet, sampler, reader: their `unet_config`, `sampler_config` and `reader_config`. A setting that is absent
        has their default, but a table that is None leaves ours.
    text_dim: width of the text encoder's features; 0 or less for a model without text.
    image_size: side of the pictures that the model makes, pixels.

    Raises `ValueError` for settings that no released model uses and this implementation does not have.
    """
    for name, off in _UNUSED.items():
        if unet.get(name, off) != off:
            raise ValueError(f"{name} is {unet[name]!r}, expected {off!r}: no released model uses it")
    level = _level(unet, image_size) | _noise(sampler)
    inner = unet.get("inner_config")
    if inner is None:
        scale = float((sampler or {}).get("rescale_signal") or 1.0)
        return level | _text(unet, text_dim) | _lengths(reader) | {"signal_scale": scale}
    level["normalise_input"] = not unet.get("skip_normalization", False)
    if sampler is not None:
        shifted = sampler.get("schedule_shifted", False)
        level["noise_shift"] = sampler.get("schedule_shifted_power", 1) if shifted else None
    ratio = 2 ** (len(level["channels"]) - 1)
    level["inner"] = config_from_authors(inner, text_dim, image_size // ratio, None, reader)
    return level


def _level(unet: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    channels = _numbers(unet.get("resolution_channels", "128,256,256,512,1024"))
    stages = len(channels)
    attending = _numbers(unet.get("attention_levels", "2,3"))
    layers = _numbers(unet.get("num_attention_layers", "1"), stages)
    blocks = unet.get("resnet_config", {})
    return {
        "image_size": image_size,
        "channels": channels,
        "residual_blocks": _numbers(unet.get("num_resnets_per_resolution", "2"), stages),
        "attention_layers": [count if stage in attending else 0 for stage, count in enumerate(layers)],
        "attention_feedforward": blocks.get("use_attention_ffn", False),
        "norm_groups": blocks.get("num_groups_norm", 32),
        "embedding_dim": unet.get("temporal_dim") or 4 * channels[0],
        "micro_conditions": _micro_conditions(unet.get("micro_conditioning")),
        "dropout": blocks.get("dropout", 0.0),
    }


def _text(unet: Mapping[str, Any], text_dim: int) -> dict[str, Any]:
    return {
        "middle": not unet.get("skip_mid_blocks", False),
        "text_dim": max(0, text_dim),
        "text_projection": max(0, unet.get("conditioning_feature_proj_dim", -1)),
        "text_layers": unet.get("num_lm_head_layers", 0),
        "mask_padding": bool(unet.get("masked_cross_attention", 1)),
    }


def _noise(sampler: Mapping[str, Any] | None) -> dict[str, Any]:
    if sampler is None:
        return {}
    betas = (sampler.get("beta_start", 0.0001), sampler.get("beta_end", 0.02))
    if sampler["schedule_type"] == "DDPM" and betas != (0.0001, 0.02):
        raise ValueError(f"beta_start and beta_end are {betas}, expected 0.0001 and 0.02")
    return {
        "prediction": _PREDICTIONS[sampler["prediction_type"]],
        "schedule": _SCHEDULES[sampler["schedule_type"]],
        "training_steps": sampler["num_diffusion_steps"],
    }


def _lengths(reader: Mapping[str, Any] | None) -> dict[str, int]:
    if reader is None:
        return {}
    return {
        "text_tokens": reader["max_token_length"],
        "text_characters": max(0, reader.get("max_caption_length", -1)),
    }


def _micro_conditions(text: str | None) -> dict[str, float]:
    """Text such as "scale:64,other:0" to a table."""
    pairs = [part.split(":") for part in text.split(",")] if text else []
    return {name: float(default) for name, default in pairs}


def _numbers(value: str | Sequence[int], length: int = 0) -> list[int]:
    """Their lists are lists or text such as "1,2"; of a text with one number there are `length`."""
    if not isinstance(value, str):
        return list(value)
    numbers = [int(part) for part in value.split(",")] if value else []
    return numbers * length if length and len(numbers) == 1 else numbers
