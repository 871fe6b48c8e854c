"""The tokenizer of Qwen2.5 from its files: byte pairs, control tokens, and texts that look like them."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import InvalidInput, PluginError, WeightsError
from zoo.runtime.capabilities import ReadsFiles, TextTokenizer
from zoo_illume.qwen_text import CONTROLS, MERGES, VOCABULARY, WHOLE, QwenText, QwenTextConfig

pytest.importorskip("tokenizers", reason="needs the package tokenizers: pip install 'zoo[illume]'")

#: Pairs that are joined, the first before the others. Some would join what is never one piece.
JOINED = ("Ġ t", "Ġt h", "Ġth e", "h e", "l l", "he ll", "hell o", "1 2", "o '", "' s", "! Ċ", "Ċ Ċ", "e Ġt")
IMAGE_CODE = "<|image_level0_7|>"
#: How Qwen2's files say where a text is cut.
CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def bytes_as_characters() -> list[str]:
    """How byte-level tokenizers write the 256 bytes: printable ones as they are, others behind U+0100."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + index) for index in range(len(others))]


def vocabulary() -> dict[str, int]:
    tokens = [*bytes_as_characters(), *("".join(pair.split()) for pair in JOINED)]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def lists(folder: Path) -> dict[str, Path]:
    """`vocab.json` and `merges.txt`, under names that say nothing."""
    (folder / "a").write_text(json.dumps(vocabulary()), encoding="utf-8")
    (folder / "b").write_text("#version: 0.2\n" + "\n".join(JOINED) + "\n", encoding="utf-8")
    return {VOCABULARY: folder / "a", MERGES: folder / "b"}


def whole(folder: Path, **changes: Any) -> dict[str, Path]:
    """The same as `tokenizer.json` of Qwen2.5 has it, with a code of pictures among the added tokens."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    cut = {"type": "Split", "pattern": {"Regex": CUT}, "behavior": "Isolated", "invert": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": name, "special": name != IMAGE_CODE, **flags}
            for name, index in {**CONTROLS, IMAGE_CODE: 151711}.items()
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, bytes_of]},
        "post_processor": bytes_of,
        "decoder": bytes_of,
        "model": {"type": "BPE", "vocab": vocabulary(), "merges": list(JOINED)},
    }
    (folder / "tokenizer.json").write_text(json.dumps({**document, **changes}), encoding="utf-8")
    return {WHOLE: folder / "tokenizer.json"}


@pytest.fixture(params=["whole", "lists"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> QwenText:
    made = QwenText(QwenTextConfig())
    made.read_files(whole(tmp_path) if request.param == "whole" else lists(tmp_path))
    return made


def pieces(tokenizer: QwenText, text: str) -> list[str]:
    names = {index: token for token, index in vocabulary().items()}
    return [names[index] for index in tokenizer.encode(text)]


def test_it_offers_what_samplers_and_loading_ask(tokenizer) -> None:
    assert isinstance(tokenizer, TextTokenizer) and isinstance(tokenizer, ReadsFiles)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello the", ["hello", "Ġthe"]),
        ("hell the", ["hell", "Ġthe"]),
        ("12", ["1", "2"]),  # digits stand alone
        ("hello's", ["hello", "'s"]),  # a contraction is a piece
        ("!\n", ["!Ċ"]),  # line ends belong to the marks before them
        ("h\n\nh", ["h", "ĊĊ", "h"]),
        ("e the", ["e", "Ġthe"]),  # a space belongs to the word behind it
        ("", []),
    ],
)
def test_texts_are_cut_and_joined_as_qwen_does(tokenizer, text, expected) -> None:
    assert pieces(tokenizer, text) == expected


@pytest.mark.parametrize(
    "text", ["hello the", "Grüße, 世界! 🙂\n\n  x", "a\tb  \r\n", "<|im_end|>", "'s  12"]
)
def test_any_text_comes_back(tokenizer, text) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_letters_and_their_accents_are_one_character(tokenizer) -> None:
    assert tokenizer.encode("u\u0308") == tokenizer.encode("\u00fc")


def test_control_tokens_have_their_ids_and_leave_no_text(tokenizer) -> None:
    start, end = tokenizer.control("<|im_start|>"), tokenizer.control("<|im_end|>")
    assert (start, end, tokenizer.control("<|endoftext|>")) == (151644, 151645, 151643)
    ids = [start, *tokenizer.encode("hello"), end, 151711, 282775, *tokenizer.encode(" the")]
    assert tokenizer.decode(ids) == "hello the"


@pytest.mark.parametrize("name", ["<|im_end|>", "<|endoftext|>", IMAGE_CODE])
def test_what_looks_like_a_control_token_is_plain_text(tokenizer, name) -> None:
    ids = tokenizer.encode(f"hello{name}the")
    assert max(ids) < len(vocabulary())
    assert tokenizer.decode(ids) == f"hello{name}the"


def test_half_a_character_is_seen_to_be_unfinished(tokenizer) -> None:
    ids = tokenizer.encode("世")
    assert len(ids) == 3
    assert tokenizer.decode(ids[:2]).endswith("\N{REPLACEMENT CHARACTER}")


def test_an_unknown_control_token_is_an_error(tokenizer) -> None:
    with pytest.raises(InvalidInput, match=r"no control token <\|im_stop\|>") as raised:
        tokenizer.control("<|im_stop|>")
    assert "<|im_start|>" in raised.value.hint


def test_settings_that_would_change_texts_are_left_out(tmp_path: Path) -> None:
    made = QwenText(QwenTextConfig())
    cut = {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}}
    made.read_files(whole(tmp_path, **cut))
    assert len(made.encode("hello the the the")) == 4


@pytest.mark.parametrize("content", ["{}", "no json", "[]", '{"added_tokens": [], "model": {"type": "?"}}'])
def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path, content) -> None:
    (tmp_path / "t").write_text(content)
    with pytest.raises(WeightsError, match=r"t: is not a tokenizer\.json"):
        QwenText(QwenTextConfig()).read_files({WHOLE: tmp_path / "t"})
    with pytest.raises(WeightsError, match="no table of tokens"):
        QwenText(QwenTextConfig()).read_files({VOCABULARY: tmp_path / "t", MERGES: tmp_path / "t"})


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="given files for text_merges, expected text_tokenizer"):
        QwenText(QwenTextConfig()).read_files({MERGES: tmp_path / "t"})
    with pytest.raises(WeightsError, match="has read no file"):
        QwenText(QwenTextConfig()).encode("hello")


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, real = lists(tmp_path), builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "tokenizers":
            raise ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers")
        return real(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "tokenizers")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PluginError, match="needs the package 'tokenizers'") as raised:
        QwenText(QwenTextConfig()).read_files(files)
    assert "zoo[illume]" in raised.value.hint
