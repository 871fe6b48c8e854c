"""The decoder out of a folder of diffusers: with the library where it is there, and with a stand-in."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sdxl_folders import CODES, SCHEDULER, STAND_IN, Folder

from zoo.errors import WeightsError
from zoo.runtime.model import load
from zoo.runtime.noise import Noise
from zoo_illume.sdxl import SdxlDecoder
from zoo_illume.sdxl_convert import convert
from zoo_illume.sdxl_sampling import decode
from zoo_illume.sdxl_schedule import scheduling_from

Write = Callable[..., Folder]


@pytest.fixture(params=["stand-in", "diffusers"])
def write(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a folder of random modules of one of the two."""
    if request.param == "diffusers":
        library: Any = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'zoo[sdxl]'")
    else:
        library = STAND_IN
        monkeypatch.setitem(sys.modules, "diffusers", library)
    return lambda **changes: Folder.write(tmp_path / "folder", library, **changes)


def opened(folder: Folder, dtype: str | None = None, **component: Any) -> SdxlDecoder:
    loaded = load("folder:one", device="cpu", dtype=dtype, session=folder.session(**component))
    decoder = loaded.components["decoder"]
    assert isinstance(decoder, SdxlDecoder)
    return decoder


def drawn(decoder: SdxlDecoder) -> torch.Tensor:
    codes = torch.randn(2, CODES, 1, 2, generator=torch.Generator().manual_seed(2))
    return decode(decoder, codes, (16, 32), Noise([1, 2]), steps=3)


def test_a_folder_becomes_the_decoder(write: Write) -> None:
    folder = write()
    decoder = opened(folder)
    direct = folder.direct()
    direct.scheduling = scheduling_from(SCHEDULER, "here")
    expected = drawn(direct)
    assert expected.shape == (2, 3, 16, 32) and expected.std() > 0.05
    assert torch.allclose(drawn(decoder), expected, atol=1e-5)
    assert decoder.scheduling.spacing == "trailing"
    # What encodes pictures is not there at all.
    assert not [name for name in decoder.state_dict() if "encoder" in name or ".quant_conv" in name]


def test_without_its_scheduler_it_follows_stable_diffusion_xl(write: Write) -> None:
    folder = write()
    decoder = opened(folder, files=["decoder_unet", "decoder_vae"])
    assert torch.allclose(drawn(decoder), drawn(folder.direct()), atol=1e-5)
    assert decoder.scheduling.spacing == "leading"


def test_another_number_format_is_for_the_network_alone(write: Write) -> None:
    folder = write()
    decoder = opened(folder, dtype="bfloat16")
    exact = drawn(opened(folder))
    made = drawn(decoder)
    assert decoder.dtype == torch.bfloat16 and made.dtype == torch.float32
    assert {tensor.dtype for tensor in decoder.vae.parameters()} == {torch.float32}
    assert (made - exact).abs().mean() < 0.05


def test_names_of_older_checkpoints_are_read(write: Write) -> None:
    folder = write()
    expected = drawn(opened(folder))
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(folder.vae_file).items():
        for new, old in older.items():
            name = name.replace(f".{new}.", f".{old}.")
        tensors[name] = tensor
    assert any(".query." in name for name in tensors)
    save_file(tensors, folder.vae_file)
    assert torch.equal(drawn(opened(folder)), expected)


def test_what_is_missing_is_named(write: Write) -> None:
    folder = write()
    tensors = load_file(folder.vae_file)
    del tensors["post_quant_conv.bias"]
    save_file(tensors, folder.vae_file)
    with pytest.raises(WeightsError, match=r"missing tensor vae\.post_quant_conv\.bias"):
        opened(folder)


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("unet/config.json", {"addition_embed_type": "image"}, 'addition_embed_type is "image"'),
        ("unet/config.json", {"attention_head_dim": [2, 2]}, r"attention_head_dim is \[2, 2\], .* \[1, 2\]"),
        ("vae/config.json", {"scaling_factor": 0.18215}, "scaling_factor is 0.18215, .* with 0.5"),
        ("vae/config.json", {"a_setting_of_tomorrow": 1}, "a_setting_of_tomorrow is 1, .* with null"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "configures AutoencoderTiny, expected"),
        ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "decoder_scheduler .*LCMSch"),
    ],
)
def test_settings_that_are_not_the_cards_are_refused(
    write: Write, path: str, changes: dict[str, Any], message: str
) -> None:
    folder = write()
    folder.changed(path, **changes)
    with pytest.raises(WeightsError, match=message):
        opened(folder)


def test_settings_that_change_nothing_are_not_compared(write: Write) -> None:
    folder = write()
    folder.changed("unet/config.json", sample_size=999, dropout=0.5, upcast_attention=None, _name="x")
    folder.changed("vae/config.json", force_upcast=False)
    assert torch.isfinite(drawn(opened(folder))).all()


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read as JSON"), ("[1]", "holds a list")])
def test_a_file_that_holds_no_settings_is_refused(write: Write, content: str, message: str) -> None:
    folder = write()
    (folder.root / "unet" / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        opened(folder)


def test_both_files_are_converted_together_or_apart() -> None:
    one = torch.zeros(1)
    unet = {"conv_in.weight": one, "up_blocks.0.resnets.0.norm1.bias": one}
    vae = {"decoder.conv_in.weight": one, "post_quant_conv.bias": one, "encoder.conv_in.weight": one}
    ours = {
        "unet.conv_in.weight",
        "unet.up_blocks.0.resnets.0.norm1.bias",
        "vae.decoder.conv_in.weight",
        "vae.post_quant_conv.bias",
    }
    assert set(convert({**unet, **vae, "quant_conv.weight": one}, {})) == ours
    apart = {**convert(unet, {}), **convert(vae, {})}
    assert set(apart) == ours
    # One of them may have been converted when it was pulled.
    assert set(convert({**convert(vae, {}), **unet}, {})) == ours


def test_the_module_does_not_import_the_library() -> None:
    for name in ("sdxl", "sdxl_sampling", "sdxl_schedule", "sdxl_convert", "sdxl_memory"):
        source = Path(str(importlib.import_module(f"zoo_illume.{name}").__file__)).read_text(encoding="utf-8")
        assert "\nimport diffusers" not in source and "\nfrom diffusers" not in source
