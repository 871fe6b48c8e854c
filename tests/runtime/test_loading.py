"""Loading: what goes wrong, and that each way says what and where."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from toy_method import tensors

from zoo.errors import ExitCode, InvalidInput, NotFound, NotPulled, PluginError, WeightsError
from zoo.runtime.loading import build_meta, check_tensors, parameter_count, read_tensors
from zoo.runtime.model import load, sample
from zoo.session import Session


def toy_with(path, content):
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return load("toy:shapes", device="cpu", weights=path)


def test_weights_are_used_as_they_lie(toy):
    loaded = load("toy", device="cpu")
    assert loaded.reference == "toy:shapes"
    assert torch.equal(loaded.model.linear.weight, torch.eye(4))
    assert loaded.model.count.item() == 7 and loaded.model.count.dtype == torch.int64
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_only_floats_change_their_number_format(toy):
    loaded = load("toy", device="cpu", dtype="bfloat16")
    assert loaded.model.linear.weight.dtype == torch.bfloat16
    assert loaded.model.count.dtype == torch.int64


def test_a_meta_module_takes_no_memory(toy):
    session = Session()
    card, variant = session.resolve("toy:shapes")
    module = build_meta(session.architecture(card, variant), variant.config)
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert parameter_count(module) == 20


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_your_own(toy, tmp_path, suffix):
    content = {**tensors(), "linear.bias": torch.ones(4)}
    loaded = toy_with(tmp_path / f"mine{suffix}", content)
    assert loaded.model.linear.bias.tolist() == [1, 1, 1, 1]
    assert loaded.weights.endswith(f"mine{suffix}")


def test_a_folder_of_weights(toy, tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors")
    assert load("toy", device="cpu", weights=tmp_path).model.count.item() == 7
    with pytest.raises(InvalidInput, match=r"has no model\.safetensors"):
        load("toy", device="cpu", weights=toy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.weight": torch.eye(5)}, r"wrong shape of linear.weight: expected \[4, 4\], got \[5, 5\]"),
        ({"linear.bias": None}, "missing tensor linear.bias"),
        ({"extra": torch.ones(1)}, "unexpected tensor extra"),
    ],
)
def test_tensors_that_do_not_fit(toy, tmp_path, change, message):
    content = {k: v for k, v in {**tensors(), **change}.items() if v is not None}
    with pytest.raises(WeightsError, match=f"mine.safetensors: does not fit the architecture: {message}"):
        toy_with(tmp_path / "mine.safetensors", content)


def test_long_lists_of_names_are_cut(toy):
    module = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(9)])
    with pytest.raises(WeightsError, match=r"missing tensor 0.bias, 0.weight, 1.bias \(and 15 more\)"):
        check_tensors(module, {}, "file")


class Payload:
    """What a checkpoint must never be able to run."""

    def __reduce__(self):
        return (print, ("executed",))


def test_a_checkpoint_never_runs_code(tmp_path, capsys):
    torch.save({"weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="is not a state dict: it holds no tensors") as caught:
        read_tensors(tmp_path / "evil.pth")
    assert "code that a file names is never run" in caught.value.hint
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.safetensors", b"\x08\0\0\0\0\0\0\0{", "is not a safetensors file"),
        ("text.safetensors", b"hello", "is not a safetensors file"),
        ("text.pth", b"hello", "is not a weights file, it looks like: unknown content"),
        ("page.pth", b"<!DOCTYPE html><html></html>", "is not a weights file, it looks like: HTML page"),
        ("absent.safetensors", None, "no such file"),
        ("absent.pth", None, "no such file"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["weights.bin", "sha256-0123", "wrong.safetensors"])
def test_checkpoints_are_known_by_their_content(tmp_path, name):
    torch.save({"x": torch.arange(3)}, tmp_path / name)
    assert read_tensors(tmp_path / name)["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["weights.pth", "sha256-4567", "weights.bin"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file({"x": torch.arange(3)}, tmp_path / name)
    assert read_tensors(tmp_path / name)["x"].tolist() == [0, 1, 2]


def test_a_checkpoint_has_to_be_a_state_dict(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="is not a state dict"):
        read_tensors(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("reference", "given", "error", "message"),
    [
        ("nothing", {}, NotFound, "no model is called 'nothing'"),
        ("toy:shaps", {}, NotFound, "no model is called 'toy:shaps'"),
        ("toy:remote", {}, NotPulled, "are not on this machine"),
        ("toy:unpublished", {}, NotPulled, "nobody has published"),
        ("toy:misfit", {}, WeightsError, "does not fit the architecture"),
        ("toy", {"device": "tpu:x"}, InvalidInput, "'tpu:x' is not a device"),
        ("toy", {"device": "cuda:99"}, InvalidInput, "is not on this machine"),
        ("toy", {"dtype": "float8"}, InvalidInput, "'float8' is not a number format"),
        ("toy", {"sampler": "nope"}, PluginError, "no plugin provides the sampler 'nope'"),
        ("toy", {"sampler": "toy-needy"}, InvalidInput, "sampler 'toy-needy' needs denoiser"),
        ("toy", {"weights": "absent.pth"}, InvalidInput, "absent.pth: no such file"),
    ],
)
def test_what_cannot_be_loaded(toy, reference, given, error, message):
    with pytest.raises(error, match=message):
        load(reference, session=Session(), **given)


def test_an_architecture_that_raises_is_its_plugin_s_failure(toy):
    session = Session()
    card, variant = session.resolve("toy:broken")
    with pytest.raises(PluginError, match="'toy-broken' of plugin 'toy' failed: RuntimeError: no such"):
        build_meta(session.architecture(card, variant), variant.config)


def test_a_sampler_that_raises_is_its_plugin_s_failure(toy):
    with pytest.raises(PluginError, match="sampler 'toy' of plugin 'toy' failed: KeyError") as caught:
        sample("toy", options={"fail": True})
    assert caught.value.exit_code is ExitCode.PLUGIN
    assert isinstance(caught.value.__cause__, KeyError)


def test_provenance_tells_everything_needed_to_repeat_a_sample(toy):
    loaded = load("toy:shapes", device="cpu")
    image = next(loaded.sample(loaded_request()))
    made = image.provenance
    assert (made.reference, made.sampler, made.seed, made.prompt) == ("toy:shapes", "toy", 4, "a red circle")
    assert (made.class_name, made.class_id, made.dtype, made.device) == ("red circle", 0, "float32", "cpu")
    assert made.options["steps"] == 5 and made.options["grain"] == 0.01


def loaded_request():
    from zoo.io.request import Request

    return Request(prompts="a red circle", seed=4, steps=5)


def test_log_prob_and_bits_per_dim(toy):
    loaded = load("toy:shapes", device="cpu")
    images = torch.ones(2, 3, 4, 4)
    assert loaded.log_prob(images).tolist() == [-24.0, -24.0]
    assert loaded.log_prob(images, ["red circle", 1]).tolist() == [-24.0, -48.0]
    assert loaded.bits_per_dim(images, torch.zeros_like(images)).tolist() == [1 / 256, 1 / 256]
