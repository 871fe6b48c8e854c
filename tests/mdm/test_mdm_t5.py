"""The text encoder of the released models as a component: tokenizer, tensors of a T5, extra."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_mdm import INNER, PIECES, small_unet

from zoo.cards import parse_card
from zoo.catalogue import Catalogue
from zoo.errors import InvalidInput, NotPulled, PluginError, WeightsError
from zoo.io.request import Request
from zoo.runtime.components import check_components
from zoo.runtime.model import load
from zoo.session import Session
from zoo_mdm.pieces import PieceTable

transformers = pytest.importorskip("transformers", reason="the extra zoo[mdm] is not installed")

SIZES = {"d_model": 6, "d_ff": 12, "d_kv": 4, "num_heads": 2, "num_layers": 2, "vocab_size": len(PIECES)}


def tokenizer_json(path: Path) -> Path:
    """The part of a tokenizer.json that matters."""
    vocab = [[piece, -1.0 if len(piece) > 1 else -2.0] for piece in PIECES]
    path.write_text(json.dumps({"model": {"type": "Unigram", "unk_id": 2, "vocab": vocab}}), encoding="utf-8")
    return path


def whole_t5() -> dict[str, torch.Tensor]:
    """The tensors of a T5 with its decoder, as they are published: what is tied stands once."""
    torch.manual_seed(1)
    config = transformers.T5Config(**SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    tensors = transformers.T5ForConditionalGeneration(config).state_dict()
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    return {name: tensor.clone() for name, tensor in tensors.items() if name not in tied}


def published(tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The same network, run by `transformers` as it is."""
    config = transformers.T5Config(**SIZES, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    model = transformers.T5EncoderModel(config).eval()
    missing, _ = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"encoder.embed_tokens.weight"}
    model.set_input_embeddings(model.shared)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = whole_t5()
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, tmp_path / "first.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, tmp_path / "second.safetensors")
    tokenizer_json(tmp_path / "tokenizer.json")
    save_file(small_unet().state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def session(folder: Path, **component: object) -> Session:
    shard = {"format": "safetensors", "converter": "t5-encoder"}
    variant = {
        "summary": "small",
        "architecture": "mdm-unet",
        "config": INNER,
        "sampler": {"name": "ddim", "steps": 2, "guidance": 2.0},
        "components": {
            "text_encoder": {
                "architecture": "t5-encoder",
                "config": SIZES,
                "files": ["first", "second", "tokenizer"],
                **component,
            }
        },
        "files": [
            {"role": "model", "source": ["model.safetensors"]},
            {"role": "first", "source": ["first.safetensors"], **shard},
            {"role": "second", "source": ["second.safetensors"], **shard},
            {"role": "tokenizer", "source": ["tokenizer.json"], "format": "raw"},
        ],
    }
    card = {
        "schema": 1,
        "method": "mdm",
        "title": "T",
        "summary": "S",
        "tasks": ["text-to-image"],
        "default": "small",
        "variant": {"small": variant},
    }
    return Session(Catalogue({"mdm": parse_card(card, folder / "mdm.toml")}))


def test_the_encoder_of_a_whole_t5_gives_what_transformers_gives(folder: Path) -> None:
    loaded = load("mdm:small", device="cpu", session=session(folder))
    encoded = loaded.components["text_encoder"].encode(["a red circle", ""], 128)
    table = PieceTable.read(folder / "tokenizer.json")
    ids = [*table.segment(" a red circle"), 1]
    with torch.no_grad():
        expected = published(whole_t5())(input_ids=torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(encoded.features[0, : len(ids)], expected, atol=1e-5, rtol=1e-5)
    assert encoded.lengths.tolist() == [len(ids), 2]
    assert torch.equal(encoded.features[1, 2:], torch.zeros(len(ids) - 2, 6))


def test_the_whole_way_from_prompt_to_picture(folder: Path) -> None:
    loaded = load("mdm:small", device="cpu", session=session(folder))
    encoder = loaded.components["text_encoder"]
    first, second = loaded.sample(Request(prompts=["a red circle", "a blue square"], seed=3))
    assert not encoder.loaded, "the encoder is let go before the model runs"
    (alone,) = loaded.sample(Request(prompts=["a blue square"], seed=4))
    torch.testing.assert_close(alone.pixels, second.pixels, atol=1e-4, rtol=0)
    assert not torch.allclose(first.pixels, second.pixels, atol=1e-3)


def test_the_number_format_is_the_cards_or_the_one_asked_for(folder: Path) -> None:
    opened = session(folder, dtype="bfloat16")
    loaded = load("mdm:small", device="cpu", session=opened)
    assert loaded.components["text_encoder"].encode(["a"], 8).features.dtype == torch.bfloat16
    assert load("mdm:small", device="cpu", session=opened).dtype == torch.float32
    asked = load("mdm:small", device="cpu", dtype="float32", session=opened)
    assert asked.components["text_encoder"].encode(["a"], 8).features.dtype == torch.float32


def test_files_of_another_model_are_refused_by_name(folder: Path) -> None:
    save_file({"encoder.other": torch.zeros(1)}, folder / "second.safetensors")
    loaded = load("mdm:small", device="cpu", session=session(folder))
    with pytest.raises(WeightsError, match=r"second\.safetensors.*missing tensor encoder\."):
        list(loaded.sample(Request(prompts=["a"])))


def test_a_single_file_of_weights_goes_with_the_variants_own_encoder(folder: Path) -> None:
    mine = folder / "mine.safetensors"
    save_file(small_unet(text_tokens=127).state_dict(), mine)
    loaded = load("mdm:small", device="cpu", weights=mine, session=session(folder))
    assert len(list(loaded.sample(Request(prompts=["a"])))) == 1
    with pytest.raises(NotPulled):
        load("mdm:flickr64", device="cpu", weights=mine)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in this table is what Python takes for a module that cannot be found.
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "zoo_mdm.t5", raising=False)
    opened = Session()
    card, variant = opened.resolve("mdm:flickr64")
    with pytest.raises(PluginError, match="needs the package 'transformers'") as caught:
        check_components(opened, card, variant)
    assert "zoo[mdm]" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"model": {"type": "BPE", "vocab": []}}', "type 'BPE'"),
        ('{"vocab": []}', "KeyError"),
        ('{"model": {"type": "Unigram", "vocab": [["a"]]}}', "ValueError"),
        ("{", "is not the tokenizer.json of a unigram model"),
    ],
)
def test_what_is_no_tokenizer_of_a_unigram_model_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=problem):
        PieceTable.read(path)


def test_scores_of_a_tokenizer_are_rounded_to_those_of_the_table(tmp_path: Path) -> None:
    exact = [["<pad>", 0.0], ["</s>", 0.0], ["a", -2.012292861938], ["b", -2.012289], ["ab", -4.02458]]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "Unigram", "vocab": exact}}), encoding="utf-8")
    lines = tmp_path / "table.vocab"
    lines.write_text("".join(f"{piece}\t{score:.5f}\n" for piece, score in exact), encoding="utf-8")
    read, written = PieceTable.read(path), PieceTable.read(lines)
    assert read.segment("abab") == written.segment("abab")
    assert len(read) == len(written) == 5
